//! One test for each rule that a packet can break by itself, and the examples of the specifications.

use sotto_model::limits::{FILTERS_PER_PACKET_MAX, PACKET_BYTES_MAX, USER_PROPERTIES_MAX};
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::encode::{encode_publish, publish_len, write_remaining_length};
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf, PropertyContext, PropertyId};
use sotto_mqtt::codec::{DecodeError, connect_version, decode};
use sotto_mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Publish, SubAck, Subscribe, SubscribeFilters, UnsubAck,
    Version,
};
use sotto_mqtt::reason::ReasonCode;

use Version::{V3, V5};

// ---- examples of the specifications ----

#[test]
fn the_specification_s_example_of_a_connect_is_read() {
    let bytes = packet(
        0x10,
        b"\x00\x04MQTT\x05\xce\x00\x0a\x05\x11\x00\x00\x00\x0a\
          \x00\x01c\x00\x00\x01w\x00\x02hi\x00\x01u\x00\x01p"
            .as_slice(),
    );
    let (Packet::Connect(connect), _) = decode(&bytes, V3, PACKET_BYTES_MAX).expect("valid").expect("whole")
    else {
        panic!("a CONNECT");
    };
    assert_eq!(connect.version, V5);
    assert!(connect.clean_start);
    assert_eq!(connect.keep_alive, 10);
    assert_eq!(connect.properties.session_expiry_interval(), Some(10));
    assert_eq!(connect.client_id, "c");
    assert_eq!(connect.username, Some("u"));
    assert_eq!(connect.password, Some(&b"p"[..]));
    let will = connect.will.expect("a will");
    assert_eq!((will.topic, will.payload, will.qos, will.retain), ("w", &b"hi"[..], QoS::AtLeastOnce, false));
}

#[test]
fn the_specification_s_example_of_a_publish_is_read_and_written() {
    let bytes = packet(0x32, b"\x00\x03a/b\x00\x0a\x00");
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a/b",
        packet_id: PacketId::new(10),
        properties: Properties::EMPTY,
        payload: b"",
    });
    assert!(read(V5, &bytes) == Ok(publish.clone()));
    assert_eq!(written(V5, &publish), bytes);
    assert_eq!(written(V3, &publish), packet(0x32, b"\x00\x03a/b\x00\x0a"));
}

#[test]
fn the_specification_s_example_of_a_subscribe_is_read_and_written() {
    let bytes = packet(0x82, b"\x00\x0a\x00\x00\x03a/b\x01\x00\x03c/d\x02");
    let Ok(Packet::Subscribe(subscribe)) = read(V5, &bytes) else { panic!("a SUBSCRIBE") };
    let plain = |qos| SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let filters = [("a/b", plain(QoS::AtLeastOnce)), ("c/d", plain(QoS::ExactlyOnce))];
    assert!(subscribe.filters.into_iter().eq(filters));
    let mut raw = Vec::new();
    let packet = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(10).expect("not zero"),
        properties: Properties::EMPTY,
        filters: SubscribeFilters::encode(&filters, &mut raw),
    });
    assert_eq!(written(V5, &packet), bytes);
}

#[test]
fn the_specification_s_example_of_an_unsubscribe_is_read() {
    let bytes = packet(0xa2, b"\x00\x0a\x00\x03a/b\x00\x03c/d");
    let Ok(Packet::Unsubscribe(unsubscribe)) = read(V3, &bytes) else {
        panic!("an UNSUBSCRIBE");
    };
    assert_eq!(unsubscribe.filters.into_iter().collect::<Vec<_>>(), ["a/b", "c/d"]);
}

#[test]
fn the_specification_s_example_of_a_suback_is_read() {
    let suback = SubAck {
        packet_id: PacketId::new(10).expect("not zero"),
        properties: Properties::EMPTY,
        reasons: &[0x00, 0x02, 0x80],
    };
    assert!(read(V3, &packet(0x90, b"\x00\x0a\x00\x02\x80")) == Ok(Packet::SubAck(suback)));
}

// ---- fixed header ----

#[test]
fn type_0_and_in_3_1_1_type_15_are_reserved() {
    malformed(V5, &[0x00, 0x00]);
    malformed(V3, &[0xf0, 0x00]);
    assert!(read(V5, &[0xf0, 0x00]).is_ok());
}

#[test]
fn a_reserved_flag_is_refused_before_the_packet_is_whole() {
    for first in [0x11, 0x41, 0x60, 0x80, 0x83, 0xa0, 0xc1, 0xd8, 0xe1, 0xf1] {
        malformed(V5, &[first]);
        malformed(V3, &[first, 0x00]);
    }
}

#[test]
fn a_remaining_length_is_minimal_and_at_most_four_bytes() {
    malformed(V3, &[0xc0, 0x80, 0x00]);
    malformed(V5, &[0xc0, 0x80, 0x80, 0x00]);
    malformed(V5, &[0x30, 0xff, 0xff, 0xff, 0xff]);
    malformed(V5, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]);
}

#[test]
fn the_largest_remaining_length_is_a_size_limit_s_business() {
    let error = decode(&[0x30, 0xff, 0xff, 0xff, 0x7f], V5, PACKET_BYTES_MAX).expect_err("256 MB");
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    assert_eq!(decode(&[0x30, 0xff, 0xff, 0xff, 0x7f], V5, u32::MAX), Ok(None));
}

