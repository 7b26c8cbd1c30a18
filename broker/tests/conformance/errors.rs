//! Malformed Packets and Protocol Errors on a connection that was accepted.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Version};
use crate::support::write::{
    AUTHENTICATION_METHOD, CONTENT_TYPE, MESSAGE_EXPIRY_INTERVAL, PAYLOAD_FORMAT_INDICATOR, PUBACK, Publish,
    REASON_STRING, RECEIVE_MAXIMUM, SESSION_EXPIRY_INTERVAL, byte, disconnect_with, four_bytes, packet,
    properties, string, text, two_bytes, user_property,
};

fn closes(version: Version, code: u8, bytes: &[u8]) {
    let mut client = Connect::new(version, &unique("error")).open();
    client.send(bytes);
    client.expect_closed_with(code);
}

#[test]
fn a_second_connect_closes_the_connection() {
    for version in BOTH {
        closes(version, 0x82, &Connect::new(version, &unique("second")).bytes());
    }
}

#[test]
fn what_only_a_server_sends_closes_the_connection() {
    for version in BOTH {
        for first in [0x20, 0x90, 0xb0, 0xd0] {
            // Whatever it holds, and before it is whole.
            closes(version, 0x82, &[first, 0]);
            closes(version, 0x82, &packet(first, &[0; 5]));
            closes(version, 0x82, &[first]);
            closes(version, 0x82, &[first | 1]);
        }
    }
}

#[test]
fn the_reserved_type_closes_the_connection() {
    for version in BOTH {
        closes(version, 0x82, &[0x00, 0]);
        closes(version, 0x82, &[0x0f]);
    }
    // In 3.1.1 there is no AUTH.
    closes(Version::V3, 0, &[0xf0, 0]);
}

#[test]
fn an_auth_without_an_authentication_method_is_a_protocol_error() {
    let own = properties(Version::V5, &text(AUTHENTICATION_METHOD, "any"));
    closes(Version::V5, 0x82, &packet(0xf0, &[vec![0x19], own.clone()].concat()));
    closes(Version::V5, 0x82, &packet(0xf0, &[vec![0x18], own].concat()));
}

#[test]
fn reserved_flags_of_the_fixed_header_are_malformed() {
    for version in BOTH {
        for kind in [0x40, 0x50, 0x70, 0xc0, 0xe0] {
            for flags in 1..16 {
                closes(version, 0x81, &[kind | flags, 2, 0, 1]);
            }
        }
    }
    for flags in 1..16 {
        closes(Version::V5, 0x81, &[0xf0 | flags, 0]);
    }
}

#[test]
fn a_qos_of_3_is_malformed() {
    for version in BOTH {
        for first in [0x36, 0x37, 0x3e, 0x3f] {
            let own = properties(version, &[]);
            closes(version, 0x81, &packet(first, &[string("t"), vec![0, 1], own, b"x".to_vec()].concat()));
        }
    }
}

#[test]
fn dup_with_qos_0_is_malformed() {
    for version in BOTH {
        closes(version, 0x81, &Publish::new("t", "x").dup().bytes(version));
    }
}

