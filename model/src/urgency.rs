//! How soon a sleeping device is to be woken for a message.

/// A greater one is the more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Urgency {
    /// Some time within minutes, and without showing anything.
    Low = 1,
    /// At once, even when it dozes.
    High = 2,
}

impl Urgency {
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Low),
            2 => Some(Self::High),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }
}