#[test]
fn bytes_behind_the_last_field_are_refused() {
    malformed(V3, &packet(0xc0, b"x"));
    malformed(V3, &packet(0xd0, b"x"));
    malformed(V3, &packet(0xe0, b"\x00"));
    malformed(V3, &packet(0x40, b"\x00\x01\x00"));
    malformed(V5, &packet(0x40, b"\x00\x01\x00\x00x"));
    malformed(V5, &packet(0xe0, b"\x00\x00x"));
    malformed(V3, &packet(0x20, b"\x00\x00\x00"));
    malformed(V5, &packet(0x20, b"\x00\x00\x00\x00"));
    malformed(V3, &packet(0xb0, b"\x00\x01\x00"));
    malformed(V3, &connect(4, 0x02, b"\x00\x01cx"));
    malformed(V5, &connect(5, 0x02, b"\x00\x00\x01cx"));
}

// ---- CONNECT ----

#[test]
fn another_protocol_name_is_an_unsupported_version() {
    for name in [&b"\x00\x04mqtt"[..], b"\x00\x00", b"\x00\x06MQIsdp", b"\x00\x05MQTT!"] {
        let bytes = packet(0x10, &[name, b"\x03\x02\x00\x3c\x00\x01c"].concat());
        refused(V3, &bytes, ReasonCode::UnsupportedProtocolVersion, "[MQTT-3.1.2-1]");
    }
}

