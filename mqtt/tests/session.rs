//! What the session machine promises, told by packets alone.

use sotto_model::{ClientLimits, Offset, PacketId, QoS};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::delivery::{Delivered, Delivery, Place};
use sotto_mqtt::handshake::{ConnectRequest, Welcome};
use sotto_mqtt::inflight::InflightMessage;
use sotto_mqtt::packet::{Ack, Auth, Connect, Disconnect, Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::{Action, Session};

fn id(raw: u16) -> PacketId {
    PacketId::new(raw).expect("not zero")
}

fn connect(version: Version, receive_maximum: Option<u16>, packet_bytes_max: Option<u32>) -> ConnectRequest {
    let mut properties = PropertyBuf::new();
    if let Some(maximum) = receive_maximum {
        properties.push(Property::ReceiveMaximum(maximum));
    }
    if let Some(bytes) = packet_bytes_max {
        properties.push(Property::MaximumPacketSize(bytes));
    }
    accepted(version, properties.as_properties())
}

fn connect_with(properties: Properties<'_>) -> ConnectRequest {
    accepted(Version::V5, properties)
}

fn accepted(version: Version, properties: Properties<'_>) -> ConnectRequest {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        client_id: "c",
        will: None,
        username: None,
        password: None,
        properties,
    };
    ConnectRequest::accept(&connect, &ClientLimits::DEFAULT).expect("a valid CONNECT")
}

fn session(version: Version) -> Session {
    Session::resume(connect(version, None, None).negotiated, None, Offset(0), [], vec![])
}

fn publish(qos: QoS, packet_id: u16) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t",
        packet_id: PacketId::new(packet_id),
        properties: Properties::EMPTY,
        payload: b"p",
    })
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack { packet_id: id(packet_id), reason: ReasonCode::Success, properties: Properties::EMPTY }
}

fn message(place: Place, qos: QoS) -> Delivery<'static> {
    Delivery {
        topic: "t",
        payload: b"p",
        qos,
        retain: false,
        properties: &[],
        expiry_remaining_seconds: None,
        subscription_identifiers: &[],
        place,
    }
}

/// What was written, one line a packet.
fn sent(version: Version, out: &mut Vec<u8>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut at = 0;
    while at < out.len() {
        let (packet, len) = decode(&out[at..], version, u32::MAX).expect("valid").expect("complete");
        lines.push(match packet {
            Packet::PubAck(ack) => format!("PUBACK {} {:#04x}", ack.packet_id.0, ack.reason.code()),
            Packet::PubRec(ack) => format!("PUBREC {} {:#04x}", ack.packet_id.0, ack.reason.code()),
            Packet::PubRel(ack) => format!("PUBREL {}", ack.packet_id.0),
            Packet::PubComp(ack) => format!("PUBCOMP {} {:#04x}", ack.packet_id.0, ack.reason.code()),
            Packet::Publish(publish) => format!(
                "PUBLISH {} qos {} dup {}",
                publish.packet_id.map_or(0, |id| id.0.get()),
                publish.qos as u8,
                publish.dup
            ),
            other => format!("{other:?}"),
        });
        at += len;
    }
    out.clear();
    lines
}

#[test]
fn puback_leaves_only_when_decided_and_in_order_of_arrival() {
    let mut session = session(Version::V5);
    let mut out = Vec::new();
    for packet_id in [1, 2, 3] {
        let action = session.receive(publish(QoS::AtLeastOnce, packet_id), &mut out);
        assert!(matches!(action, Ok(Action::Publish(_))));
    }
    assert!(out.is_empty());
    session.publish_decided(id(2), ReasonCode::Success, &mut out);
    session.publish_decided(id(3), ReasonCode::NotAuthorized, &mut out);
    assert!(out.is_empty());
    session.publish_decided(id(1), ReasonCode::Success, &mut out);
    assert_eq!(sent(Version::V5, &mut out), ["PUBACK 1 0x00", "PUBACK 2 0x00", "PUBACK 3 0x87"]);
    assert!(session.is_answered());
}

