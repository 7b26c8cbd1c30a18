//! What a subscriber asked for, beside its filter.

use crate::offset::Offset;
use crate::qos::QoS;
use crate::topic::TopicFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    SendAtSubscribe = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

impl SubscriptionOptions {
    /// The Subscription Options byte of MQTT 5; `None` where a reserved bit or value is set.
    /// [MQTT-3.8.3-4] [MQTT-3.8.3-5]
    pub fn from_bits(bits: u8) -> Option<Self> {
        if bits & 0b1100_0000 != 0 {
            return None;
        }
        let retain_handling = match bits >> 4 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        Some(Self {
            qos: QoS::from_bits(bits & 0b11)?,
            no_local: bits & 0b100 != 0,
            retain_as_published: bits & 0b1000 != 0,
            retain_handling,
        })
    }

    pub fn to_bits(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub filter: TopicFilter,
    pub options: SubscriptionOptions,
    /// MQTT 5 Subscription Identifier, 1 to 268,435,455.
    pub identifier: Option<u32>,
    /// It holds for messages after this offset.
    pub since: Offset,
}