#[test]
fn another_protocol_level_is_an_unsupported_version_and_tells_how_to_answer() {
    for (level, answer) in [(0, V3), (3, V3), (6, V3), (0x84, V3), (0x85, V3), (0xff, V3)] {
        let bytes = connect(level, 0x02, b"\x00\x01c");
        refused(V3, &bytes, ReasonCode::UnsupportedProtocolVersion, "[MQTT-3.1.2-2]");
        assert_eq!(connect_version(&bytes), Some(answer), "{level}");
    }
    let old = packet(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c");
    assert_eq!(connect_version(&old), Some(V3));
    assert_eq!(connect_version(b"GET / HTTP/1.1"), None);
    assert_eq!(connect_version(&packet(0x10, b"\x00\x04mqtt\x05")), None);
}

#[test]
fn the_connect_s_reserved_flag_must_be_clear() {
    cites(V3, &connect(4, 0x03, b"\x00\x01c"), "[MQTT-3.1.2-3]");
    cites(V5, &connect(5, 0x03, b"\x00\x00\x01c"), "[MQTT-3.1.2-3]");
}

#[test]
fn without_a_will_there_is_neither_will_qos_nor_will_retain() {
    for flags in [0x0a, 0x12, 0x22, 0x1a] {
        cites(V3, &connect(4, flags, b"\x00\x01c"), "[MQTT-3.1.2-11]");
    }
}

#[test]
fn a_will_qos_of_3_is_refused() {
    cites(V5, &connect(5, 0x1e, b"\x00\x00\x01c\x00\x00\x01w\x00\x00"), "[MQTT-3.1.2-12]");
}

#[test]
fn a_password_alone_is_for_version_5_only() {
    cites(V3, &connect(4, 0x42, b"\x00\x01c\x00\x01p"), "[MQTT-3.1.2-22]");
    assert!(read(V5, &connect(5, 0x42, b"\x00\x00\x01c\x00\x01p")).is_ok());
}

#[test]
fn a_flag_announces_a_field_that_must_be_there() {
    malformed(V3, &connect(4, 0x06, b"\x00\x01c"));
    malformed(V3, &connect(4, 0x06, b"\x00\x01c\x00\x01w"));
    malformed(V3, &connect(4, 0x82, b"\x00\x01c"));
    malformed(V3, &connect(4, 0xc2, b"\x00\x01c\x00\x01u"));
}

#[test]
fn an_empty_client_identifier_is_left_to_the_session() {
    assert!(read(V3, &connect(4, 0x00, b"\x00\x00")).is_ok());
    assert!(read(V5, &connect(5, 0x02, b"\x00\x00\x00")).is_ok());
}

#[test]
fn a_will_topic_is_a_topic_name() {
    cites(V3, &connect(4, 0x06, b"\x00\x01c\x00\x00\x00\x00"), "[MQTT-4.7.3-1]");
    cites(V3, &connect(4, 0x06, b"\x00\x01c\x00\x01#\x00\x00"), "[MQTT-3.3.2-2]");
}

#[test]
fn a_will_has_properties_of_its_own() {
    let delay = b"\x00\x00\x01c\x05\x18\x00\x00\x00\x07\x00\x01w\x00\x00";
    let bytes = connect(5, 0x06, delay);
    let Ok(Packet::Connect(Connect { will: Some(will), .. })) = read(V5, &bytes) else {
        panic!("a CONNECT with a will");
    };
    assert_eq!(will.properties.will_delay_interval(), Some(7));
    // The delay among the CONNECT's own properties.
    let misplaced = connect(5, 0x06, b"\x05\x18\x00\x00\x00\x07\x00\x01c\x00\x00\x01w\x00\x00");
    refused(V5, &misplaced, ReasonCode::ProtocolError, "not one of its packet's");
}

// ---- CONNACK ----

#[test]
fn a_connack_has_one_flag() {
    cites(V5, &packet(0x20, b"\x02\x00\x00"), "[MQTT-3.2.2-1]");
    cites(V3, &packet(0x20, b"\x81\x00"), "[MQTT-3.2.2-1]");
}

#[test]
fn a_connack_that_refuses_has_no_session() {
    refused(V5, &packet(0x20, b"\x01\x87\x00"), ReasonCode::ProtocolError, "[MQTT-3.2.2-6]");
    refused(V3, &packet(0x20, b"\x01\x05"), ReasonCode::ProtocolError, "[MQTT-3.2.2-6]");
}

#[test]
fn a_refusal_in_3_1_1_is_the_nearest_return_code() {
    let refusal = |reason| {
        let connack = ConnAck { session_present: false, reason, properties: Properties::EMPTY };
        written(V3, &Packet::ConnAck(connack))[3]
    };
    assert_eq!(refusal(ReasonCode::Success), 0);
    assert_eq!(refusal(ReasonCode::UnsupportedProtocolVersion), 1);
    assert_eq!(refusal(ReasonCode::ClientIdentifierNotValid), 2);
    assert_eq!(refusal(ReasonCode::ServerBusy), 3);
    assert_eq!(refusal(ReasonCode::BadUserNameOrPassword), 4);
    assert_eq!(refusal(ReasonCode::NotAuthorized), 5);
    malformed(V3, &packet(0x20, b"\x00\x06"));
}

// ---- PUBLISH ----

#[test]
fn a_publish_of_qos_3_is_refused() {
    cites(V3, &packet(0x36, b"\x00\x01a\x00\x01"), "[MQTT-3.3.1-4]");
}

#[test]
fn dup_needs_a_qos_above_0() {
    cites(V5, &packet(0x38, b"\x00\x01a\x00"), "[MQTT-3.3.1-2]");
    assert!(read(V5, &packet(0x3a, b"\x00\x01a\x00\x01\x00")).is_ok());
}

#[test]
fn a_topic_name_has_no_wildcard() {
    for topic in [&b"\x00\x01#"[..], b"\x00\x03a/+", b"\x00\x02a#"] {
        cites(V5, &packet(0x30, &[topic, b"\x00"].concat()), "[MQTT-3.3.2-2]");
        cites(V3, &packet(0x30, topic), "[MQTT-3.3.2-2]");
    }
}

#[test]
fn an_empty_topic_name_needs_a_topic_alias() {
    cites(V3, &packet(0x30, b"\x00\x00"), "[MQTT-4.7.3-1]");
    refused(V5, &packet(0x30, b"\x00\x00\x00"), ReasonCode::ProtocolError, "Topic Alias");
    let bytes = packet(0x30, b"\x00\x00\x03\x23\x00\x05x");
    let Ok(Packet::Publish(publish)) = read(V5, &bytes) else {
        panic!("a PUBLISH");
    };
    assert_eq!((publish.properties.topic_alias(), publish.payload), (Some(5), &b"x"[..]));
}

#[test]
fn a_topic_alias_of_zero_is_left_to_the_session() {
    assert!(read(V5, &packet(0x30, b"\x00\x00\x03\x23\x00\x00")).is_ok());
}

#[test]
fn a_packet_identifier_is_not_zero() {
    for (first, body) in [
        (0x32, &b"\x00\x01a\x00\x00\x00"[..]),
        (0x40, b"\x00\x00"),
        (0x50, b"\x00\x00"),
        (0x62, b"\x00\x00"),
        (0x70, b"\x00\x00"),
        (0x82, b"\x00\x00\x00\x00\x01a\x00"),
        (0x90, b"\x00\x00\x00\x00"),
        (0xa2, b"\x00\x00\x00\x00\x01a"),
        (0xb0, b"\x00\x00\x00\x00"),
    ] {
        refused(V5, &packet(first, body), ReasonCode::ProtocolError, "Packet Identifier");
    }
}

#[test]
fn a_publish_may_carry_several_subscription_identifiers() {
    let bytes = packet(0x30, b"\x00\x01a\x05\x0b\x01\x0b\xff\x7f");
    let Ok(Packet::Publish(publish)) = read(V5, &bytes) else { panic!("a PUBLISH") };
    let identifiers: Vec<_> = publish.properties.iter().collect();
    assert_eq!(publish.properties.subscription_identifier(), Some(1));
    assert!(identifiers == [Property::SubscriptionIdentifier(1), Property::SubscriptionIdentifier(16_383)]);
}

// ---- acknowledgements ----

#[test]
fn an_ack_may_leave_out_success_and_empty_properties() {
    let ack = |reason| {
        Ok(Packet::PubAck(Ack { packet_id: PacketId::FIRST, reason, properties: Properties::EMPTY }))
    };
    assert!(read(V5, &packet(0x40, b"\x00\x01")) == ack(ReasonCode::Success));
    assert!(read(V5, &packet(0x40, b"\x00\x01\x10")) == ack(ReasonCode::NoMatchingSubscribers));
    assert!(read(V5, &packet(0x40, b"\x00\x01\x10\x00")) == ack(ReasonCode::NoMatchingSubscribers));
    assert_eq!(written(V5, &ack(ReasonCode::Success).expect("valid")), packet(0x40, b"\x00\x01"));
    assert_eq!(written(V5, &ack(ReasonCode::QuotaExceeded).expect("valid")), packet(0x40, b"\x00\x01\x97"));
}

#[test]
fn an_ack_with_success_and_a_property_is_written_whole() {
    let mut properties = PropertyBuf::new();
    properties.push(Property::ReasonString("ok"));
    let ack = Packet::PubRec(Ack {
        packet_id: PacketId::FIRST,
        reason: ReasonCode::Success,
        properties: properties.as_properties(),
    });
    assert_eq!(written(V5, &ack), packet(0x50, b"\x00\x01\x00\x05\x1f\x00\x02ok"));
    assert_eq!(written(V3, &ack), packet(0x50, b"\x00\x01"));
}

#[test]
fn a_reason_code_belongs_to_its_packet() {
    for (first, reasons) in [
        (0x40, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99][..]),
        (0x50, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        (0x62, &[0x00, 0x92]),
        (0x70, &[0x00, 0x92]),
    ] {
        for reason in 0..=u8::MAX {
            let decoded = read_owned(V5, packet(first, &[0, 1, reason]));
            assert_eq!(decoded.is_ok(), reasons.contains(&reason), "{first:#x} {reason:#x}");
            if let Err(error) = decoded {
                assert_eq!(error.reason, ReasonCode::ProtocolError, "{first:#x} {reason:#x}");
            }
        }
    }
    for (first, reasons) in [
        (0x90, &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2][..]),
        (0xb0, &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]),
    ] {
        for reason in 0..=u8::MAX {
            let decoded = read_owned(V5, packet(first, &[0, 1, 0, reason]));
            assert_eq!(decoded.is_ok(), reasons.contains(&reason), "{first:#x} {reason:#x}");
        }
    }
    for reason in 0..=u8::MAX {
        let granted = matches!(reason, 0..=2 | 0x80);
        assert_eq!(read_owned(V3, packet(0x90, &[0, 1, reason])).is_ok(), granted, "{reason:#x}");
        let disconnect = read_owned(V5, packet(0xe0, &[reason]));
        let known = matches!(reason, 0 | 4 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b..=0x90 | 0x93..=0xa2);
        assert_eq!(disconnect.is_ok(), known, "{reason:#x}");
        let connack = read_owned(V5, packet(0x20, &[0, reason, 0]));
        let known = matches!(reason, 0 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f);
        assert_eq!(connack.is_ok(), known, "{reason:#x}");
    }
}

