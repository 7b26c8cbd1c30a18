//! CONNECT packets that are none, and packets that come before one.

use crate::support::client::{Client, unique};
use crate::support::connect::{Connect, Will};
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{
    AUTHENTICATION_DATA, CONTENT_TYPE, MAXIMUM_PACKET_SIZE, PUBACK, Publish, RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFORMATION, REQUEST_RESPONSE_INFORMATION, SESSION_EXPIRY_INTERVAL, TOPIC_ALIAS, ack,
    byte, data, four_bytes, packet, string, subscribe, text, two_bytes, unsubscribe, user_property,
};

/// Closed: in 3.1.1 without a word, in version 5 perhaps with a CONNACK that refuses.
fn refused(version: Version, bytes: &[u8]) {
    let mut client = Client::raw(version, Connect::new(version, "").address);
    client.send(bytes);
    match client.next() {
        Packet::End => {}
        Packet::ConnAck { present: false, code: 0x80.., .. } if version == Version::V5 => {
            client.expect_closed();
        }
        other => panic!("{other:?} in answer to {bytes:x?}"),
    }
}

#[test]
fn nothing_but_a_connect_comes_first() {
    for version in BOTH {
        for bytes in [
            Publish::new("t", "x").bytes(version),
            ack(PUBACK, 1),
            subscribe(version, 1, &[], &[("t", 0)]),
            unsubscribe(version, 1, &["t"]),
            vec![0xc0, 0],
            vec![0xe0, 0],
            vec![0xf0, 0],
            vec![0x00, 0],
            vec![0x20, 2, 0, 0],
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ] {
            let mut client = Client::raw(version, Connect::new(version, "").address);
            client.send(&bytes);
            client.expect_closed();
        }
    }
}

#[test]
fn another_protocol_name_is_not_mqtt() {
    for version in BOTH {
        let good = Connect::new(version, &unique("name")).bytes();
        for name in ["MQTt", "MQT", "MQTTX", "MQIsdp"] {
            let body = [string(name), good[8..].to_vec()].concat();
            let mut client = Client::raw(Version::V3, Connect::new(version, "").address);
            client.send(&packet(0x10, &body));
            match client.next() {
                Packet::End => {}
                // [MQTT-3.1.2-1] lets a server that wants to reveal itself say so.
                Packet::ConnAck { present: false, code: 1, .. } => client.expect_closed(),
                other => panic!("{other:?} in answer to {name}"),
            }
        }
    }
}

#[test]
fn another_protocol_level_is_refused_as_3_1_1_says() {
    // A client of a version to come is answered as every version since 3.1.1 can read it.
    for level in [0, 1, 2, 3, 6, 7, 127, 255] {
        let mut bytes = Connect::new(Version::V3, &unique("level")).bytes();
        bytes[8] = level;
        let mut client = Client::raw(Version::V3, Connect::new(Version::V3, "").address);
        client.send(&bytes);
        let connack = client.next();
        assert!(matches!(connack, Packet::ConnAck { present: false, code: 1, .. }), "{level}: {connack:?}");
        client.expect_closed();
    }
}

#[test]
fn the_reserved_connect_flag_must_be_clear() {
    for version in BOTH {
        refused(version, &Connect::new(version, "x").bytes_of(0x03, &string("x")));
    }
}

#[test]
fn the_fixed_header_of_a_connect_has_no_flags() {
    for version in BOTH {
        for flags in 1..16 {
            let mut bytes = Connect::new(version, &unique("flags")).bytes();
            bytes[0] |= flags;
            refused(version, &bytes);
        }
    }
}

#[test]
fn without_a_will_flag_there_is_no_will_qos_and_no_will_retain() {
    for version in BOTH {
        for flags in [0x0a, 0x12, 0x1a, 0x22] {
            refused(version, &Connect::new(version, "x").bytes_of(flags, &string("x")));
        }
    }
}

#[test]
fn a_will_qos_of_3_is_refused() {
    for version in BOTH {
        let mut will = Will::new("t", "x");
        will.qos = 3;
        refused(version, &Connect::new(version, &unique("qos")).will(will).bytes());
    }
}

