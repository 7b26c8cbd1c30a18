//! Strategies for valid packets.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod soundness;

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::string::string_regex;
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::packet_type::PacketType;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf, PropertyContext, PropertyId};
use sotto_mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Publish, SubAck, Subscribe, SubscribeFilters, UnsubAck,
    Unsubscribe, UnsubscribeFilters, Version, Will,
};
use sotto_mqtt::reason::ReasonCode;

/// A version, and a packet that may be sent in it. What the packet borrows is leaked: a test run is short.
pub(crate) fn versioned_packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    prop_oneof![Just(Version::V3), Just(Version::V5)]
        .prop_flat_map(|version| packet(version).prop_map(move |packet| (version, packet)))
}

pub(crate) fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let both = prop_oneof![
        connect(version).prop_map(Packet::Connect),
        connack(version).prop_map(Packet::ConnAck),
        publish(version).prop_map(Packet::Publish),
        ack(version, PacketType::PubAck, PropertyContext::PubAck).prop_map(Packet::PubAck),
        ack(version, PacketType::PubRec, PropertyContext::PubRec).prop_map(Packet::PubRec),
        ack(version, PacketType::PubRel, PropertyContext::PubRel).prop_map(Packet::PubRel),
        ack(version, PacketType::PubComp, PropertyContext::PubComp).prop_map(Packet::PubComp),
        subscribe(version).prop_map(Packet::Subscribe),
        suback(version).prop_map(Packet::SubAck),
        unsubscribe(version).prop_map(Packet::Unsubscribe),
        unsuback(version).prop_map(Packet::UnsubAck),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect(version).prop_map(Packet::Disconnect),
    ];
    match version {
        Version::V3 => both.boxed(),
        Version::V5 => prop_oneof![14 => both, 1 => auth().prop_map(Packet::Auth)].boxed(),
    }
}

fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    let login = (option::of(name(0..=12)), option::of(binary()));
    (
        any::<bool>(),
        any::<u16>(),
        name(0..=12),
        option::of(will(version)),
        login,
        properties(version, PropertyContext::Connect),
    )
        .prop_map(move |(clean_start, keep_alive, client_id, will, (username, password), properties)| {
            Connect {
                version,
                clean_start,
                keep_alive,
                client_id,
                will,
                username,
                // [MQTT-3.1.2-22]
                password: password.filter(|_| version == Version::V5 || username.is_some()),
                properties,
            }
        })
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    (topic(), binary(), qos(), any::<bool>(), properties(version, PropertyContext::Will)).prop_map(
        |(topic, payload, qos, retain, properties)| Will { topic, payload, qos, retain, properties },
    )
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck<'static>> {
    let reason = match version {
        Version::V3 => {
            (0_u8..=5).prop_map(|code| ReasonCode::from_connect_return_code(code).expect("defined")).boxed()
        }
        Version::V5 => reason(PacketType::ConnAck).boxed(),
    };
    (any::<bool>(), reason, properties(version, PropertyContext::ConnAck)).prop_map(
        |(session_present, reason, properties)| ConnAck {
            session_present: session_present && !reason.is_error(),
            reason,
            properties,
        },
    )
}

fn publish(version: Version) -> impl Strategy<Value = Publish<'static>> {
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic(),
        packet_id(),
        properties(version, PropertyContext::Publish),
        payload(),
    )
        .prop_map(|(dup, qos, retain, topic, packet_id, properties, payload)| Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: if properties.topic_alias().is_some_and(|alias| alias % 2 == 0) { "" } else { topic },
            packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
            properties,
            payload,
        })
}