#[test]
fn an_acknowledgement_of_filters_has_a_reason_code() {
    malformed(V3, &packet(0x90, b"\x00\x01"));
    malformed(V5, &packet(0x90, b"\x00\x01\x00"));
    malformed(V5, &packet(0xb0, b"\x00\x01\x00"));
    assert!(read(V3, &packet(0xb0, b"\x00\x01")).is_ok());
}

#[test]
fn in_3_1_1_every_refused_filter_is_0x80_and_an_unsuback_is_bare() {
    let reasons = &[0x01, 0x87, 0x8f];
    let packet_id = PacketId::FIRST;
    let suback = Packet::SubAck(SubAck { packet_id, properties: Properties::EMPTY, reasons });
    assert_eq!(written(V3, &suback), packet(0x90, b"\x00\x01\x01\x80\x80"));
    let unsuback = Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::EMPTY, reasons: &[0x11] });
    assert_eq!(written(V3, &unsuback), packet(0xb0, b"\x00\x01"));
    assert_eq!(written(V5, &unsuback), packet(0xb0, b"\x00\x01\x00\x11"));
}

// ---- SUBSCRIBE, UNSUBSCRIBE ----

#[test]
fn a_list_of_filters_is_not_empty() {
    refused(V3, &packet(0x82, b"\x00\x01"), ReasonCode::ProtocolError, "[MQTT-3.8.3-2]");
    refused(V5, &packet(0x82, b"\x00\x01\x00"), ReasonCode::ProtocolError, "[MQTT-3.8.3-2]");
    refused(V3, &packet(0xa2, b"\x00\x01"), ReasonCode::ProtocolError, "[MQTT-3.10.3-2]");
    refused(V5, &packet(0xa2, b"\x00\x01\x00"), ReasonCode::ProtocolError, "[MQTT-3.10.3-2]");
}

#[test]
fn a_list_of_filters_is_whole() {
    malformed(V3, &packet(0x82, b"\x00\x01\x00\x01a"));
    malformed(V3, &packet(0x82, b"\x00\x01\x00\x02a\x00"));
    malformed(V3, &packet(0xa2, b"\x00\x01\x00\x02a"));
    malformed(V3, &packet(0xa2, b"\x00\x01\x00\x01a\x00"));
}

#[test]
fn subscription_options_have_reserved_bits_and_values() {
    for bits in 0..=u8::MAX {
        let v3 = read_owned(V3, packet(0x82, &[0, 1, 0, 1, b'a', bits])).is_ok();
        assert_eq!(v3, bits <= 2, "{bits:#b}");
        let v5 = read_owned(V5, packet(0x82, &[0, 1, 0, 0, 1, b'a', bits]));
        let fine = bits & 0xc0 == 0 && bits & 0b11 != 0b11 && bits & 0x30 != 0x30;
        assert_eq!(v5.is_ok(), fine, "{bits:#b}");
        if let Err(error) = v5 {
            let malformed = bits & 0xc0 != 0;
            assert_eq!(error.reason == ReasonCode::MalformedPacket, malformed, "{bits:#b}");
        }
    }
}

#[test]
fn a_topic_filter_has_its_wildcards_where_they_may_be() {
    let subscribe = |filter: &str| {
        let len = u8::try_from(filter.len()).expect("short");
        packet(0x82, &[&[0, 1, 0, len], filter.as_bytes(), &[0]].concat())
    };
    let unsubscribe = |filter: &str| {
        let len = u8::try_from(filter.len()).expect("short");
        packet(0xa2, &[&[0, 1, 0, len], filter.as_bytes()].concat())
    };
    for filter in ["#", "+", "+/+", "/", "//", "/+", "+/", "a/#", "+/#", "a//b", "$SYS/#", "$share"] {
        assert!(read(V3, &subscribe(filter)).is_ok(), "{filter}");
        assert!(read(V3, &unsubscribe(filter)).is_ok(), "{filter}");
    }
    for (filter, statement) in [
        ("", "[MQTT-4.7.3-1]"),
        ("#/a", "[MQTT-4.7.1-1]"),
        ("a#", "[MQTT-4.7.1-1]"),
        ("a/#b", "[MQTT-4.7.1-1]"),
        ("##", "[MQTT-4.7.1-1]"),
        ("a+", "[MQTT-4.7.1-2]"),
        ("+a/b", "[MQTT-4.7.1-2]"),
        ("a/++/b", "[MQTT-4.7.1-2]"),
    ] {
        cites(V3, &subscribe(filter), statement);
        cites(V3, &unsubscribe(filter), statement);
    }
}

