//! A message on its way to a client, and what became of it.

use sotto_model::{Offset, PacketId, QoS};

use crate::codec::properties::{Property, PropertyBuf};

/// A message for this client, its QoS lowered to what was granted.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// Encoded; sent to version 5 clients.
    pub properties: &'a [u8],
    /// Of the Message Expiry Interval, seconds. [MQTT-3.3.2-6]
    pub expiry_remaining_seconds: Option<u32>,
    pub subscription_identifiers: &'a [u32],
    pub place: Place,
}

/// Where a message stands in the tenant's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In no log: it is gone with the connection.
    Unlogged,
    /// The session comes by it in the log's order.
    InOrder(Offset),
    /// A retained message, or one of a shared subscription: in the log, out of the session's order.
    OutOfOrder(Offset),
}

impl Place {
    pub(crate) fn offset(self) -> Option<Offset> {
        match self {
            Self::Unlogged => None,
            Self::InOrder(offset) | Self::OutOfOrder(offset) => Some(offset),
        }
    }
}

/// What became of a [`Delivery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    Sent,
    /// Sent before: its offset is not after the session's.
    Known,
    /// Larger than the client takes: as if it had been sent. [MQTT-3.1.2-25]
    TooLarge,
    /// It has a packet id and a place in the window, and is sent once that is durable: after a crash the
    /// client must get it under no other.
    Held(PacketId),
    /// The client's Receive Maximum is reached: offer it again when the window moves. [MQTT-3.3.4-9]
    WindowFull,
}

/// What is particular to this delivery, to be sent before the publisher's properties.
pub(crate) fn own_properties(delivery: &Delivery<'_>) -> PropertyBuf {
    let mut own = PropertyBuf::new();
    if let Some(seconds) = delivery.expiry_remaining_seconds {
        own.push(Property::MessageExpiryInterval(seconds));
    }
    for identifier in delivery.subscription_identifiers {
        // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
        own.push(Property::SubscriptionIdentifier(*identifier));
    }
    own
}