fn ack(
    version: Version,
    packet_type: PacketType,
    context: PropertyContext,
) -> impl Strategy<Value = Ack<'static>> {
    let reason = match version {
        Version::V3 => Just(ReasonCode::Success).boxed(),
        Version::V5 => reason(packet_type).boxed(),
    };
    (packet_id(), reason, properties(version, context)).prop_map(|(packet_id, reason, properties)| Ack {
        packet_id,
        reason,
        properties,
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    let filters = vec((filter(), options(version)), 1..5);
    (packet_id(), properties(version, PropertyContext::Subscribe), filters).prop_map(
        |(packet_id, properties, mut filters)| {
            for (filter, options) in &mut filters {
                // [MQTT-3.8.3-4]
                options.no_local &= !filter.starts_with("$share/");
            }
            let filters = SubscribeFilters::encode(&filters, Box::leak(Box::default()));
            Subscribe { packet_id, properties, filters }
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = SubAck<'static>> {
    let reason = match version {
        Version::V3 => prop_oneof![Just(0), Just(1), Just(2), Just(0x80)].boxed(),
        Version::V5 => reason(PacketType::SubAck).prop_map(ReasonCode::code).boxed(),
    };
    (packet_id(), properties(version, PropertyContext::SubAck), vec(reason, 1..5)).prop_map(
        |(packet_id, properties, reasons)| SubAck { packet_id, properties, reasons: reasons.leak() },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe<'static>> {
    (packet_id(), properties(version, PropertyContext::Unsubscribe), vec(filter(), 1..5)).prop_map(
        |(packet_id, properties, filters)| Unsubscribe {
            packet_id,
            properties,
            filters: UnsubscribeFilters::encode(&filters, Box::leak(Box::default())),
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck<'static>> {
    let reasons = match version {
        Version::V3 => Just(Vec::new()).boxed(),
        Version::V5 => vec(reason(PacketType::UnsubAck).prop_map(ReasonCode::code), 1..5).boxed(),
    };
    (packet_id(), properties(version, PropertyContext::UnsubAck), reasons).prop_map(
        |(packet_id, properties, reasons)| UnsubAck { packet_id, properties, reasons: reasons.leak() },
    )
}

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect<'static>> {
    let reason = match version {
        Version::V3 => Just(ReasonCode::Success).boxed(),
        Version::V5 => reason(PacketType::Disconnect).boxed(),
    };
    (reason, properties(version, PropertyContext::Disconnect))
        .prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    let short = Just(Auth { reason: ReasonCode::Success, properties: Properties::EMPTY });
    let long = (reason(PacketType::Auth), text(), property_list(PropertyContext::Auth)).prop_map(
        |(reason, method, mut list)| {
            list.retain(|property| property.id() != PropertyId::AuthenticationMethod);
            list.push(Property::AuthenticationMethod(method));
            Auth { reason, properties: encoded(PropertyContext::Auth, list) }
        },
    );
    prop_oneof![1 => short, 3 => long]
}

fn reason(packet_type: PacketType) -> impl Strategy<Value = ReasonCode> {
    let used: Vec<_> =
        ReasonCode::ALL.iter().copied().filter(|reason| reason.is_used_in(packet_type)).collect();
    proptest::sample::select(used)
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    let retain_handling = prop_oneof![
        Just(RetainHandling::SendAtSubscribe),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend),
    ];
    (qos(), any::<bool>(), any::<bool>(), retain_handling).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| match version {
            Version::V3 => SubscriptionOptions {
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            },
            Version::V5 => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
        },
    )
}

fn properties(version: Version, context: PropertyContext) -> BoxedStrategy<Properties<'static>> {
    match version {
        Version::V3 => Just(Properties::EMPTY).boxed(),
        Version::V5 => property_list(context).prop_map(move |list| encoded(context, list)).boxed(),
    }
}

fn encoded(context: PropertyContext, list: Vec<Property<'static>>) -> Properties<'static> {
    let buf: PropertyBuf = list.into_iter().collect();
    Properties::check(context, buf.into_bytes().leak()).expect("the list was made for its context")
}

/// Any properties that `context` may carry, each as often as it may.
pub(crate) fn property_list(context: PropertyContext) -> impl Strategy<Value = Vec<Property<'static>>> {
    vec(property(), 0..12).prop_map(move |mut list| {
        let mut seen = Vec::new();
        list.retain(|property| {
            let id = property.id();
            let repeats = id == PropertyId::UserProperty
                || (id == PropertyId::SubscriptionIdentifier && context == PropertyContext::Publish);
            let fits = id.is_used_in(context) && (repeats || !seen.contains(&id));
            seen.push(id);
            fits
        });
        if !list.iter().any(|property| property.id() == PropertyId::AuthenticationMethod) {
            list.retain(|property| property.id() != PropertyId::AuthenticationData);
        }
        list
    })
}

fn property() -> impl Strategy<Value = Property<'static>> {
    prop_oneof![
        any::<bool>().prop_map(Property::PayloadFormatIndicator),
        any::<u32>().prop_map(Property::MessageExpiryInterval),
        text().prop_map(Property::ContentType),
        topic().prop_map(Property::ResponseTopic),
        binary().prop_map(Property::CorrelationData),
        (1..=268_435_455_u32).prop_map(Property::SubscriptionIdentifier),
        any::<u32>().prop_map(Property::SessionExpiryInterval),
        text().prop_map(Property::AssignedClientIdentifier),
        any::<u16>().prop_map(Property::ServerKeepAlive),
        text().prop_map(Property::AuthenticationMethod),
        binary().prop_map(Property::AuthenticationData),
        any::<bool>().prop_map(Property::RequestProblemInformation),
        any::<u32>().prop_map(Property::WillDelayInterval),
        any::<bool>().prop_map(Property::RequestResponseInformation),
        text().prop_map(Property::ResponseInformation),
        text().prop_map(Property::ServerReference),
        text().prop_map(Property::ReasonString),
        (1..=u16::MAX).prop_map(Property::ReceiveMaximum),
        any::<u16>().prop_map(Property::TopicAliasMaximum),
        any::<u16>().prop_map(Property::TopicAlias),
        prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)].prop_map(Property::MaximumQoS),
        any::<bool>().prop_map(Property::RetainAvailable),
        (text(), text()).prop_map(|(name, value)| Property::UserProperty(name, value)),
        (1..=u32::MAX).prop_map(Property::MaximumPacketSize),
        any::<bool>().prop_map(Property::WildcardSubscriptionAvailable),
        any::<bool>().prop_map(Property::SubscriptionIdentifierAvailable),
        any::<bool>().prop_map(Property::SharedSubscriptionAvailable),
    ]
}