#[test]
fn a_shared_subscription_names_its_share_and_its_filter() {
    let body = |filter: &str| {
        let len = u8::try_from(filter.len()).expect("short");
        [&[0, len], filter.as_bytes()].concat()
    };
    for (filter, statement) in [
        ("$share/", "[MQTT-4.8.2-1]"),
        ("$share//a", "[MQTT-4.8.2-1]"),
        ("$share/g", "[MQTT-4.8.2-2]"),
        ("$share/g/", "[MQTT-4.8.2-2]"),
        ("$share/+/a", "[MQTT-4.8.2-2]"),
    ] {
        let filter = body(filter);
        cites(V5, &packet(0x82, &[b"\x00\x01\x00", &filter[..], b"\x00"].concat()), statement);
        cites(V5, &packet(0xa2, &[b"\x00\x01\x00", &filter[..]].concat()), statement);
        // 3.1.1 knows no shared subscriptions: whether it takes the filter is the session's business.
        assert!(read(V3, &packet(0x82, &[b"\x00\x01", &filter[..], b"\x00"].concat())).is_ok());
    }
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let shared = |options| packet(0x82, &[b"\x00\x01\x00\x00\x0a$share/g/a", &[options][..]].concat());
    refused(V5, &shared(0x04), ReasonCode::ProtocolError, "[MQTT-3.8.3-4]");
    assert!(read(V5, &shared(0x00)).is_ok());
}

#[test]
fn the_number_of_filters_has_a_bound() {
    let subscribe = |count| packet(0x82, &[b"\x00\x01", b"\x00\x01a\x00".repeat(count).as_slice()].concat());
    let unsubscribe = |count| packet(0xa2, &[b"\x00\x01", b"\x00\x01a".repeat(count).as_slice()].concat());
    assert!(read(V3, &subscribe(FILTERS_PER_PACKET_MAX)).is_ok());
    assert!(read(V3, &unsubscribe(FILTERS_PER_PACKET_MAX)).is_ok());
    refused(V3, &subscribe(FILTERS_PER_PACKET_MAX + 1), ReasonCode::QuotaExceeded, "too many");
    refused(V3, &unsubscribe(FILTERS_PER_PACKET_MAX + 1), ReasonCode::QuotaExceeded, "too many");
}

// ---- DISCONNECT, AUTH ----