#[test]
fn a_qos_2_publish_is_taken_once_until_its_pubrel() {
    let mut session = session(Version::V5);
    let mut out = Vec::new();
    assert!(matches!(session.receive(publish(QoS::ExactlyOnce, 7), &mut out), Ok(Action::Publish(_))));
    assert_eq!(session.receive(publish(QoS::ExactlyOnce, 7), &mut out), Ok(Action::None));
    session.publish_decided(id(7), ReasonCode::Success, &mut out);
    assert_eq!(sent(Version::V5, &mut out), ["PUBREC 7 0x00"]);
    assert_eq!(session.receive(publish(QoS::ExactlyOnce, 7), &mut out), Ok(Action::None));
    assert_eq!(sent(Version::V5, &mut out), ["PUBREC 7 0x00"]);
    assert_eq!(session.unreleased(), [id(7)]);
    assert_eq!(session.receive(Packet::PubRel(ack(7)), &mut out), Ok(Action::Release(id(7))));
    assert!(out.is_empty(), "PUBCOMP waits until the release is durable");
    assert_eq!(session.unreleased(), [], "whoever keeps the session must not add it again");
    session.released(id(7), &mut out);
    assert_eq!(sent(Version::V5, &mut out), ["PUBCOMP 7 0x00"]);
    assert!(matches!(session.receive(publish(QoS::ExactlyOnce, 7), &mut out), Ok(Action::Publish(_))));
}

#[test]
fn a_refused_qos_2_publish_leaves_nothing_to_release() {
    let mut session = session(Version::V5);
    let mut out = Vec::new();
    session.receive(publish(QoS::ExactlyOnce, 7), &mut out).expect("allowed");
    session.publish_decided(id(7), ReasonCode::NotAuthorized, &mut out);
    assert_eq!(sent(Version::V5, &mut out), ["PUBREC 7 0x87"]);
    assert!(session.unreleased().is_empty());
    assert_eq!(session.receive(Packet::PubRel(ack(7)), &mut out), Ok(Action::None));
    assert_eq!(sent(Version::V5, &mut out), ["PUBCOMP 7 0x92"]);
}

#[test]
fn more_publishes_than_receive_maximum_end_a_version_5_session_and_hold_a_3_1_1_one_back() {
    for version in [Version::V3, Version::V5] {
        let mut session = session(version);
        let mut out = Vec::new();
        for packet_id in 1..=sotto_model::limits::RECEIVE_MAXIMUM {
            assert!(session.accepts_packets());
            session.receive(publish(QoS::AtLeastOnce, packet_id), &mut out).expect("within the quota");
        }
        match version {
            Version::V3 => assert!(!session.accepts_packets()),
            Version::V5 => {
                let violation = session.receive(publish(QoS::AtLeastOnce, 999), &mut out);
                assert_eq!(violation.expect_err("over").reason, ReasonCode::ReceiveMaximumExceeded);
            }
        }
        session.publish_decided(id(1), ReasonCode::Success, &mut out);
        assert!(session.accepts_packets());
    }
}

#[test]
fn a_client_s_alias_stands_for_its_topic_until_it_is_set_anew() {
    let mut session = session(Version::V5);
    let mut out = Vec::new();
    let steps =
        [("a/topic", 1, "a/topic"), ("", 1, "a/topic"), ("another", 1, "another"), ("", 1, "another")];
    for (topic, alias, meant) in steps {
        let properties = PropertyBuf::from_iter([Property::TopicAlias(alias)]);
        let publish = Publish {
            topic,
            properties: properties.as_properties(),
            qos: QoS::AtMostOnce,
            packet_id: None,
            dup: false,
            retain: false,
            payload: b"",
        };
        let Ok(Action::Publish(publish)) = session.receive(Packet::Publish(publish), &mut out) else {
            panic!("it is taken");
        };
        assert_eq!(session.topic(&publish), meant);
    }
}

#[test]
fn an_alias_that_is_not_allowed_or_not_set_ends_the_session() {
    let maximum = ClientLimits::DEFAULT.topic_alias_maximum;
    for (topic, alias, reason) in [
        ("t", maximum + 1, ReasonCode::TopicAliasInvalid),
        ("", maximum, ReasonCode::ProtocolError),
        ("", maximum + 1, ReasonCode::TopicAliasInvalid),
    ] {
        let properties = PropertyBuf::from_iter([Property::TopicAlias(alias)]);
        let publish = Publish {
            topic,
            properties: properties.as_properties(),
            qos: QoS::AtMostOnce,
            packet_id: None,
            dup: false,
            retain: false,
            payload: b"",
        };
        let violation = session(Version::V5).receive(Packet::Publish(publish), &mut Vec::new());
        assert_eq!(violation.expect_err("refused").reason, reason);
    }
}

