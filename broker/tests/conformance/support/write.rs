//! Packets as bytes.

use crate::support::packet::Version;

/// A packet of any bytes: first byte, Remaining Length, body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(variable_byte_integer(body.len()));
    bytes.extend(body);
    bytes
}

pub(crate) fn variable_byte_integer(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value % 128).expect("below 128");
        value /= 128;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("at most 65,535 bytes");
    [&len.to_be_bytes()[..], bytes].concat()
}

/// A Property Length and the properties behind it; nothing in 3.1.1.
pub(crate) fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    match version {
        Version::V3 => Vec::new(),
        Version::V5 => [variable_byte_integer(properties.len()), properties.to_vec()].concat(),
    }
}

/// What a PUBLISH says.
#[derive(Clone)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<u8>,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let payload = payload.as_ref();
        Self { topic, payload, qos: 0, packet_id: 0, dup: false, retain: false, properties: Vec::new() }
    }

    pub(crate) fn qos(mut self, qos: u8, packet_id: u16) -> Self {
        (self.qos, self.packet_id) = (qos, packet_id);
        self
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub(crate) fn property(mut self, property: &[u8]) -> Self {
        self.properties.extend(property);
        self
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let packet_id = if self.qos == 0 { Vec::new() } else { self.packet_id.to_be_bytes().to_vec() };
        let properties = properties(version, &self.properties);
        packet(first, &[string(self.topic), packet_id, properties, self.payload.to_vec()].concat())
    }
}

/// `options` are the QoS alone in 3.1.1.
pub(crate) fn subscribe(version: Version, packet_id: u16, own: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = [packet_id.to_be_bytes().to_vec(), properties(version, own)].concat();
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = [packet_id.to_be_bytes().to_vec(), properties(version, &[])].concat();
    for filter in filters {
        body.extend(string(filter));
    }
    packet(0xa2, &body)
}

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// With success.
pub(crate) fn ack(kind: u8, packet_id: u16) -> Vec<u8> {
    packet(kind, &packet_id.to_be_bytes())
}

/// Version 5 only.
pub(crate) fn ack_with(kind: u8, packet_id: u16, reason: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    packet(kind, &[high, low, reason])
}

/// Version 5 only.
pub(crate) fn disconnect_with(reason: u8, own: &[u8]) -> Vec<u8> {
    packet(0xe0, &[vec![reason], properties(Version::V5, own)].concat())
}

// ---- properties ----

pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub(crate) const CONTENT_TYPE: u8 = 0x03;
pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
pub(crate) const CORRELATION_DATA: u8 = 0x09;
pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
pub(crate) const REASON_STRING: u8 = 0x1f;
pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const MAXIMUM_QOS: u8 = 0x24;
pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
pub(crate) const USER_PROPERTY: u8 = 0x26;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;

pub(crate) fn byte(property: u8, value: u8) -> Vec<u8> {
    vec![property, value]
}

pub(crate) fn two_bytes(property: u8, value: u16) -> Vec<u8> {
    [vec![property], value.to_be_bytes().to_vec()].concat()
}

pub(crate) fn four_bytes(property: u8, value: u32) -> Vec<u8> {
    [vec![property], value.to_be_bytes().to_vec()].concat()
}

pub(crate) fn text(property: u8, value: &str) -> Vec<u8> {
    [vec![property], string(value)].concat()
}

pub(crate) fn data(property: u8, value: &[u8]) -> Vec<u8> {
    [vec![property], binary(value)].concat()
}

pub(crate) fn user_property(name: &str, value: &str) -> Vec<u8> {
    [vec![USER_PROPERTY], string(name), string(value)].concat()
}

pub(crate) fn subscription_identifier(value: usize) -> Vec<u8> {
    [vec![SUBSCRIPTION_IDENTIFIER], variable_byte_integer(value)].concat()
}