#[test]
fn a_disconnect_may_leave_out_its_reason_and_its_properties() {
    let disconnect = |reason| Ok(Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
    assert!(read(V3, &[0xe0, 0x00]) == disconnect(ReasonCode::Success));
    assert!(read(V5, &[0xe0, 0x00]) == disconnect(ReasonCode::Success));
    assert!(read(V5, &[0xe0, 0x01, 0x04]) == disconnect(ReasonCode::DisconnectWithWillMessage));
    let leaving =
        Packet::Disconnect(Disconnect { reason: ReasonCode::ServerBusy, properties: Properties::EMPTY });
    assert_eq!(written(V5, &leaving), [0xe0, 0x01, 0x89]);
    assert_eq!(written(V3, &leaving), [0xe0, 0x00]);
}

#[test]
fn an_auth_is_either_empty_or_whole_and_names_its_method() {
    let bare = Auth { reason: ReasonCode::Success, properties: Properties::EMPTY };
    assert!(read(V5, &[0xf0, 0x00]) == Ok(Packet::Auth(bare.clone())));
    assert_eq!(written(V5, &Packet::Auth(bare)), [0xf0, 0x00]);
    malformed(V5, &packet(0xf0, b"\x18"));
    refused(V5, &packet(0xf0, b"\x18\x00"), ReasonCode::ProtocolError, "Authentication Method");
    assert!(read(V5, &packet(0xf0, b"\x18\x04\x15\x00\x01m")).is_ok());
    refused(V5, &packet(0xf0, b"\x80\x04\x15\x00\x01m"), ReasonCode::ProtocolError, "Reason Code");
}

// ---- strings ----

#[test]
fn a_string_is_well_formed_utf_8_without_u_0000() {
    for bytes in [
        &b"\x00"[..],
        b"a\x00b",
        // A lone continuation, a sequence cut short, bytes that never occur.
        b"\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xff",
        // Overlong forms of U+0000, `/` and U+FFFF.
        b"\xc0\x80",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x8f\xbf\xbf",
        // Surrogates, alone and in a pair.
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x81\xed\xb0\x80",
        // U+110000.
        b"\xf4\x90\x80\x80",
    ] {
        for_every_string(bytes, |version, packet| {
            let error = decode(packet, version, PACKET_BYTES_MAX).expect_err("no UTF-8");
            assert_eq!(error.reason, ReasonCode::MalformedPacket, "{error}: {packet:02x?}");
            assert!(error.to_string().contains("[MQTT-1.5.4-"), "{error}: {packet:02x?}");
        });
    }
}

#[test]
fn a_string_keeps_its_byte_order_mark_and_characters_of_every_plane() {
    for text in ["\u{feff}a", "A\u{2a6d4}", "\u{10fffd}", "\u{d7ff}\u{e000}", "\u{a0}", "~ "] {
        for_every_string(text.as_bytes(), |version, packet| {
            let (decoded, _) = decode(packet, version, PACKET_BYTES_MAX).expect("UTF-8").expect("whole");
            assert_eq!(written(version, &decoded), packet);
        });
    }
}

#[test]
fn a_name_holds_neither_control_characters_nor_non_characters() {
    for point in
        (0x01..=0x1f).chain(0x7f..=0x9f).chain(0xfdd0..=0xfdef).chain([0xfffe, 0xffff, 0x1_fffe, 0x10_ffff])
    {
        let name = format!("a{}", char::from_u32(point).expect("no surrogate"));
        for_every_name(name.as_bytes(), |version, packet| {
            let error = decode(packet, version, PACKET_BYTES_MAX).expect_err("advised against");
            assert_eq!(error.reason, ReasonCode::MalformedPacket, "{error}: {packet:02x?}");
        });
        // What is not a name may, so that text of more than one line does.
        let [high, low] = u16::try_from(name.len()).expect("short").to_be_bytes();
        let value = [&[0x26, 0, 1, b'k', high, low], name.as_bytes()].concat();
        assert!(Properties::check(PropertyContext::Publish, &value).is_ok(), "U+{point:04X}");
    }
}

// ---- properties ----

#[test]
fn a_property_belongs_to_its_packet() {
    let table: [(PropertyId, &[u8], &[PropertyContext]); 27] = {
        use PropertyContext as C;
        const DATA: &[PropertyContext] = &[C::Publish, C::Will];
        const AUTH: &[PropertyContext] = &[C::Connect, C::ConnAck, C::Auth];
        const BOTH: &[PropertyContext] = &[C::Connect, C::ConnAck];
        [
            (PropertyId::PayloadFormatIndicator, b"\x01\x01", DATA),
            (PropertyId::MessageExpiryInterval, b"\x02\x00\x00\x00\x01", DATA),
            (PropertyId::ContentType, b"\x03\x00\x01a", DATA),
            (PropertyId::ResponseTopic, b"\x08\x00\x01a", DATA),
            (PropertyId::CorrelationData, b"\x09\x00\x01\xff", DATA),
            (PropertyId::SubscriptionIdentifier, b"\x0b\x01", &[C::Publish, C::Subscribe]),
            (
                PropertyId::SessionExpiryInterval,
                b"\x11\x00\x00\x00\x00",
                &[C::Connect, C::ConnAck, C::Disconnect],
            ),
            (PropertyId::AssignedClientIdentifier, b"\x12\x00\x01a", &[C::ConnAck]),
            (PropertyId::ServerKeepAlive, b"\x13\x00\x00", &[C::ConnAck]),
            (PropertyId::AuthenticationMethod, b"\x15\x00\x01a", AUTH),
            (PropertyId::AuthenticationData, b"\x15\x00\x01a\x16\x00\x01\xff", AUTH),
            (PropertyId::RequestProblemInformation, b"\x17\x00", &[C::Connect]),
            (PropertyId::WillDelayInterval, b"\x18\x00\x00\x00\x00", &[C::Will]),
            (PropertyId::RequestResponseInformation, b"\x19\x01", &[C::Connect]),
            (PropertyId::ResponseInformation, b"\x1a\x00\x01a", &[C::ConnAck]),
            (PropertyId::ServerReference, b"\x1c\x00\x01a", &[C::ConnAck, C::Disconnect]),
            (
                PropertyId::ReasonString,
                b"\x1f\x00\x01a",
                &[
                    C::ConnAck,
                    C::PubAck,
                    C::PubRec,
                    C::PubRel,
                    C::PubComp,
                    C::SubAck,
                    C::UnsubAck,
                    C::Disconnect,
                    C::Auth,
                ],
            ),
            (PropertyId::ReceiveMaximum, b"\x21\x00\x01", BOTH),
            (PropertyId::TopicAliasMaximum, b"\x22\x00\x00", BOTH),
            (PropertyId::TopicAlias, b"\x23\x00\x01", &[C::Publish]),
            (PropertyId::MaximumQoS, b"\x24\x01", &[C::ConnAck]),
            (PropertyId::RetainAvailable, b"\x25\x00", &[C::ConnAck]),
            (PropertyId::UserProperty, b"\x26\x00\x01a\x00\x01b", &CONTEXTS),
            (PropertyId::MaximumPacketSize, b"\x27\x00\x00\x00\x01", BOTH),
            (PropertyId::WildcardSubscriptionAvailable, b"\x28\x00", &[C::ConnAck]),
            (PropertyId::SubscriptionIdentifierAvailable, b"\x29\x00", &[C::ConnAck]),
            (PropertyId::SharedSubscriptionAvailable, b"\x2a\x01", &[C::ConnAck]),
        ]
    };
    for (id, bytes, carriers) in table {
        for context in CONTEXTS {
            let checked = Properties::check(context, bytes);
            assert_eq!(checked.is_ok(), carriers.contains(&context), "{id:?} in {context:?}");
            match checked {
                Ok(properties) => assert_eq!(properties.iter().last().map(|p| p.id()), Some(id)),
                Err(error) => assert_eq!(error.reason, ReasonCode::ProtocolError),
            }
        }
    }
}

#[test]
fn a_property_that_is_not_defined_is_malformed() {
    let defined: Vec<u8> = (0..=u8::MAX).filter(|&id| PropertyId::from_u8(id).is_some()).collect();
    assert_eq!(defined.len(), 27);
    for id in (0..=u8::MAX).filter(|id| !defined.contains(id)) {
        malformed(V5, &packet(0x30, &[0, 1, b'a', 2, id, 0]));
    }
    // The identifier of Payload Format Indicator, longer than need be.
    malformed(V5, &packet(0x30, b"\x00\x01a\x03\x81\x00\x01"));
}

#[test]
fn a_property_stands_once_but_for_user_properties() {
    for twice in [&b"\x23\x00\x01"[..], b"\x01\x00", b"\x03\x00\x00", b"\x02\x00\x00\x00\x01"] {
        let error = Properties::check(PropertyContext::Publish, &twice.repeat(2)).expect_err("twice");
        assert_eq!(error.reason, ReasonCode::ProtocolError);
    }
    let identifiers = b"\x0b\x01\x0b\x01";
    assert!(Properties::check(PropertyContext::Publish, identifiers).is_ok());
    assert!(Properties::check(PropertyContext::Subscribe, identifiers).is_err());
    let user = b"\x26\x00\x01a\x00\x01b".repeat(2);
    let pairs = Properties::check(PropertyContext::Publish, &user).expect("may repeat");
    assert!(pairs.user_properties().eq([("a", "b"), ("a", "b")]));
}

#[test]
fn the_number_of_user_properties_has_a_bound() {
    let user = |count| b"\x26\x00\x01a\x00\x01b".repeat(count);
    assert!(Properties::check(PropertyContext::Connect, &user(USER_PROPERTIES_MAX)).is_ok());
    let error =
        Properties::check(PropertyContext::Connect, &user(USER_PROPERTIES_MAX + 1)).expect_err("many");
    assert_eq!(error.reason, ReasonCode::QuotaExceeded);
}

#[test]
fn a_property_s_value_is_in_its_range() {
    for (context, bytes) in [
        (PropertyContext::Publish, &b"\x01\x02"[..]),
        (PropertyContext::Connect, b"\x17\x02"),
        (PropertyContext::Connect, b"\x19\xff"),
        (PropertyContext::Connect, b"\x21\x00\x00"),
        (PropertyContext::Connect, b"\x27\x00\x00\x00\x00"),
        (PropertyContext::Connect, b"\x16\x00\x01d"),
        (PropertyContext::ConnAck, b"\x24\x02"),
        (PropertyContext::ConnAck, b"\x24\x03"),
        (PropertyContext::ConnAck, b"\x25\x02"),
        (PropertyContext::ConnAck, b"\x28\x02"),
        (PropertyContext::ConnAck, b"\x29\x02"),
        (PropertyContext::ConnAck, b"\x2a\x02"),
        (PropertyContext::Subscribe, b"\x0b\x00"),
        (PropertyContext::Publish, b"\x08\x00\x01#"),
        (PropertyContext::Publish, b"\x08\x00\x00"),
    ] {
        let error = Properties::check(context, bytes).expect_err("out of range");
        assert_eq!(error.reason, ReasonCode::ProtocolError, "{bytes:x?}");
    }
}

#[test]
fn a_property_list_ends_where_its_length_says() {
    // A string that reaches behind the list, into the payload.
    malformed(V5, &packet(0x30, b"\x00\x01a\x03\x03\x00\x02xyz"));
    // A list that reaches behind the packet.
    malformed(V5, &packet(0x30, b"\x00\x01a\x03\x23\x00"));
    // A Property Length longer than need be.
    malformed(V5, &packet(0x30, b"\x00\x01a\x80\x00"));
    // No Property Length.
    malformed(V5, &packet(0x30, b"\x00\x01a"));
}

#[test]
fn a_string_in_a_property_is_strict_utf8() {
    malformed(V5, &packet(0x30, b"\x00\x01a\x06\x03\x00\x03\xed\xa0\x80"));
    malformed(V5, &packet(0x30, b"\x00\x01a\x07\x26\x00\x01\xff\x00\x01b"));
    malformed(V5, &packet(0x30, b"\x00\x01a\x07\x26\x00\x01a\x00\x01\x00"));
}

#[test]
#[should_panic(expected = "no packet carries this property")]
fn a_value_that_no_packet_may_carry_is_not_pushed() {
    PropertyBuf::new().push(Property::ReceiveMaximum(0));
}

// ---- encoding ----

#[test]
fn a_publish_is_written_from_parts_as_from_one_list() {
    let mut stored = PropertyBuf::new();
    stored.push(Property::ContentType("text/plain")).push(Property::UserProperty("a", "b"));
    let mut ours = PropertyBuf::new();
    ours.push(Property::SubscriptionIdentifier(300));
    let parts = [stored.as_properties().as_bytes(), ours.as_properties().as_bytes()];
    let whole = PropertyBuf::from_wire_checked(PropertyContext::Publish, &parts.concat()).expect("valid");
    for version in [V3, V5] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let packet_id = (qos == QoS::AtLeastOnce).then_some(PacketId::FIRST);
            let mut from_parts = vec![0xff];
            encode_publish(version, false, qos, true, "a/b", packet_id, &parts, b"hi", &mut from_parts);
            let publish = Packet::Publish(Publish {
                dup: false,
                qos,
                retain: true,
                topic: "a/b",
                packet_id,
                properties: whole.as_properties(),
                payload: b"hi",
            });
            assert_eq!(from_parts[1..], written(version, &publish));
            assert_eq!(
                publish_len(version, qos, 3, whole.as_properties().as_bytes().len(), 2),
                from_parts.len() - 1
            );
        }
    }
}

