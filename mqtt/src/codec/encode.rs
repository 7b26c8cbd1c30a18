//! Packets to bytes.
//!
//! Encoding does not fail: a packet that was decoded always fits, and one that is built must keep to the
//! wire's lengths (strings and binary data 65,535 bytes, a packet 268,435,455 bytes), which is asserted.

use sotto_model::{PacketId, QoS};

use super::packet_type::PacketType;
use super::primitive::{Count, Sink, VARIABLE_BYTE_INTEGER_MAX, variable_byte_integer_size};
use super::properties::Properties;
use crate::packet::{Ack, Auth, ConnAck, Connect, Disconnect, Packet, SubAck, UnsubAck, Version, Will};
use crate::reason::ReasonCode;

impl Packet<'_> {
    /// Appends the packet to `out`. A CONNECT goes by its own version.
    ///
    /// # Panics
    /// When a field is longer than the wire can say.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if let Packet::Publish(publish) = self {
            let properties = &[publish.properties.as_bytes()];
            let (topic, payload) = (publish.topic, publish.payload);
            let (dup, qos, retain) = (publish.dup, publish.qos, publish.retain);
            encode_publish(version, dup, qos, retain, topic, publish.packet_id, properties, payload, out);
            return;
        }
        let remaining_length = self.body_len(version);
        out.reserve(1 + variable_byte_integer_size(remaining_length) + remaining_length as usize);
        let packet_type = self.packet_type();
        out.u8((packet_type as u8) << 4 | packet_type.fixed_flags().unwrap_or(0));
        out.variable_byte_integer(remaining_length);
        self.write_body(version, out);
    }

    /// Bytes that `encode` appends: what is held against the peer's Maximum Packet Size.
    pub fn encoded_len(&self, version: Version) -> usize {
        let remaining_length = self.body_len(version);
        1 + variable_byte_integer_size(remaining_length) + remaining_length as usize
    }

    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    fn body_len(&self, version: Version) -> u32 {
        let mut count = Count::default();
        self.write_body(version, &mut count);
        remaining_length(count.0)
    }

    fn write_body(&self, version: Version, out: &mut impl Sink) {
        match self {
            Packet::Connect(connect) => write_connect(connect, out),
            Packet::ConnAck(connack) => write_connack(connack, version, out),
            Packet::Publish(publish) => {
                write_publish_head(publish.topic, publish.packet_id, out);
                write_properties(publish.properties, version, out);
                out.bytes(publish.payload);
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                write_ack(ack, version, out);
            }
            Packet::Subscribe(subscribe) => {
                out.packet_id(subscribe.packet_id);
                write_properties(subscribe.properties, version, out);
                out.bytes(subscribe.filters.raw);
            }
            Packet::SubAck(suback) => write_suback(suback, version, out),
            Packet::Unsubscribe(unsubscribe) => {
                out.packet_id(unsubscribe.packet_id);
                write_properties(unsubscribe.properties, version, out);
                out.bytes(unsubscribe.filters.raw);
            }
            Packet::UnsubAck(unsuback) => write_unsuback(unsuback, version, out),
            Packet::PingReq | Packet::PingResp => {}
            Packet::Disconnect(disconnect) => write_disconnect(disconnect, version, out),
            Packet::Auth(auth) => write_auth(auth, out),
        }
    }
}

/// Appends a PUBLISH whose properties come in parts, each already encoded; 3.1.1 leaves them out.
///
/// # Panics
/// When the topic is longer than 65,535 bytes or the packet than 268,435,455.
#[expect(
    clippy::too_many_arguments,
    reason = "the fields of the packet, without a struct to build per delivery"
)]
#[inline]
pub fn encode_publish(
    version: Version,
    dup: bool,
    qos: QoS,
    retain: bool,
    topic: &str,
    packet_id: Option<PacketId>,
    property_parts: &[&[u8]],
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    debug_assert_eq!(packet_id.is_some(), qos != QoS::AtMostOnce, "[MQTT-2.2.1-2] [MQTT-2.2.1-4]");
    let properties_len: usize = property_parts.iter().map(|part| part.len()).sum();
    let body_len = publish_body_len(version, qos, topic.len(), properties_len, payload.len());
    let packet_remaining_length = remaining_length(body_len);
    out.reserve(1 + variable_byte_integer_size(packet_remaining_length) + body_len);
    out.u8((PacketType::Publish as u8) << 4 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain));
    out.variable_byte_integer(packet_remaining_length);
    write_publish_head(topic, packet_id, out);
    if version == Version::V5 {
        out.variable_byte_integer(remaining_length(properties_len));
        for part in property_parts {
            out.bytes(part);
        }
    }
    out.bytes(payload);
}

