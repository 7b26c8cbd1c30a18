//! Where an oracle and the codec make different things of the same bytes.

use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::codec::{DecodeError, connect_version, decode};
use sotto_mqtt::packet::{Packet, Version};

use super::PACKET_BYTES_MAX;
use super::oracle::Oracle;

pub(crate) struct Disagreement<'a> {
    pub(crate) oracle: Oracle,
    pub(crate) version: Version,
    pub(crate) bytes: &'a [u8],
    pub(crate) kind: Kind<'a>,
}

#[derive(Debug)]
pub(crate) enum Kind<'a> {
    /// It takes what the codec refuses, for this reason.
    Taken(DecodeError),
    /// It takes what is not yet a whole packet.
    TakenEarly,
    /// It refuses what the codec takes, or cannot write what it took.
    Refused(Packet<'a>),
    /// Both take it, and what it writes is no packet.
    WrittenWrong(DecodeError),
    /// Both take it, for different packets.
    Changed(Packet<'a>, Packet<'static>),
}

/// Shows them the packet that `bytes` begin with. A CONNECT is read in the version that it names.
///
/// That one of them refuses a packet before it is whole is no disagreement.
pub(crate) fn between(oracle: Oracle, version: Version, bytes: &[u8]) -> Option<Disagreement<'_>> {
    let version = connect_version(bytes).unwrap_or(version);
    let ours = decode(bytes, version, PACKET_BYTES_MAX);
    let theirs = oracle.take(version, bytes);
    let kind = match (ours, theirs) {
        (Err(_) | Ok(None), None) => return None,
        (Err(error), Some(_)) => Kind::Taken(error),
        (Ok(None), Some(_)) => Kind::TakenEarly,
        (Ok(Some((packet, _))), None) => Kind::Refused(packet),
        (Ok(Some((packet, consumed))), Some(taken)) => {
            assert_eq!(consumed, taken.consumed, "{}: {bytes:02x?}", oracle.name());
            match decode(taken.written.leak(), version, PACKET_BYTES_MAX) {
                Err(error) => Kind::WrittenWrong(error),
                Ok(None) => panic!("{} wrote half a packet for {bytes:02x?}", oracle.name()),
                Ok(Some((again, _))) if sorted(&again) == sorted(&packet) => return None,
                Ok(Some((again, _))) => Kind::Changed(packet, again),
            }
        }
    };
    Some(Disagreement { oracle, version, bytes, kind })
}

/// The packet with its properties in the order of their identifiers; those with the same one keep theirs.
fn sorted<'a>(packet: &Packet<'a>) -> Packet<'a> {
    with_properties(packet, |properties| {
        let mut list: Vec<Property<'_>> = properties.iter().collect();
        list.sort_by_key(|property| property.id() as u8);
        list
    })
}

/// The packet with the properties that `change` makes of each list. What they borrow is leaked: a test run
/// is short.
pub(crate) fn with_properties<'a>(
    packet: &Packet<'a>,
    change: impl Fn(Properties<'a>) -> Vec<Property<'a>>,
) -> Packet<'a> {
    let changed = |properties: &mut Properties<'a>| {
        let list: PropertyBuf = change(*properties).into_iter().collect();
        *properties = Box::leak(Box::new(list)).as_properties();
    };
    let mut packet = packet.clone();
    match &mut packet {
        Packet::Connect(connect) => {
            changed(&mut connect.properties);
            if let Some(will) = &mut connect.will {
                changed(&mut will.properties);
            }
        }
        Packet::ConnAck(connack) => changed(&mut connack.properties),
        Packet::Publish(publish) => changed(&mut publish.properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            changed(&mut ack.properties);
        }
        Packet::Subscribe(subscribe) => changed(&mut subscribe.properties),
        Packet::SubAck(suback) => changed(&mut suback.properties),
        Packet::Unsubscribe(unsubscribe) => changed(&mut unsubscribe.properties),
        Packet::UnsubAck(unsuback) => changed(&mut unsuback.properties),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => changed(&mut disconnect.properties),
        Packet::Auth(auth) => changed(&mut auth.properties),
    }
    packet
}