#[test]
fn a_client_that_takes_aliases_gets_them_and_a_message_that_just_fits_stays_whole() {
    let maximum = Some(Property::TopicAliasMaximum(1));
    let mut out = Vec::new();
    let topic = "a/rather/long/topic";
    let mut lengths = |packet_bytes_max: u32, times: usize| {
        let mut properties = PropertyBuf::from_iter(maximum);
        properties.push(Property::MaximumPacketSize(packet_bytes_max));
        let negotiated = connect_with(properties.as_properties()).negotiated;
        let mut session = Session::resume(negotiated, None, Offset(0), [], vec![]);
        let mut lengths = Vec::new();
        for _ in 0..times {
            out.clear();
            let delivery = Delivery { topic, ..message(Place::Unlogged, QoS::AtMostOnce) };
            assert_eq!(session.deliver(&delivery, &mut out), Delivered::Sent);
            let (packet, _) = decode(&out, Version::V5, u32::MAX).expect("valid").expect("whole");
            let Packet::Publish(publish) = packet else { panic!("a PUBLISH") };
            lengths.push((publish.topic.len(), publish.properties.topic_alias()));
            assert!(out.len() <= packet_bytes_max as usize);
        }
        lengths
    };
    assert_eq!(lengths(1000, 3), [(19, Some(1)), (0, Some(1)), (0, Some(1))]);
    let whole_bytes = 2 + 2 + 19 + 1 + 1;
    assert_eq!(lengths(whole_bytes, 2), [(19, None), (19, None)]);
}

#[test]
fn a_version_5_client_is_told_why_if_it_asked_and_can_take_it() {
    let told = |properties: Properties<'_>| {
        let mut out = Vec::new();
        let session = Session::resume(connect_with(properties).negotiated, None, Offset(0), [], vec![]);
        session.disconnect(ReasonCode::ProtocolError, Some("why"), None, &mut out);
        let (packet, _) = decode(&out, Version::V5, u32::MAX).expect("valid").expect("whole");
        let Packet::Disconnect(disconnect) = packet else { panic!("a DISCONNECT") };
        assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
        disconnect.properties.reason_string().map(str::to_owned)
    };
    let asking = [Property::RequestProblemInformation(true), Property::MaximumPacketSize(8)];
    let ask: PropertyBuf = asking.into_iter().take(1).collect();
    assert_eq!(told(ask.as_properties()).as_deref(), Some("why"));
    assert_eq!(told(PropertyBuf::from_iter(asking).as_properties()), None, "it would not fit");
    let silent = PropertyBuf::from_iter([Property::RequestProblemInformation(false)]);
    assert_eq!(told(silent.as_properties()), None);
    assert_eq!(told(Properties::EMPTY), None);
}

#[test]
fn a_3_1_1_client_with_any_number_of_qos_2_messages_unreleased_is_still_heard() {
    let mut session = session(Version::V3);
    let mut out = Vec::new();
    for packet_id in 1..=2 * sotto_model::limits::RECEIVE_MAXIMUM {
        assert!(session.accepts_packets());
        let action = session.receive(publish(QoS::ExactlyOnce, packet_id), &mut out);
        assert!(matches!(action, Ok(Action::Publish(_))));
        session.publish_decided(id(packet_id), ReasonCode::Success, &mut out);
    }
    assert!(session.accepts_packets(), "or its PUBRELs would never be read");
    assert_eq!(session.receive(Packet::PubRel(ack(1)), &mut out), Ok(Action::Release(id(1))));
}

#[test]
fn a_publish_that_is_abandoned_is_not_waited_for() {
    let mut session = session(Version::V3);
    let mut out = Vec::new();
    for packet_id in [1, 2] {
        session.receive(publish(QoS::ExactlyOnce, packet_id), &mut out).expect("allowed");
    }
    session.publish_abandoned(id(2));
    assert!(!session.is_answered());
    session.publish_decided(id(1), ReasonCode::Success, &mut out);
    assert!(session.is_answered());
    assert_eq!(session.unreleased(), [id(1)]);
}

