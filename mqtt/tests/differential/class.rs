//! The classes of disagreement, as `docs/codec-differences.md` explains them.

use sotto_mqtt::codec::packet_type::PacketType;
use sotto_mqtt::codec::properties::{Properties, Property};
use sotto_mqtt::packet::Packet;
use sotto_mqtt::packet::Version::{self, V3, V5};
use sotto_mqtt::reason::ReasonCode;

use super::disagreement::{Disagreement, Kind, with_properties};
use super::oracle::Oracle::{self, ProtocolCore, Rmqtt};

pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) oracles: &'static [Oracle],
    /// Of the example.
    pub(crate) version: Version,
    pub(crate) example: &'static [u8],
    explains: Explains,
}

enum Explains {
    /// The oracle does not know the rule, in packets of any type or of these.
    Taken { rule: &'static str, packets: &'static [PacketType] },
    /// The oracle refuses what is allowed.
    Refused(fn(&Packet<'_>) -> bool),
    /// The oracle writes what is not allowed.
    WrittenWrong { rule: &'static str },
    /// The oracle writes another packet than it read.
    Changed(fn(&Packet<'_>, &Packet<'_>) -> bool),
}

impl Class {
    pub(crate) fn explains(&self, disagreement: &Disagreement<'_>) -> bool {
        if !self.oracles.contains(&disagreement.oracle) {
            return false;
        }
        match (&self.explains, &disagreement.kind) {
            (Explains::Taken { rule, packets }, Kind::Taken(error)) => {
                let packet_type = PacketType::from_bits(disagreement.bytes[0] >> 4);
                error.what.contains(rule)
                    && (packets.is_empty() || packet_type.is_some_and(|it| packets.contains(&it)))
            }
            (Explains::Refused(it), Kind::Refused(packet)) => it(packet),
            (Explains::WrittenWrong { rule }, Kind::WrittenWrong(error)) => error.what.contains(rule),
            (Explains::Changed(it), Kind::Changed(read, written)) => it(read, written),
            _ => false,
        }
    }
}

const BOTH: &[Oracle] = &[Rmqtt, ProtocolCore];

const fn taken(
    name: &'static str,
    oracles: &'static [Oracle],
    rule: &'static str,
    version: Version,
    example: &'static [u8],
) -> Class {
    taken_in(&[], name, oracles, rule, version, example)
}

const fn taken_in(
    packets: &'static [PacketType],
    name: &'static str,
    oracles: &'static [Oracle],
    rule: &'static str,
    version: Version,
    example: &'static [u8],
) -> Class {
    Class { name, oracles, version, example, explains: Explains::Taken { rule, packets } }
}

const fn refused(
    name: &'static str,
    oracles: &'static [Oracle],
    it: fn(&Packet<'_>) -> bool,
    version: Version,
    example: &'static [u8],
) -> Class {
    Class { name, oracles, version, example, explains: Explains::Refused(it) }
}

#[rustfmt::skip]
pub(crate) const CLASSES: &[Class] = &[
    taken("fixed header flags", &[ProtocolCore], "[MQTT-2.1.3-1]", V5, b"\xd8\x00"),
    taken("overlong integer", BOTH, "[MQTT-1.5.5-1]", V5, b"\xc0\x80\x00"),
    taken("U+0000", BOTH, "[MQTT-1.5.4-2]", V3, b"\x30\x03\x00\x01\x00"),
    taken("control character", BOTH, "control character", V3, b"\x30\x03\x00\x01\x01"),
    taken("non-character", BOTH, "non-character", V3, b"\x30\x05\x00\x03\xef\xbf\xbf"),
    taken("Packet Identifier 0", &[ProtocolCore], "[MQTT-2.2.1-3]", V3, b"\x82\x06\x00\x00\x00\x01a\x00"),
    taken_in(
        &[PacketType::Connect, PacketType::ConnAck, PacketType::PingReq, PacketType::PingResp, PacketType::Disconnect],
        "bytes behind the last field", &[Rmqtt], "longer than its fields", V3, b"\xc0\x01x",
    ),
    taken_in(
        &[PacketType::PubAck, PacketType::PubRec, PacketType::PubRel, PacketType::PubComp],
        "Reason Code in 3.1.1", &[ProtocolCore], "longer than its fields", V3, b"\x40\x03\x00\x01\x00",
    ),
    taken("MQIsdp", &[Rmqtt], "[MQTT-3.1.2-1]", V3, b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c"),
    taken("level 3", &[Rmqtt], "[MQTT-3.1.2-2]", V3, b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x00\x00\x01c"),
    taken("reserved CONNECT flag", &[ProtocolCore], "[MQTT-3.1.2-3]", V3, b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01c"),
    taken("Will flags without a will", BOTH, "[MQTT-3.1.2-11]", V5, b"\x10\x0e\x00\x04MQTT\x05\x22\x00\x00\x00\x00\x01c"),
    taken("Will QoS 3", &[ProtocolCore], "[MQTT-3.1.2-12]", V3, b"\x10\x12\x00\x04MQTT\x04\x1e\x00\x00\x00\x01c\x00\x01w\x00\x00"),
    taken("password alone in 3.1.1", &[Rmqtt], "[MQTT-3.1.2-22]", V3, b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01c\x00\x01p"),
    taken("empty Will Topic", BOTH, "a Will Topic is empty", V3, b"\x10\x11\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x00\x00\x00"),
    taken("wildcard in a Topic Name", BOTH, "[MQTT-3.3.2-2]", V3, b"\x30\x03\x00\x01#"),
    taken("no Response Topic", BOTH, "[MQTT-3.3.2-14]", V5, b"\x30\x08\x00\x01a\x04\x08\x00\x01#"),
    taken("Authentication Data alone", BOTH, "without an Authentication Method", V5, b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01d\x00\x01c"),
    taken("reserved CONNACK flag", &[ProtocolCore], "[MQTT-3.2.2-1]", V3, b"\x20\x02\x02\x00"),
    taken("refusal with Session Present", BOTH, "[MQTT-3.2.2-6]", V3, b"\x20\x02\x01\x05"),
    taken("return code 6", &[Rmqtt], "Connect Return Code", V3, b"\x20\x02\x00\x06"),
    taken("Maximum QoS 2", &[Rmqtt], "Maximum QoS is neither", V5, b"\x20\x05\x00\x00\x02\x24\x02"),
    taken("DUP on QoS 0", BOTH, "[MQTT-3.3.1-2]", V3, b"\x38\x03\x00\x01a"),
    taken("empty Topic Name in 3.1.1", &[ProtocolCore], "a Topic Name is empty", V3, b"\x30\x02\x00\x00"),
    taken("neither Topic Name nor Topic Alias", BOTH, "neither Topic Name nor", V5, b"\x30\x03\x00\x00\x00"),
    taken_in(
        &[PacketType::Publish],
        "PUBLISH without a Property Length", &[ProtocolCore], "a field ends", V5, b"\x30\x03\x00\x01a",
    ),
    taken("reserved subscription bits", BOTH, "[MQTT-3.8.3-5]", V3, b"\x82\x06\x00\x01\x00\x01a\x04"),
    taken("empty Topic Filter", BOTH, "a Topic Filter is empty", V5, b"\x82\x06\x00\x01\x00\x00\x00\x00"),
    taken("misplaced #", BOTH, "[MQTT-4.7.1-1]", V3, b"\x82\x07\x00\x01\x00\x02a#\x00"),
    taken("misplaced +", BOTH, "[MQTT-4.7.1-2]", V3, b"\x82\x07\x00\x01\x00\x02a+\x00"),
    taken("empty ShareName", &[Rmqtt], "[MQTT-4.8.2-1]", V5, b"\x82\x0f\x00\x01\x00\x00\x09$share//a\x00"),
    taken("wildcard in a ShareName", &[Rmqtt], "a ShareName holds", V5, b"\x82\x10\x00\x01\x00\x00\x0a$share/+/a\x00"),
    taken("ShareName without a filter", BOTH, "a ShareName stands", V5, b"\x82\x0f\x00\x01\x00\x00\x09$share/g/\x00"),
    taken("No Local on a share", BOTH, "[MQTT-3.8.3-4]", V5, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04"),
    taken_in(
        &[PacketType::Subscribe],
        "Subscription Identifier twice", &[ProtocolCore], "a property stands twice", V5,
        b"\x82\x0b\x00\x01\x04\x0b\x01\x0b\x01\x00\x01a\x00",
    ),
    taken("no return code", &[Rmqtt], "has no Reason Code", V3, b"\x90\x02\x00\x01"),
    taken_in(&[PacketType::Auth], "AUTH of one byte", BOTH, "a field ends", V5, b"\xf0\x01\x00"),
    taken("AUTH without a method", &[Rmqtt], "an AUTH has no", V5, b"\xf0\x02\x18\x00"),
    refused("password alone in 5.0", &[ProtocolCore], is_password_alone, V5, b"\x10\x11\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01c\x00\x01p"),
    refused("Bad authentication method", &[ProtocolCore], is_bad_authentication_method, V5, b"\xe0\x01\x8c"),
    refused("Topic Alias 0", BOTH, has_topic_alias_0, V5, b"\x30\x07\x00\x01a\x03\x23\x00\x00"),
    refused("no client id, no Clean Start", &[Rmqtt], is_to_be_named_for_long, V5, b"\x10\x0d\x00\x04MQTT\x05\x00\x00\x00\x00\x00\x00"),
    refused("Message Expiry Interval 0", &[Rmqtt], expires_at_once, V5, b"\x30\x09\x00\x01a\x05\x02\x00\x00\x00\x00"),
    Class {
        name: "shortest AUTH",
        oracles: &[Rmqtt],
        version: V5,
        example: b"\xf0\x00",
        explains: Explains::WrittenWrong { rule: "an AUTH has no" },
    },
    Class {
        name: "properties at their default",
        oracles: &[Rmqtt],
        version: V5,
        example: b"\x30\x06\x00\x01a\x02\x01\x00",
        explains: Explains::Changed(differ_in_defaults),
    },
];

fn is_password_alone(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Connect(connect) if connect.password.is_some() && connect.username.is_none())
}

fn is_bad_authentication_method(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Disconnect(it) if it.reason == ReasonCode::BadAuthenticationMethod)
}

fn has_topic_alias_0(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Publish(publish) if publish.properties.topic_alias() == Some(0))
}

fn is_to_be_named_for_long(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Connect(connect) if connect.client_id.is_empty() && !connect.clean_start)
}

fn expires_at_once(packet: &Packet<'_>) -> bool {
    let properties = match packet {
        Packet::Publish(publish) => publish.properties,
        Packet::Connect(connect) => connect.will.as_ref().map_or(Properties::EMPTY, |will| will.properties),
        _ => Properties::EMPTY,
    };
    properties.message_expiry_interval() == Some(0)
}

fn differ_in_defaults(read: &Packet<'_>, written: &Packet<'_>) -> bool {
    let connack = matches!(read, Packet::ConnAck(_));
    with_properties(read, |properties| telling(properties, connack))
        == with_properties(written, |properties| telling(properties, connack))
}

fn telling(properties: Properties<'_>, connack: bool) -> Vec<Property<'_>> {
    let mut list: Vec<_> = properties.iter().filter(|property| !is_default(property, connack)).collect();
    list.sort_by_key(|property| property.id() as u8);
    list
}

/// Whether leaving the property out says the same.
fn is_default(property: &Property<'_>, connack: bool) -> bool {
    match *property {
        // In a CONNACK it says that the client's own was not granted.
        Property::SessionExpiryInterval(0) => !connack,
        Property::PayloadFormatIndicator(false)
        | Property::RequestProblemInformation(true)
        | Property::RequestResponseInformation(false)
        | Property::TopicAliasMaximum(0)
        | Property::ReceiveMaximum(u16::MAX)
        | Property::RetainAvailable(true)
        | Property::WildcardSubscriptionAvailable(true)
        | Property::SubscriptionIdentifierAvailable(true)
        | Property::SharedSubscriptionAvailable(true) => true,
        _ => false,
    }
}