#[test]
fn nothing_private_is_in_the_debug_of_a_packet() {
    let bytes = connect(
        5,
        0xc6,
        b"\x0d\x26\x00\x04key1\x00\x04val1\x00\x04phon\x00\x00\x06secret\x00\x04word\x00\x04alic\x00\x04pass"
            .as_slice(),
    );
    let shown = match read(V5, &bytes) {
        Ok(packet) => format!("{packet:?}"),
        Err(error) => panic!("{error}"),
    };
    for private in ["key1", "val1", "phon", "secret", "word", "alic", "pass"] {
        assert!(!shown.contains(private), "{shown}");
    }
    assert!(shown.contains("UserProperty"), "{shown}");
}

/// Calls `check` with a packet for each place where a string may be.
fn for_every_string(text: &[u8], check: impl Fn(Version, &[u8])) {
    for_every_name(text, &check);
    let [high, low] = u16::try_from(text.len()).expect("short").to_be_bytes();
    let property = |id: u8| [&[id, high, low], text].concat();
    let list = |property: &[u8]| [&[u8::try_from(property.len()).expect("short")], property].concat();
    check(V5, &packet(0x30, &[b"\x00\x01a", &list(&property(0x03))[..]].concat()));
    check(V5, &connect(5, 0x02, &[&list(&property(0x15)), &b"\x00\x01c"[..]].concat()));
    check(V5, &packet(0x40, &[b"\x00\x01\x00", &list(&property(0x1f))[..]].concat()));
    check(V5, &packet(0xe0, &[b"\x00", &list(&property(0x1f))[..]].concat()));
    let pair = [&property(0x26), &b"\x00\x01v"[..]].concat();
    check(V5, &packet(0x82, &[b"\x00\x01", &list(&pair)[..], b"\x00\x01a\x00"].concat()));
    let pair = [&b"\x26\x00\x01k"[..], &[high, low], text].concat();
    check(V5, &packet(0x82, &[b"\x00\x01", &list(&pair)[..], b"\x00\x01a\x00"].concat()));
}