#[test]
fn a_remaining_length_has_at_most_four_bytes() {
    for version in BOTH {
        for bytes in [[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], [0x30, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
            closes(version, 0x81, &bytes);
        }
    }
}

#[test]
fn a_length_is_encoded_in_as_few_bytes_as_it_takes() {
    let body = [string("t"), vec![0x80, 0x00], b"x".to_vec()].concat();
    closes(Version::V5, 0x81, &packet(0x30, &body));
    closes(Version::V5, 0x81, &[0xc0, 0x80, 0x00]);
}

#[test]
fn a_packet_ends_where_its_fields_end() {
    for version in BOTH {
        for bytes in [
            vec![0xc0, 1, 0],
            vec![0x40, 1, 0],
            vec![0x40, 0],
            vec![0x30, 0],
            vec![0x30, 2, 0, 5],
            vec![0x32, 3, 0, 1, b't'],
            vec![0x82, 1, 0],
            vec![0xa2, 1, 0],
        ] {
            closes(version, 0x81, &bytes);
        }
    }
    closes(Version::V3, 0, &[0x40, 3, 0, 1, 0]);
    closes(Version::V3, 0, &[0xe0, 1, 0]);
    closes(Version::V3, 0, &packet(0x82, &[vec![0, 1], string("t")].concat()));
}

#[test]
fn a_reason_code_is_one_of_its_packet_s() {
    for bytes in [
        packet(PUBACK, &[0, 1, 0x01]),
        packet(0x50, &[0, 1, 0x92]),
        packet(0x62, &[0, 1, 0x10]),
        packet(0x70, &[0, 1, 0x80]),
        disconnect_with(0x01, &[]),
        disconnect_with(0x05, &[]),
        disconnect_with(0xff, &[]),
    ] {
        closes(Version::V5, 0x82, &bytes);
    }
}

#[test]
fn a_property_that_its_packet_may_not_carry_is_a_protocol_error() {
    let own = |list: &[u8]| properties(Version::V5, list);
    for (list, reason) in [
        (two_bytes(RECEIVE_MAXIMUM, 1), 0x82),
        (four_bytes(SESSION_EXPIRY_INTERVAL, 1), 0x82),
        // These are no properties at all.
        (vec![0x00], 0x81),
        (vec![0x7f], 0x81),
    ] {
        for bytes in [
            Publish::new("t", "x").property(&list).bytes(Version::V5),
            packet(0x82, &[vec![0, 1], own(&list), string("t"), vec![0]].concat()),
            packet(0xa2, &[vec![0, 1], own(&list), string("t")].concat()),
            packet(PUBACK, &[vec![0, 1, 0], own(&list)].concat()),
        ] {
            closes(Version::V5, reason, &bytes);
        }
    }
    closes(Version::V5, 0x82, &disconnect_with(0, &byte(PAYLOAD_FORMAT_INDICATOR, 0)));
}

#[test]
fn a_property_that_stands_twice_is_a_protocol_error() {
    for once in
        [byte(PAYLOAD_FORMAT_INDICATOR, 0), four_bytes(MESSAGE_EXPIRY_INTERVAL, 9), text(CONTENT_TYPE, "x")]
    {
        let twice = [once.clone(), once].concat();
        closes(Version::V5, 0x82, &Publish::new("t", "x").property(&twice).bytes(Version::V5));
    }
    let twice = text(REASON_STRING, "x").repeat(2);
    closes(Version::V5, 0x82, &disconnect_with(0, &twice));
}

#[test]
fn a_property_list_that_does_not_fit_its_length_is_malformed() {
    for list in [
        vec![PAYLOAD_FORMAT_INDICATOR],
        vec![CONTENT_TYPE, 0, 9, b'x'],
        user_property("a", "b")[..6].to_vec(),
    ] {
        closes(Version::V5, 0x81, &Publish::new("t", "x").property(&list).bytes(Version::V5));
    }
    closes(Version::V5, 0x81, &packet(0x30, &[string("t"), vec![100, 0]].concat()));
}

#[test]
fn a_payload_format_indicator_is_0_or_1() {
    let list = byte(PAYLOAD_FORMAT_INDICATOR, 2);
    closes(Version::V5, 0x82, &Publish::new("t", "x").property(&list).bytes(Version::V5));
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    for version in BOTH {
        for (qos, kind) in [(1, 0x50), (1, 0x70), (2, PUBACK), (2, 0x70)] {
            let topic = unique("wrong");
            let mut client = Connect::new(version, &unique("wrong")).open();
            client.subscribe(&topic, qos);
            Connect::new(version, &unique("publisher"))
                .open()
                .publish(&Publish::new(&topic, "x").qos(qos, 1));
            let [high, low] = client.message().packet_id.to_be_bytes();
            client.send(&packet(kind, &[high, low]));
            client.expect_closed_with(0x82);
        }
    }
}

#[test]
fn nothing_follows_the_server_s_disconnect_though_more_was_asked() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("more")).open();
        client
            .send(&[vec![0xc1, 0], vec![0xc0, 0], Publish::new("t", "x").qos(1, 1).bytes(version)].concat());
        client.expect_closed_with(0x81);
    }
}

#[test]
fn nothing_is_answered_after_the_client_s_disconnect() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("after")).open();
        client.send(&[0xe0, 0, 0xc0, 0]);
        client.expect_closed();
    }
}