/// Bytes that `encode_publish` appends: what is held against the peer's Maximum Packet Size.
pub fn publish_len(
    version: Version,
    qos: QoS,
    topic_len: usize,
    properties_len: usize,
    payload_len: usize,
) -> usize {
    let body_len = publish_body_len(version, qos, topic_len, properties_len, payload_len);
    1 + variable_byte_integer_size(remaining_length(body_len)) + body_len
}

/// # Panics
/// Past 268,435,455, which four bytes cannot hold.
pub fn write_remaining_length(len: u32, out: &mut Vec<u8>) {
    out.variable_byte_integer(len);
}

/// Bytes that `write_remaining_length` appends.
pub fn remaining_length_size(len: u32) -> usize {
    variable_byte_integer_size(len)
}

fn remaining_length(len: usize) -> u32 {
    u32::try_from(len)
        .ok()
        .filter(|&len| len <= VARIABLE_BYTE_INTEGER_MAX)
        .expect("a packet has at most 268,435,455 bytes")
}

fn publish_body_len(
    version: Version,
    qos: QoS,
    topic_len: usize,
    properties_len: usize,
    payload_len: usize,
) -> usize {
    let packet_id_len = if qos == QoS::AtMostOnce { 0 } else { 2 };
    let properties_len = match version {
        Version::V3 => 0,
        Version::V5 => variable_byte_integer_size(remaining_length(properties_len)) + properties_len,
    };
    2 + topic_len + packet_id_len + properties_len + payload_len
}

fn write_publish_head(topic: &str, packet_id: Option<PacketId>, out: &mut impl Sink) {
    out.utf8(topic);
    if let Some(packet_id) = packet_id {
        out.packet_id(packet_id);
    }
}

fn write_connect(connect: &Connect<'_>, out: &mut impl Sink) {
    let version = connect.version;
    out.utf8("MQTT");
    out.u8(match version {
        Version::V3 => 4,
        Version::V5 => 5,
    });
    let mut flags = u8::from(connect.clean_start) << 1;
    if let Some(will) = &connect.will {
        flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6 | u8::from(connect.username.is_some()) << 7;
    out.u8(flags);
    out.u16(connect.keep_alive);
    write_properties(connect.properties, version, out);
    out.utf8(connect.client_id);
    if let Some(Will { topic, payload, properties, .. }) = connect.will {
        write_properties(properties, version, out);
        out.utf8(topic);
        out.binary(payload);
    }
    if let Some(username) = connect.username {
        out.utf8(username);
    }
    if let Some(password) = connect.password {
        out.binary(password);
    }
}

fn write_connack(connack: &ConnAck<'_>, version: Version, out: &mut impl Sink) {
    out.u8(u8::from(connack.session_present));
    out.u8(match version {
        Version::V3 => connack.reason.connect_return_code(),
        Version::V5 => connack.reason.code(),
    });
    write_properties(connack.properties, version, out);
}

fn write_ack(ack: &Ack<'_>, version: Version, out: &mut impl Sink) {
    out.packet_id(ack.packet_id);
    if version == Version::V5 {
        write_short_form(ack.reason, ack.properties, out);
    }
}

fn write_suback(suback: &SubAck<'_>, version: Version, out: &mut impl Sink) {
    out.packet_id(suback.packet_id);
    write_properties(suback.properties, version, out);
    match version {
        Version::V5 => out.bytes(suback.reasons),
        Version::V3 => {
            for &reason in suback.reasons {
                // [MQTT-3.9.3-2]
                out.u8(reason.min(ReasonCode::UnspecifiedError.code()));
            }
        }
    }
}

fn write_unsuback(unsuback: &UnsubAck<'_>, version: Version, out: &mut impl Sink) {
    out.packet_id(unsuback.packet_id);
    write_properties(unsuback.properties, version, out);
    if version == Version::V5 {
        out.bytes(unsuback.reasons);
    }
}

fn write_disconnect(disconnect: &Disconnect<'_>, version: Version, out: &mut impl Sink) {
    if version == Version::V5 {
        write_short_form(disconnect.reason, disconnect.properties, out);
    }
}

fn write_auth(auth: &Auth<'_>, out: &mut impl Sink) {
    if auth.reason == ReasonCode::Success && auth.properties.is_empty() {
        return;
    }
    out.u8(auth.reason.code());
    auth.properties.write(out);
}

/// A Property Length of 0 is left out, and before it a Reason Code of 0.
fn write_short_form(reason: ReasonCode, properties: Properties<'_>, out: &mut impl Sink) {
    if reason == ReasonCode::Success && properties.is_empty() {
        return;
    }
    out.u8(reason.code());
    if !properties.is_empty() {
        properties.write(out);
    }
}

fn write_properties(properties: Properties<'_>, version: Version, out: &mut impl Sink) {
    if version == Version::V5 {
        properties.write(out);
    }
}