#[test]
fn no_more_is_in_flight_than_the_client_s_receive_maximum() {
    let negotiated = connect(Version::V5, Some(2), None).negotiated;
    let mut session = Session::resume(negotiated, None, Offset(0), [], vec![]);
    let mut out = Vec::new();
    for offset in [1, 2] {
        let delivery = message(Place::InOrder(Offset(offset)), QoS::AtLeastOnce);
        assert_eq!(session.deliver(&delivery, &mut out), Delivered::Sent);
    }
    let third = message(Place::InOrder(Offset(3)), QoS::AtLeastOnce);
    assert_eq!(session.deliver(&third, &mut out), Delivered::WindowFull);
    assert_eq!(session.sent(), Offset(2));
    assert_eq!(session.deliver(&message(Place::Unlogged, QoS::AtMostOnce), &mut out), Delivered::Sent);
    out.clear();
    // Acknowledged out of order.
    assert_eq!(session.receive(Packet::PubAck(ack(2)), &mut out), Ok(Action::WindowMoved(id(2))));
    assert_eq!(session.deliver(&third, &mut out), Delivered::Sent);
    assert_eq!(session.deliver(&third, &mut out), Delivered::Known);
    assert_eq!(sent(Version::V5, &mut out), ["PUBLISH 3 qos 1 dup false"]);
    let left: Vec<_> = session.inflight().map(|message| message.offset).collect();
    assert_eq!(left, [Some(Offset(1)), Some(Offset(3))]);
}

#[test]
fn a_stored_session_s_qos_2_message_is_neither_sent_nor_released_before_that_is_kept() {
    let mut session = session(Version::V5);
    session.keep_exactly_once();
    let mut out = Vec::new();
    let exactly = message(Place::InOrder(Offset(1)), QoS::ExactlyOnce);
    assert_eq!(session.deliver(&exactly, &mut out), Delivered::Held(id(1)));
    // It must not overtake.
    let once = message(Place::InOrder(Offset(2)), QoS::AtLeastOnce);
    assert_eq!(session.deliver(&once, &mut out), Delivered::Held(id(2)));
    assert!(session.has_unkept() && out.is_empty());
    assert_eq!(session.unkept(), [id(1), id(2)]);
    assert!(!session.has_unkept(), "it is being kept");
    assert!(session.kept(id(1), &mut out) && out.is_empty());
    session.send_held(id(1), Some(&exactly), &mut out);
    assert!(session.kept(id(2), &mut out));
    session.send_held(id(2), Some(&once), &mut out);
    assert_eq!(sent(Version::V5, &mut out), ["PUBLISH 1 qos 2 dup false", "PUBLISH 2 qos 1 dup false"]);
    let third = message(Place::InOrder(Offset(3)), QoS::AtLeastOnce);
    assert_eq!(session.deliver(&third, &mut out), Delivered::Sent);
    assert_eq!(sent(Version::V5, &mut out), ["PUBLISH 3 qos 1 dup false"]);
    assert_eq!(session.receive(Packet::PubRec(ack(1)), &mut out), Ok(Action::None));
    assert!(out.is_empty() && session.has_unkept());
    assert_eq!(session.unkept(), [id(1)]);
    assert!(!session.kept(id(1), &mut out));
    assert_eq!(sent(Version::V5, &mut out), ["PUBREL 1"]);
    // Asked again, it answers at once: that is kept already.
    assert_eq!(session.receive(Packet::PubRec(ack(1)), &mut out), Ok(Action::None));
    assert_eq!(sent(Version::V5, &mut out), ["PUBREL 1"]);
    assert_eq!(session.receive(Packet::PubComp(ack(1)), &mut out), Ok(Action::WindowMoved(id(1))));
    assert_eq!(session.inflight().count(), 2);
}

#[test]
fn a_held_message_that_is_given_up_frees_its_place() {
    let negotiated = connect(Version::V5, Some(1), None).negotiated;
    let mut session = Session::resume(negotiated, None, Offset(0), [], vec![]);
    session.keep_exactly_once();
    let mut out = Vec::new();
    let exactly = message(Place::InOrder(Offset(1)), QoS::ExactlyOnce);
    assert_eq!(session.deliver(&exactly, &mut out), Delivered::Held(id(1)));
    assert!(!session.has_room());
    assert!(session.kept(id(1), &mut out));
    session.send_held(id(1), None, &mut out);
    assert!(session.has_room() && out.is_empty());
}