fn text() -> impl Strategy<Value = &'static str> {
    "[^\0]{0,12}".prop_map(|text| &*text.leak())
}

fn topic() -> impl Strategy<Value = &'static str> {
    name(1..=24)
}

/// A Topic Filter, shared or not.
fn filter() -> impl Strategy<Value = &'static str> {
    let level = || prop_oneof![4 => name(0..=6).boxed(), 1 => Just("+").boxed()];
    let levels = (vec(level(), 0..4), prop_oneof![name(1..=6).boxed(), Just("#").boxed()]);
    (option::weighted(0.2, "[a-z]{1,6}"), levels).prop_map(|(share, (mut levels, last))| {
        levels.push(last);
        let filter = levels.join("/");
        &*match share {
            Some(name) => format!("$share/{name}/{filter}"),
            None => filter,
        }
        .leak()
    })
}

/// What may name a client, a user or a topic: visible characters, no wildcards.
fn name(len: RangeInclusive<usize>) -> impl Strategy<Value = &'static str> {
    let pattern = format!("[^\\x00-\\x1f\\x7f-\\x9f+#]{{{},{}}}", len.start(), len.end());
    string_regex(&pattern).expect("a pattern").prop_map(|name| {
        let noncharacter = |c: char| u32::from(c) & 0xfffe == 0xfffe || matches!(c, '\u{fdd0}'..='\u{fdef}');
        &*name.replace(noncharacter, "x").leak()
    })
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..24).prop_map(|bytes| &*bytes.leak())
}

/// Long enough at times for a Remaining Length of two bytes.
fn payload() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..300).prop_map(|bytes| &*bytes.leak())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|raw| PacketId::new(raw).expect("not zero"))
}
