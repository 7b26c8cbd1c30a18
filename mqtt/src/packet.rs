//! The control packets, borrowed from the bytes they were decoded from.
//!
//! Lists and properties stay encoded: the decoder has checked them, and their iterators walk the bytes
//! again. So decoding allocates nothing, and forwarding a publisher's properties is one copy.

use std::fmt;

use sotto_model::{PacketId, QoS};

use crate::codec::properties::Properties;
use crate::reason::ReasonCode;

/// The Protocol Level of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5.0, protocol level 5.
    V5,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

#[derive(Clone, PartialEq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Clean Session in 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0 switches it off.
    pub keep_alive: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: Properties<'a>,
}

#[derive(Clone, PartialEq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub properties: Properties<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    pub session_present: bool,
    /// In 3.1.1 written as the nearest return code 0–5.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

#[derive(Clone, PartialEq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only in version 5, with a Topic Alias.
    pub topic: &'a str,
    /// Present exactly when `qos` is not 0.
    pub packet_id: Option<PacketId>,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    pub packet_id: PacketId,
    /// In 3.1.1 always Success, and not written.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    pub filters: SubscribeFilters<'a>,
}

/// The filters of a SUBSCRIBE as they stand in the packet; at least one. Iterates over
/// `(&str, SubscriptionOptions)`.
#[derive(Clone, Copy, PartialEq)]
pub struct SubscribeFilters<'a> {
    pub(crate) raw: &'a [u8],
}

#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    /// One byte a filter, in order: a granted QoS or a failure. In 3.1.1 every failure is 0x80.
    pub reasons: &'a [u8],
}

#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    pub filters: UnsubscribeFilters<'a>,
}

/// The filters of an UNSUBSCRIBE as they stand in the packet; at least one. Iterates over `&str`.
#[derive(Clone, Copy, PartialEq)]
pub struct UnsubscribeFilters<'a> {
    pub(crate) raw: &'a [u8],
}

#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    /// One byte a filter, in order; not written in 3.1.1.
    pub reasons: &'a [u8],
}

#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Written in version 5 only.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

/// Version 5 only.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

// What a packet holds may be private, so its Debug shows flags and numbers alone.

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("packet_id", &self.packet_id)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubscribeFilters({})", self.len())
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnsubscribeFilters({})", self.len())
    }
}