#[test]
fn a_message_too_large_for_the_client_is_passed_over_and_takes_no_slot() {
    let negotiated = connect(Version::V5, Some(1), Some(20)).negotiated;
    let mut session = Session::resume(negotiated, None, Offset(0), [], vec![]);
    let mut out = Vec::new();
    let large = Delivery { payload: &[0; 64], ..message(Place::InOrder(Offset(1)), QoS::AtLeastOnce) };
    assert_eq!(session.deliver(&large, &mut out), Delivered::TooLarge);
    assert_eq!((out.len(), session.sent()), (0, Offset(1)));
    let small = message(Place::InOrder(Offset(2)), QoS::AtLeastOnce);
    assert_eq!(session.deliver(&small, &mut out), Delivered::Sent);
}

#[test]
fn what_was_in_flight_is_sent_again_with_dup_and_the_same_packet_ids_before_anything_else() {
    let negotiated = connect(Version::V5, Some(1), None).negotiated;
    let left = [
        InflightMessage::left(id(5), Offset(1), QoS::AtLeastOnce, false, false),
        InflightMessage::left(id(6), Offset(2), QoS::ExactlyOnce, false, true),
        InflightMessage::left(id(7), Offset(3), QoS::ExactlyOnce, false, false),
    ];
    let mut session = Session::resume(negotiated, None, Offset(3), left, vec![]);
    let mut out = Vec::new();
    session.resend_releases(&mut out);
    assert_eq!(sent(Version::V5, &mut out), ["PUBREL 6"]);
    assert_eq!(session.next_to_resend(), None, "the released message fills the window of one");
    session.receive(Packet::PubComp(ack(6)), &mut out).expect("in flight");
    for (packet_id, offset, qos) in [(5, 1, QoS::AtLeastOnce), (7, 3, QoS::ExactlyOnce)] {
        assert!(!session.has_room());
        let next = session.next_to_resend().expect("room for one");
        assert_eq!(next.offset, Some(Offset(offset)));
        session.resend(next, Some(&message(Place::InOrder(Offset(offset)), QoS::ExactlyOnce)), &mut out);
        let expected = format!("PUBLISH {packet_id} qos {} dup true", qos as u8);
        assert_eq!(sent(Version::V5, &mut out), [expected]);
        match qos {
            QoS::AtLeastOnce => session.receive(Packet::PubAck(ack(packet_id)), &mut out).expect("in flight"),
            _ => session.receive(Packet::PubRec(ack(packet_id)), &mut out).expect("in flight"),
        };
    }
    assert!(!session.has_to_resend());
    assert_eq!(sent(Version::V5, &mut out), ["PUBREL 7"]);
}

#[test]
fn what_is_sent_again_keeps_its_retain() {
    let negotiated = connect(Version::V5, None, None).negotiated;
    let left = [
        InflightMessage::left(id(5), Offset(1), QoS::AtLeastOnce, true, false),
        InflightMessage::left(id(6), Offset(2), QoS::AtLeastOnce, false, false),
    ];
    let mut session = Session::resume(negotiated, None, Offset(2), left, vec![]);
    let mut out = Vec::new();
    while let Some(next) = session.next_to_resend() {
        session.resend(next, Some(&message(Place::Unlogged, QoS::AtLeastOnce)), &mut out);
    }
    let mut retained = Vec::new();
    let mut at = 0;
    while let Some((Packet::Publish(publish), len)) =
        decode(&out[at..], Version::V5, u32::MAX).expect("well formed")
    {
        retained.push(publish.retain);
        at += len;
    }
    assert_eq!(retained, [true, false]);
}

#[test]
fn a_message_whose_body_is_gone_is_given_up_when_it_is_to_be_sent_again() {
    let negotiated = connect(Version::V3, None, None).negotiated;
    let left = [InflightMessage::left(id(5), Offset(1), QoS::AtLeastOnce, false, false)];
    let mut session = Session::resume(negotiated, None, Offset(1), left, vec![]);
    let mut out = Vec::new();
    let next = session.next_to_resend().expect("one is left");
    session.resend(next, None, &mut out);
    assert!(out.is_empty() && !session.has_inflight() && session.has_room());
}

#[test]
fn disconnect_withdraws_the_will_unless_it_asks_for_it() {
    let mut session = session(Version::V5);
    let mut out = Vec::new();
    let goodbye = |reason| Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY });
    assert_eq!(
        session.receive(goodbye(ReasonCode::DisconnectWithWillMessage), &mut out),
        Ok(Action::Disconnect { publish_will: true })
    );
    assert_eq!(
        session.receive(goodbye(ReasonCode::Success), &mut out),
        Ok(Action::Disconnect { publish_will: false })
    );
}