/// Calls `check` with a packet for each place where a name may be.
fn for_every_name(name: &[u8], check: impl Fn(Version, &[u8])) {
    let name = [&u16::try_from(name.len()).expect("short").to_be_bytes(), name].concat();
    check(V3, &packet(0x30, &name));
    check(V5, &packet(0x30, &[&name[..], b"\x00"].concat()));
    let response = [&[u8::try_from(name.len() + 1).expect("short"), 0x08], &name[..]].concat();
    check(V5, &packet(0x30, &[b"\x00\x01a", &response[..]].concat()));
    check(V3, &packet(0x82, &[b"\x00\x01", &name[..], b"\x00"].concat()));
    check(V5, &packet(0x82, &[b"\x00\x01\x00", &name[..], b"\x00"].concat()));
    check(V3, &packet(0xa2, &[b"\x00\x01", &name[..]].concat()));
    check(V5, &packet(0xa2, &[b"\x00\x01\x00", &name[..]].concat()));
    check(V3, &connect(4, 0x02, &name));
    check(V5, &connect(5, 0x02, &[b"\x00", &name[..]].concat()));
    check(V3, &connect(4, 0x82, &[b"\x00\x01c", &name[..]].concat()));
    check(V3, &connect(4, 0x06, &[b"\x00\x01c", &name[..], b"\x00\x01w"].concat()));
    check(V5, &connect(5, 0x06, &[b"\x00\x00\x01c\x00", &name[..], b"\x00\x01w"].concat()));
}

const CONTEXTS: [PropertyContext; 14] = [
    PropertyContext::Connect,
    PropertyContext::Will,
    PropertyContext::ConnAck,
    PropertyContext::Publish,
    PropertyContext::PubAck,
    PropertyContext::PubRec,
    PropertyContext::PubRel,
    PropertyContext::PubComp,
    PropertyContext::Subscribe,
    PropertyContext::SubAck,
    PropertyContext::Unsubscribe,
    PropertyContext::UnsubAck,
    PropertyContext::Disconnect,
    PropertyContext::Auth,
];

/// A packet of this first byte and body, with the length between them.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    write_remaining_length(u32::try_from(body.len()).expect("small"), &mut bytes);
    bytes.extend(body);
    bytes
}

/// A CONNECT up to its keep alive, then `rest`.
fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[b"\x00\x04MQTT", &[level, flags, 0, 60][..], rest].concat())
}

fn read(version: Version, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    decode(bytes, version, PACKET_BYTES_MAX).map(|decoded| decoded.expect("the packet is whole").0)
}

fn read_owned(version: Version, bytes: Vec<u8>) -> Result<Packet<'static>, DecodeError> {
    read(version, bytes.leak())
}

fn written(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn malformed(version: Version, bytes: &[u8]) {
    refused(version, bytes, ReasonCode::MalformedPacket, "");
}

fn cites(version: Version, bytes: &[u8], statement: &str) {
    refused(version, bytes, ReasonCode::MalformedPacket, statement);
}

fn refused(version: Version, bytes: &[u8], reason: ReasonCode, what: &str) {
    let error = decode(bytes, version, PACKET_BYTES_MAX).expect_err("must be refused");
    assert_eq!(error.reason, reason, "{error}: {bytes:02x?}");
    assert!(error.to_string().contains(what), "{error}: {bytes:02x?}");
}