#[test]
fn a_flag_and_its_field_come_together() {
    for version in BOTH {
        let connect = Connect::new(version, "x");
        let id = string("x");
        for (flags, payload) in [
            // A will without topic, without payload; user name and password that are not there.
            (0x06, id.clone()),
            (0x06, [id.clone(), string("t")].concat()),
            (0x82, id.clone()),
            (0xc2, [id.clone(), string("user")].concat()),
            // Fields that no flag announces.
            (0x02, [id.clone(), string("user")].concat()),
            (0x82, [id.clone(), string("user"), string("password")].concat()),
            // No Client Identifier at all.
            (0x02, Vec::new()),
        ] {
            refused(version, &connect.bytes_of(flags, &payload));
        }
    }
}

#[test]
fn in_3_1_1_a_password_needs_a_user_name() {
    let connect = Connect::new(Version::V3, "x");
    refused(Version::V3, &connect.bytes_of(0x42, &[string("x"), string("password")].concat()));
}

#[test]
fn every_string_of_a_connect_is_utf8() {
    for version in BOTH {
        for bad in [&b"\xed\xa0\x80"[..], b"\xc0\x80", b"\xff", b"a\0b", b"\xf4\x90\x80\x80"] {
            let bad = [&u16::try_from(bad.len()).expect("short").to_be_bytes()[..], bad].concat();
            let connect = Connect::new(version, "x");
            refused(version, &connect.bytes_of(0x02, &bad));
            refused(version, &connect.bytes_of(0x82, &[string("x"), bad.clone()].concat()));
            let own = if version == Version::V5 { vec![0] } else { vec![] };
            refused(version, &connect.bytes_of(0x06, &[string("x"), own, bad, string("m")].concat()));
        }
    }
}

#[test]
fn a_will_topic_is_a_topic_name() {
    for version in BOTH {
        for topic in ["", "a/#", "a/+/b"] {
            refused(version, &Connect::new(version, &unique("will")).will(Will::new(topic, "x")).bytes());
        }
    }
}

#[test]
fn every_property_of_a_connect_is_one_of_its_own_and_stands_once() {
    let refused_with = |properties: &[u8]| {
        let connect = Connect::new(Version::V5, &unique("property")).property(properties);
        refused(Version::V5, &connect.bytes());
    };
    for once in [
        four_bytes(SESSION_EXPIRY_INTERVAL, 1),
        two_bytes(RECEIVE_MAXIMUM, 1),
        four_bytes(MAXIMUM_PACKET_SIZE, 1000),
        byte(REQUEST_PROBLEM_INFORMATION, 1),
        byte(REQUEST_RESPONSE_INFORMATION, 1),
    ] {
        refused_with(&[once.clone(), once].concat());
    }
    for out_of_range in [
        two_bytes(RECEIVE_MAXIMUM, 0),
        four_bytes(MAXIMUM_PACKET_SIZE, 0),
        byte(REQUEST_PROBLEM_INFORMATION, 2),
        byte(REQUEST_RESPONSE_INFORMATION, 2),
    ] {
        refused_with(&out_of_range);
    }
    for not_its_own in [two_bytes(TOPIC_ALIAS, 1), text(CONTENT_TYPE, "x"), vec![0x7f, 0], vec![0, 0]] {
        refused_with(&not_its_own);
    }
    refused_with(&data(AUTHENTICATION_DATA, b"without a method"));
    refused_with(&two_bytes(RECEIVE_MAXIMUM, 1)[..2]);
    let many = [user_property("a", "b"), user_property("a", "b")].concat();
    Connect::new(Version::V5, &unique("property")).property(&many).open().goodbye();
}

#[test]
fn a_connect_has_an_end() {
    for version in BOTH {
        let mut bytes = Connect::new(version, &unique("end")).bytes();
        bytes[1] += 1;
        bytes.push(0);
        refused(version, &bytes);
        refused(version, &[0x10, 0x80, 0x80, 0x80, 0x80, 0x01]);
        refused(version, &[0x10, 0]);
    }
}
