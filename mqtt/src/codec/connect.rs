//! CONNECT: the one packet that brings its own version.

use sotto_model::QoS;

use super::decode_error::DecodeError;
use super::primitive::{Reader, variable_byte_integer};
use super::properties::{Properties, PropertyContext};
use super::topic_name::check_topic_name;
use crate::packet::{Connect, Version, Will};
use crate::reason::ReasonCode;

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

pub(crate) fn decode_connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
    let version = read_version(reader)?;
    let flags = reader.u8()?;
    check_flags(flags, version)?;
    let keep_alive = reader.u16()?;
    let properties = read_properties(version, PropertyContext::Connect, reader)?;
    let client_id = reader.name()?;
    let will = if flags & WILL == 0 { None } else { Some(read_will(flags, version, reader)?) };
    let username = if flags & USERNAME == 0 { None } else { Some(reader.name()?) };
    let password = if flags & PASSWORD == 0 { None } else { Some(reader.binary()?) };
    Ok(Connect {
        version,
        clean_start: flags & CLEAN_START != 0,
        keep_alive,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// The version in which a CONNECT that does not decode can be answered, if it says that it is MQTT at all.
///
/// Any but 5 is answered as 3.1.1 wants it: what a version to come understands is not known.
pub fn connect_version(buf: &[u8]) -> Option<Version> {
    let (&first, rest) = buf.split_first()?;
    if first != 0x10 {
        return None;
    }
    let (_, len) = variable_byte_integer(rest).ok()??;
    let mut reader = Reader::new(&rest[len..]);
    match reader.binary().ok()? {
        b"MQTT" if reader.u8().ok()? == 5 => Some(Version::V5),
        b"MQIsdp" | b"MQTT" => Some(Version::V3),
        _ => None,
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2]
    let name = reader.binary()?;
    if name != b"MQTT" {
        return Err(DecodeError::new(
            ReasonCode::UnsupportedProtocolVersion,
            "a CONNECT has another Protocol Name than MQTT [MQTT-3.1.2-1]",
        ));
    }
    match reader.u8()? {
        4 => Ok(Version::V3),
        5 => Ok(Version::V5),
        _ => Err(DecodeError::new(
            ReasonCode::UnsupportedProtocolVersion,
            "a CONNECT has a Protocol Level that is neither 4 nor 5 [MQTT-3.1.2-2]",
        )),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::malformed("the reserved flag of a CONNECT is set [MQTT-3.1.2-3]"));
    }
    // [MQTT-3.1.2-11] [MQTT-3.1.2-13]; in 3.1.1 [MQTT-3.1.2-15]
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::malformed(
            "a CONNECT without a will has a Will QoS or Will Retain [MQTT-3.1.2-11] [MQTT-3.1.2-13]",
        ));
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::malformed("a Will QoS is 3 [MQTT-3.1.2-12]"));
    }
    // Version 5 lets a password stand alone.
    if version == Version::V3 && flags & USERNAME == 0 && flags & PASSWORD != 0 {
        return Err(DecodeError::malformed(
            "a 3.1.1 CONNECT has a password without a user name [MQTT-3.1.2-22]",
        ));
    }
    Ok(())
}

fn read_will<'a>(flags: u8, version: Version, reader: &mut Reader<'a>) -> Result<Will<'a>, DecodeError> {
    let properties = read_properties(version, PropertyContext::Will, reader)?;
    let topic = reader.name()?;
    if topic.is_empty() {
        return Err(DecodeError::malformed("a Will Topic is empty [MQTT-4.7.3-1]"));
    }
    check_topic_name(topic)?;
    Ok(Will {
        topic,
        payload: reader.binary()?,
        qos: QoS::from_bits((flags & WILL_QOS) >> 3).expect("check_flags refused 3"),
        retain: flags & WILL_RETAIN != 0,
        properties,
    })
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