#[test]
fn a_session_that_ends_with_its_connection_cannot_be_prolonged_by_disconnect() {
    let mut session = session(Version::V5);
    let mut properties = PropertyBuf::new();
    properties.push(Property::SessionExpiryInterval(60));
    let disconnect = Disconnect { reason: ReasonCode::Success, properties: properties.as_properties() };
    let violation = session.receive(Packet::Disconnect(disconnect), &mut Vec::new());
    assert_eq!(violation.expect_err("refused").reason, ReasonCode::ProtocolError);
}

fn auth(reason: ReasonCode, properties: &PropertyBuf) -> Packet<'_> {
    Packet::Auth(Auth { reason, properties: properties.as_properties() })
}

fn of_method(method: &str) -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    properties.push(Property::AuthenticationMethod(method));
    properties.push(Property::AuthenticationData(b"data"));
    properties
}

#[test]
fn a_client_authenticates_again_by_the_method_of_its_connect_alone() {
    let asked = of_method("M");
    let mut plain = session(Version::V5);
    let mut request = connect_with(asked.as_properties());
    let authentication = request.authentication.take().expect("it named a method");
    assert_eq!((authentication.method.as_str(), authentication.data.as_slice()), ("M", &b"data"[..]));
    request.negotiated.authentication_method = Some("M");
    let mut session = Session::resume(request.negotiated, None, Offset(0), [], vec![]);
    let mut out = Vec::new();
    let mut reason = |reason, method| {
        let properties = of_method(method);
        match session.receive(auth(reason, &properties), &mut out) {
            Ok(Action::Authenticate { begin, data }) => {
                assert_eq!(data, b"data");
                Ok(begin)
            }
            Ok(action) => panic!("{action:?}"),
            Err(violation) => Err(violation.reason),
        }
    };
    assert_eq!(reason(ReasonCode::ReAuthenticate, "M"), Ok(true));
    assert_eq!(reason(ReasonCode::ContinueAuthentication, "M"), Ok(false));
    assert_eq!(reason(ReasonCode::Success, "M"), Err(ReasonCode::ProtocolError));
    // [MQTT-4.12.1-1]
    assert_eq!(reason(ReasonCode::ReAuthenticate, "N"), Err(ReasonCode::ProtocolError));

    // [MQTT-4.12.0-7]
    let properties = of_method("M");
    let without = plain.receive(auth(ReasonCode::ReAuthenticate, &properties), &mut Vec::new());
    assert_eq!(without.err().map(|violation| violation.reason), Some(ReasonCode::ProtocolError));
}

#[test]
fn connack_names_the_method_of_connect_and_ends_its_exchange() {
    let mut negotiated = connect(Version::V5, None, None).negotiated;
    negotiated.authentication_method = Some("M");
    let mut out = Vec::new();
    negotiated.accepted(Welcome { authentication_data: b"last", ..Welcome::default() }, &mut out);
    let (packet, _) = decode(&out, Version::V5, u32::MAX).expect("well-formed").expect("whole");
    let Packet::ConnAck(connack) = packet else { panic!("{packet:?}") };
    assert_eq!(connack.properties.authentication_method(), Some("M"));
    assert_eq!(connack.properties.authentication_data(), Some(&b"last"[..]));
}

#[test]
fn what_connack_tells_never_makes_it_too_large() {
    let told = Welcome { told: Some(("name", "value")), ..Welcome::default() };
    let length = |welcome, packet_bytes_max| {
        let mut out = Vec::new();
        connect(Version::V5, None, Some(packet_bytes_max)).negotiated.accepted(welcome, &mut out);
        out.len()
    };
    let (with, without) = (length(told, 1000), length(Welcome::default(), 1000));
    assert!(with > without);
    let as_large = |bytes: usize| u32::try_from(bytes).expect("a small packet");
    assert_eq!(length(told, as_large(with)), with);
    // [MQTT-3.2.2-20]
    assert_eq!(length(told, as_large(with - 1)), without);
    assert_eq!(length(told, as_large(without - 1)), 0);
}

#[test]
fn packets_that_only_a_server_sends_are_violations() {
    let mut session = session(Version::V5);
    for packet in [
        Packet::PingResp,
        Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive: 0,
            client_id: "c",
            will: None,
            username: None,
            password: None,
            properties: Properties::EMPTY,
        }),
    ] {
        let violation = session.receive(packet, &mut Vec::new());
        assert_eq!(violation.expect_err("refused").reason, ReasonCode::ProtocolError);
    }
}
