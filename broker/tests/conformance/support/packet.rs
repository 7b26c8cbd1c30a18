//! What the broker sends, read strictly: a packet that breaks the specification fails the test.

use crate::support::write::{
    ASSIGNED_CLIENT_IDENTIFIER, AUTHENTICATION_DATA, AUTHENTICATION_METHOD, CONTENT_TYPE, CORRELATION_DATA,
    MAXIMUM_PACKET_SIZE, MAXIMUM_QOS, MESSAGE_EXPIRY_INTERVAL, PAYLOAD_FORMAT_INDICATOR, REASON_STRING,
    RECEIVE_MAXIMUM, RESPONSE_INFORMATION, RESPONSE_TOPIC, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE,
    SERVER_REFERENCE, SESSION_EXPIRY_INTERVAL, SHARED_SUBSCRIPTION_AVAILABLE, SUBSCRIPTION_IDENTIFIER,
    SUBSCRIPTION_IDENTIFIER_AVAILABLE, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM, USER_PROPERTY,
    WILDCARD_SUBSCRIPTION_AVAILABLE,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1
    V3,
    /// MQTT 5.0
    V5,
}

pub(crate) const BOTH: [Version; 2] = [Version::V3, Version::V5];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    ConnAck {
        present: bool,
        code: u8,
        properties: Properties,
    },
    Publish(Message),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte.
    Ack {
        kind: u8,
        packet_id: u16,
        code: u8,
        properties: Properties,
    },
    SubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    Disconnect {
        code: u8,
        properties: Properties,
    },
    Auth {
        code: u8,
        properties: Properties,
    },
    /// The connection is closed.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    /// 0 where there is none.
    pub(crate) packet_id: u16,
    pub(crate) properties: Properties,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a test's payload")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties(pub(crate) Vec<(u8, Value)>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u32),
    Text(String),
    Data(Vec<u8>),
    Pair(String, String),
}

impl Properties {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn number(&self, property: u8) -> Option<u32> {
        self.0.iter().find_map(|(id, value)| match value {
            Value::Number(number) if *id == property => Some(*number),
            _ => None,
        })
    }

    pub(crate) fn text(&self, property: u8) -> Option<&str> {
        self.0.iter().find_map(|(id, value)| match value {
            Value::Text(text) if *id == property => Some(text.as_str()),
            _ => None,
        })
    }

    pub(crate) fn data(&self, property: u8) -> Option<&[u8]> {
        self.0.iter().find_map(|(id, value)| match value {
            Value::Data(data) if *id == property => Some(data.as_slice()),
            _ => None,
        })
    }

    pub(crate) fn numbers(&self, property: u8) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .0
            .iter()
            .filter_map(|(id, value)| match value {
                Value::Number(number) if *id == property => Some(*number),
                _ => None,
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|(_, value)| match value {
                Value::Pair(name, value) => Some((name.as_str(), value.as_str())),
                _ => None,
            })
            .collect()
    }
}

/// The packet that `bytes` begin with and its length; `None` while it is incomplete.
pub(crate) fn read(version: Version, bytes: &[u8]) -> Option<(Packet, usize)> {
    let first = *bytes.first()?;
    let mut at = Cursor { bytes: &bytes[1..] };
    let len = at.variable_byte_integer_if_whole()?;
    let header = bytes.len() - at.bytes.len();
    let body = at.bytes.get(..len)?;
    Some((decode(version, first, Cursor { bytes: body }), header + len))
}

