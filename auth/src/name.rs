//! The names that people choose: of tenants, users and devices.

use std::fmt;
use std::sync::Arc;

use crate::limits::NAME_BYTES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("name is empty")]
    Empty,
    #[error("name is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    #[error("name holds something else than a-z, 0-9, '.', '_' and '-'")]
    Alphabet,
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn parse(raw: &str) -> Result<Self, NameError> {
                check(raw).map(|()| Self(raw.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )+};
}

name! {
    TenantName,
    /// Unique within its tenant.
    UserName,
    /// Unique within its user.
    DeviceName,
}

/// The alphabet leaves out '@' and '/', which part the names on the wire.
fn check(raw: &str) -> Result<(), NameError> {
    if raw.is_empty() {
        return Err(NameError::Empty);
    }
    if raw.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    if !raw.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
        return Err(NameError::Alphabet);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_of_a_small_alphabet() {
        for good in ["a", "alice", "dr.house_2-b", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(UserName::parse(good).expect("good name").as_str(), good);
        }
        assert_eq!(UserName::parse(""), Err(NameError::Empty));
        assert_eq!(UserName::parse(&"x".repeat(NAME_BYTES_MAX + 1)), Err(NameError::TooLong));
        for bad in ["Alice", "a b", "a@b", "a/b", "ä", "a\0", "a+"] {
            assert_eq!(UserName::parse(bad), Err(NameError::Alphabet), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_not_shown() {
        assert_eq!(format!("{:?}", UserName::parse("alice")), "Ok(UserName(..))");
    }
}
