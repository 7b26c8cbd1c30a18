//! Bytes to packets.

use sotto_model::QoS;

use super::connect::decode_connect;
use super::decode_error::DecodeError;
use super::fixed_header::FixedHeader;
use super::packet_type::PacketType;
use super::primitive::Reader;
use super::properties::{Properties, PropertyContext};
use super::topic_name::check_topic_name;
use crate::packet::{
    Ack, Auth, ConnAck, Disconnect, Packet, Publish, SubAck, Subscribe, SubscribeFilters, UnsubAck,
    Unsubscribe, UnsubscribeFilters, Version,
};
use crate::reason::ReasonCode;

/// The packet and its length, bytes; `None` while it is incomplete.
type Decoded<'a> = Result<Option<(Packet<'a>, usize)>, DecodeError>;

/// Decodes the packet that `buf` begins with and tells its length; `None` while it is incomplete.
///
/// A CONNECT decodes under any `version`, since it brings its own. Nothing is allocated.
pub fn decode(
    buf: &[u8],
    version: Version,
    packet_bytes_max: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let Some(header) = FixedHeader::read(buf, packet_bytes_max)? else { return Ok(None) };
    let Some(body) = buf.get(header.header_len..header.packet_len) else { return Ok(None) };
    let reader = Reader::new(body);
    // A packet is 128 bytes. PUBLISH and the acknowledgements, of which there are most, are written
    // straight to where the caller reads them; moving them costs as much as decoding them.
    match header.packet_type {
        PacketType::Publish => decode_publish(header, version, reader),
        PacketType::PubAck => decode_ack(Packet::PubAck, PropertyContext::PubAck, header, version, reader),
        PacketType::PubRec => decode_ack(Packet::PubRec, PropertyContext::PubRec, header, version, reader),
        PacketType::PubRel => decode_ack(Packet::PubRel, PropertyContext::PubRel, header, version, reader),
        PacketType::PubComp => decode_ack(Packet::PubComp, PropertyContext::PubComp, header, version, reader),
        packet_type => {
            decode_rare(packet_type, version, reader).map(|packet| Some((packet, header.packet_len)))
        }
    }
}

fn decode_rare(
    packet_type: PacketType,
    version: Version,
    mut reader: Reader<'_>,
) -> Result<Packet<'_>, DecodeError> {
    let packet = match packet_type {
        PacketType::Connect => Packet::Connect(decode_connect(&mut reader)?),
        PacketType::ConnAck => Packet::ConnAck(decode_connack(version, &mut reader)?),
        PacketType::Subscribe => return decode_subscribe(version, reader).map(Packet::Subscribe),
        PacketType::SubAck => return decode_suback(version, reader).map(Packet::SubAck),
        PacketType::Unsubscribe => return decode_unsubscribe(version, reader).map(Packet::Unsubscribe),
        PacketType::UnsubAck => return decode_unsuback(version, reader).map(Packet::UnsubAck),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(decode_disconnect(version, &mut reader)?),
        PacketType::Auth => Packet::Auth(decode_auth(version, &mut reader)?),
        PacketType::Publish
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp => unreachable!("decoded by the caller"),
    };
    reader.end()?;
    Ok(packet)
}

fn decode_publish(header: FixedHeader, version: Version, mut reader: Reader<'_>) -> Decoded<'_> {
    let flags = header.flags;
    let dup = flags & 0b1000 != 0;
    let retain = flags & 0b0001 != 0;
    let qos = QoS::from_bits(flags >> 1 & 0b11)
        .ok_or(DecodeError::malformed("a PUBLISH has QoS 3 [MQTT-3.3.1-4]"))?;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::malformed("a PUBLISH of QoS 0 has DUP set [MQTT-3.3.1-2]"));
    }
    let topic = reader.name()?;
    check_topic_name(topic)?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = match version {
        Version::V3 => Properties::EMPTY,
        Version::V5 => Properties::read(PropertyContext::Publish, &mut reader)?,
    };
    if topic.is_empty() {
        match version {
            Version::V3 => return Err(DecodeError::malformed("a Topic Name is empty [MQTT-4.7.3-1]")),
            Version::V5 if properties.topic_alias().is_none() => {
                return Err(DecodeError::protocol("a PUBLISH has neither Topic Name nor Topic Alias"));
            }
            Version::V5 => {}
        }
    }
    let payload = reader.rest();
    let publish = Publish { dup, qos, retain, topic, packet_id, properties, payload };
    Ok(Some((Packet::Publish(publish), header.packet_len)))
}

#[inline]
fn decode_ack<'a>(
    packet: impl Fn(Ack<'a>) -> Packet<'a>,
    context: PropertyContext,
    header: FixedHeader,
    version: Version,
    mut reader: Reader<'a>,
) -> Decoded<'a> {
    let packet_id = reader.packet_id()?;
    let mut reason = ReasonCode::Success;
    let mut properties = Properties::EMPTY;
    // 3.1.1 has no more than the identifier; version 5 may leave out a Reason Code of Success, and a
    // Property Length of 0.
    if version == Version::V5 && !reader.is_empty() {
        reason = read_reason(header.packet_type, &mut reader)?;
        if !reader.is_empty() {
            properties = Properties::read(context, &mut reader)?;
        }
    }
    reader.end()?;
    Ok(Some((packet(Ack { packet_id, reason, properties }), header.packet_len)))
}