fn decode(version: Version, first: u8, mut body: Cursor<'_>) -> Packet {
    let v5 = version == Version::V5;
    let packet = match first {
        // [MQTT-3.2.2-1]: no other flag
        0x20 => Packet::ConnAck {
            present: match body.u8() {
                0 => false,
                1 => true,
                flags => panic!("CONNACK flags {flags:#x}"),
            },
            code: body.u8(),
            properties: if v5 { body.properties(first) } else { Properties::default() },
        },
        0x30..=0x3f => {
            let qos = first >> 1 & 3;
            assert!(qos < 3, "a PUBLISH of QoS 3");
            let message = Message {
                dup: first & 8 != 0,
                qos,
                retain: first & 1 != 0,
                topic: body.string(),
                packet_id: if qos == 0 { 0 } else { body.packet_id() },
                properties: if v5 { body.properties(first) } else { Properties::default() },
                payload: std::mem::take(&mut body.bytes).to_vec(),
            };
            assert!(qos > 0 || !message.dup, "DUP with QoS 0 [MQTT-3.3.1-2]");
            assert!(!message.topic.contains(['+', '#']), "a wildcard in a topic name [MQTT-3.3.2-2]");
            Packet::Publish(message)
        }
        0x40 | 0x50 | 0x62 | 0x70 => {
            let packet_id = body.packet_id();
            let code = if v5 && !body.bytes.is_empty() { body.u8() } else { 0 };
            let whole = v5 && !body.bytes.is_empty();
            let properties = if whole { body.properties(first) } else { Properties::default() };
            Packet::Ack { kind: first, packet_id, code, properties }
        }
        0x90 | 0xb0 => {
            let packet_id = body.packet_id();
            if v5 {
                body.properties(first);
            }
            let codes = std::mem::take(&mut body.bytes).to_vec();
            match first {
                0x90 => Packet::SubAck { packet_id, codes },
                _ => Packet::UnsubAck { packet_id, codes },
            }
        }
        0xd0 => Packet::PingResp,
        0xe0 => {
            assert!(v5, "a DISCONNECT to a 3.1.1 client");
            let code = if body.bytes.is_empty() { 0 } else { body.u8() };
            let whole = !body.bytes.is_empty();
            let properties = if whole { body.properties(first) } else { Properties::default() };
            Packet::Disconnect { code, properties }
        }
        0xf0 => {
            assert!(v5, "an AUTH to a 3.1.1 client");
            let code = if body.bytes.is_empty() { 0 } else { body.u8() };
            let whole = !body.bytes.is_empty();
            let properties = if whole { body.properties(first) } else { Properties::default() };
            Packet::Auth { code, properties }
        }
        _ => panic!("{first:#x} from a server"),
    };
    assert!(body.bytes.is_empty(), "bytes behind the last field of {packet:?}");
    packet
}

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> &[u8] {
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn packet_id(&mut self) -> u16 {
        let packet_id = self.u16();
        assert_ne!(packet_id, 0, "a Packet Identifier of 0");
        packet_id
    }

    fn binary(&mut self) -> Vec<u8> {
        let len = usize::from(self.u16());
        self.take(len).to_vec()
    }

    fn string(&mut self) -> String {
        String::from_utf8(self.binary()).expect("UTF-8")
    }

    fn variable_byte_integer_if_whole(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = *self.bytes.first()?;
            self.bytes = &self.bytes[1..];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                assert!(byte != 0 || shift == 0, "a length that is not minimal [MQTT-1.5.5-1]");
                return Some(value);
            }
        }
        panic!("a length of more than four bytes");
    }

    fn properties(&mut self, packet: u8) -> Properties {
        let len = self.variable_byte_integer_if_whole().expect("a Property Length");
        let mut own = Cursor { bytes: self.take(len) };
        let mut properties: Vec<(u8, Value)> = Vec::new();
        while !own.bytes.is_empty() {
            let id = own.u8();
            assert!(may_stand_in(id, packet), "property {id:#x} in packet {packet:#x}");
            let repeats = id == USER_PROPERTY || id == SUBSCRIPTION_IDENTIFIER && packet >> 4 == 3;
            assert!(repeats || properties.iter().all(|(known, _)| *known != id), "property {id:#x} twice");
            let value = match id {
                PAYLOAD_FORMAT_INDICATOR
                | MAXIMUM_QOS
                | RETAIN_AVAILABLE
                | WILDCARD_SUBSCRIPTION_AVAILABLE
                | SUBSCRIPTION_IDENTIFIER_AVAILABLE
                | SHARED_SUBSCRIPTION_AVAILABLE => Value::Number(own.u8().into()),
                SERVER_KEEP_ALIVE | RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => {
                    Value::Number(own.u16().into())
                }
                MESSAGE_EXPIRY_INTERVAL | SESSION_EXPIRY_INTERVAL | MAXIMUM_PACKET_SIZE => {
                    Value::Number(own.u32())
                }
                SUBSCRIPTION_IDENTIFIER => {
                    let value = own.variable_byte_integer_if_whole().expect("a whole number");
                    Value::Number(u32::try_from(value).expect("28 bits"))
                }
                CONTENT_TYPE
                | RESPONSE_TOPIC
                | ASSIGNED_CLIENT_IDENTIFIER
                | AUTHENTICATION_METHOD
                | RESPONSE_INFORMATION
                | SERVER_REFERENCE
                | REASON_STRING => Value::Text(own.string()),
                CORRELATION_DATA | AUTHENTICATION_DATA => Value::Data(own.binary()),
                USER_PROPERTY => Value::Pair(own.string(), own.string()),
                _ => panic!("property {id:#x} from a server"),
            };
            properties.push((id, value));
        }
        Properties(properties)
    }
}

/// Table 2-4 of version 5, for packets from a server.
fn may_stand_in(property: u8, packet: u8) -> bool {
    match packet >> 4 {
        2 => !matches!(
            property,
            PAYLOAD_FORMAT_INDICATOR
                | MESSAGE_EXPIRY_INTERVAL
                | CONTENT_TYPE
                | RESPONSE_TOPIC
                | CORRELATION_DATA
                | SUBSCRIPTION_IDENTIFIER
                | TOPIC_ALIAS
        ),
        3 => matches!(
            property,
            PAYLOAD_FORMAT_INDICATOR
                | MESSAGE_EXPIRY_INTERVAL
                | CONTENT_TYPE
                | RESPONSE_TOPIC
                | CORRELATION_DATA
                | SUBSCRIPTION_IDENTIFIER
                | TOPIC_ALIAS
                | USER_PROPERTY
        ),
        // [MQTT-3.14.2-2]: no Session Expiry Interval
        14 => matches!(property, SERVER_REFERENCE | REASON_STRING | USER_PROPERTY),
        15 => {
            matches!(property, AUTHENTICATION_METHOD | AUTHENTICATION_DATA | REASON_STRING | USER_PROPERTY)
        }
        _ => matches!(property, REASON_STRING | USER_PROPERTY),
    }
}