fn decode_connack<'a>(version: Version, reader: &mut Reader<'a>) -> Result<ConnAck<'a>, DecodeError> {
    let session_present = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::malformed("a reserved flag of a CONNACK is set [MQTT-3.2.2-1]")),
    };
    let (reason, properties) = match version {
        Version::V3 => {
            let reason = ReasonCode::from_connect_return_code(reader.u8()?)
                .ok_or(DecodeError::malformed("a Connect Return Code is reserved"))?;
            (reason, Properties::EMPTY)
        }
        Version::V5 => {
            let reason = read_reason(PacketType::ConnAck, reader)?;
            (reason, Properties::read(PropertyContext::ConnAck, reader)?)
        }
    };
    // In 3.1.1 [MQTT-3.2.2-4].
    if session_present && reason.is_error() {
        return Err(DecodeError::protocol("a CONNACK that refuses has Session Present [MQTT-3.2.2-6]"));
    }
    Ok(ConnAck { session_present, reason, properties })
}

fn decode_subscribe(version: Version, mut reader: Reader<'_>) -> Result<Subscribe<'_>, DecodeError> {
    Ok(Subscribe {
        packet_id: reader.packet_id()?,
        properties: read_properties(version, PropertyContext::Subscribe, &mut reader)?,
        filters: SubscribeFilters::decode(reader.rest(), version)?,
    })
}

fn decode_suback(version: Version, mut reader: Reader<'_>) -> Result<SubAck<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = read_properties(version, PropertyContext::SubAck, &mut reader)?;
    let reasons = reader.rest();
    match version {
        // [MQTT-3.9.3-2]
        Version::V3 if reasons.iter().any(|reason| !matches!(reason, 0..=2 | 0x80)) => {
            return Err(DecodeError::malformed("a SUBACK has a reserved return code [MQTT-3.9.3-2]"));
        }
        Version::V3 => {}
        Version::V5 => check_reasons(PacketType::SubAck, reasons)?,
    }
    check_not_empty(reasons)?;
    Ok(SubAck { packet_id, properties, reasons })
}

fn decode_unsubscribe(version: Version, mut reader: Reader<'_>) -> Result<Unsubscribe<'_>, DecodeError> {
    Ok(Unsubscribe {
        packet_id: reader.packet_id()?,
        properties: read_properties(version, PropertyContext::Unsubscribe, &mut reader)?,
        filters: UnsubscribeFilters::decode(reader.rest(), version)?,
    })
}

fn decode_unsuback(version: Version, mut reader: Reader<'_>) -> Result<UnsubAck<'_>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = read_properties(version, PropertyContext::UnsubAck, &mut reader)?;
    match version {
        Version::V3 => reader.end()?,
        Version::V5 => {
            check_reasons(PacketType::UnsubAck, reader.rest())?;
            check_not_empty(reader.rest())?;
        }
    }
    Ok(UnsubAck { packet_id, properties, reasons: reader.rest() })
}

fn decode_disconnect<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Disconnect<'a>, DecodeError> {
    // Version 5 may leave out a Reason Code of 0, and a Property Length of 0.
    if version == Version::V3 || reader.is_empty() {
        return Ok(Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY });
    }
    let reason = read_reason(PacketType::Disconnect, reader)?;
    let properties = if reader.is_empty() {
        Properties::EMPTY
    } else {
        Properties::read(PropertyContext::Disconnect, reader)?
    };
    Ok(Disconnect { reason, properties })
}

fn decode_auth<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
    if version == Version::V3 {
        return Err(DecodeError::malformed("Control Packet type 15 is reserved in 3.1.1"));
    }
    if reader.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: Properties::EMPTY });
    }
    let reason = read_reason(PacketType::Auth, reader)?;
    let properties = Properties::read(PropertyContext::Auth, reader)?;
    // Only the form of length 0 may leave it out.
    if properties.authentication_method().is_none() {
        return Err(DecodeError::protocol("an AUTH has no Authentication Method"));
    }
    Ok(Auth { reason, properties })
}

fn read_properties<'a>(
    version: Version,
    context: PropertyContext,
    reader: &mut Reader<'a>,
) -> Result<Properties<'a>, DecodeError> {
    match version {
        Version::V3 => Ok(Properties::EMPTY),
        Version::V5 => Properties::read(context, reader),
    }
}

fn read_reason(packet_type: PacketType, reader: &mut Reader<'_>) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_u8(reader.u8()?)
        .filter(|reason| reason.is_used_in(packet_type))
        .ok_or(DecodeError::protocol("a Reason Code is not one of its packet's [MQTT-3.4.2-1]"))
}

fn check_reasons(packet_type: PacketType, reasons: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(reasons);
    while !reader.is_empty() {
        read_reason(packet_type, &mut reader)?;
    }
    Ok(())
}

fn check_not_empty(reasons: &[u8]) -> Result<(), DecodeError> {
    if reasons.is_empty() {
        return Err(DecodeError::malformed("an acknowledgement of filters has no Reason Code"));
    }
    Ok(())
}
