//! From a publisher to subscribers: QoS, acknowledgements, packet identifiers, order.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, ack, ack_with};

#[test]
fn a_message_is_delivered_with_the_lower_of_its_qos_and_the_granted() {
    for version in BOTH {
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        for granted in 0..3 {
            let topic = unique("lower");
            let mut client = Connect::new(version, &unique("lower")).open();
            client.subscribe(&topic, granted);
            for qos in 0..3 {
                publisher.publish(&Publish::new(&topic, "x").qos(qos, 1));
                let message = client.take();
                assert_eq!(message.qos, qos.min(granted));
                assert!(!message.dup);
            }
        }
    }
}

#[test]
fn a_publish_is_answered_as_its_qos_wants_it() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("answered")).open();
        let topic = unique("answered");
        client.subscribe(&topic, 0);
        client.send(&Publish::new(&topic, "0").bytes(version));
        assert_eq!(client.take().text(), "0");
        client.expect_silence();
        client.send(&Publish::new(&topic, "1").qos(1, 0xffff).bytes(version));
        let mut answers = [client.next(), client.next()];
        answers.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
        assert!(matches!(answers[0], Packet::Ack { kind: PUBACK, packet_id: 0xffff, code: 0, .. }));
        client.send(&Publish::new(&topic, "2").qos(2, 1).bytes(version));
        let mut answers = [client.next(), client.next()];
        answers.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
        assert!(matches!(answers[0], Packet::Ack { kind: PUBREC, packet_id: 1, code: 0, .. }));
        client.send(&ack(PUBREL, 1));
        client.expect_ack(PUBCOMP, 1, 0);
    }
}

#[test]
fn a_version_5_publisher_is_told_that_nobody_subscribes() {
    let mut client = Connect::new(Version::V5, &unique("nobody")).open();
    let topic = unique("nobody");
    client.send(&Publish::new(&topic, "x").qos(1, 1).bytes(Version::V5));
    client.expect_ack(PUBACK, 1, 0x10);
    client.send(&Publish::new(&topic, "x").qos(2, 2).bytes(Version::V5));
    // PUBREC may say so too; there it would only be one more byte before the exchange is over.
    client.expect_ack(PUBREC, 2, 0);
    client.send(&ack(PUBREL, 2));
    client.expect_ack(PUBCOMP, 2, 0);
    let mut subscriber = Connect::new(Version::V5, &unique("somebody")).open();
    subscriber.subscribe(&topic, 1);
    client.send(&Publish::new(&topic, "x").qos(1, 3).bytes(Version::V5));
    client.expect_ack(PUBACK, 3, 0);
}

#[test]
fn an_acknowledged_packet_identifier_names_a_new_message_whatever_dup_says() {
    for version in BOTH {
        let topic = unique("anew");
        let mut watcher = Connect::new(version, &unique("watcher")).open();
        watcher.subscribe(&topic, 1);
        let mut client = Connect::new(version, &unique("anew")).open();
        for publish in [Publish::new(&topic, "1").qos(1, 5), Publish::new(&topic, "2").qos(1, 5).dup()] {
            client.publish(&publish);
            let message = watcher.take();
            assert_eq!(message.payload, publish.payload);
            assert!(!message.dup, "DUP is the publisher's own");
        }
    }
}

#[test]
fn a_qos_2_publish_that_comes_again_before_its_pubrel_is_delivered_once() {
    for version in BOTH {
        let topic = unique("twice");
        let mut watcher = Connect::new(version, &unique("watcher")).open();
        watcher.subscribe(&topic, 2);
        let mut client = Connect::new(version, &unique("twice")).open();
        for again in [false, true, true] {
            let publish = Publish { dup: again, ..Publish::new(&topic, "x").qos(2, 5) };
            client.send(&publish.bytes(version));
            assert!(matches!(client.next(), Packet::Ack { kind: PUBREC, packet_id: 5, code: 0, .. }));
        }
        assert_eq!(watcher.take().text(), "x");
        client.send(&ack(PUBREL, 5));
        client.expect_ack(PUBCOMP, 5, 0);
        watcher.expect_silence();
        client.publish(&Publish::new(&topic, "y").qos(2, 5));
        assert_eq!(watcher.take().text(), "y");
    }
}

#[test]
fn a_pubrel_or_pubrec_of_no_message_is_answered_all_the_same() {
    for (version, code) in [(Version::V3, 0), (Version::V5, 0x92)] {
        let mut client = Connect::new(version, &unique("none")).open();
        client.send(&ack(PUBREL, 77));
        client.expect_ack(PUBCOMP, 77, code);
        client.send(&ack(PUBREC, 78));
        client.expect_ack(PUBREL, 78, code);
        client.send(&ack(PUBACK, 79));
        client.send(&ack(PUBCOMP, 80));
        client.expect_silence();
    }
}

#[test]
fn a_qos_2_message_goes_through_its_four_packets_under_one_identifier() {
    for version in BOTH {
        let topic = unique("four");
        let mut client = Connect::new(version, &unique("four")).open();
        client.subscribe(&topic, 2);
        Connect::new(version, &unique("publisher")).open().publish(&Publish::new(&topic, "x").qos(2, 1));
        let packet_id = client.message().packet_id;
        for _ in 0..2 {
            client.send(&ack(PUBREC, packet_id));
            client.expect_ack(PUBREL, packet_id, 0);
        }
        client.send(&ack(PUBCOMP, packet_id));
        client.expect_silence();
    }
}

#[test]
fn a_pubrec_that_refuses_ends_the_exchange() {
    let topic = unique("refused");
    let mut client = Connect::new(Version::V5, &unique("refused")).receive_maximum(1).open();
    client.subscribe(&topic, 2);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&topic, "1").qos(2, 1));
    publisher.publish(&Publish::new(&topic, "2").qos(2, 2));
    let first = client.message();
    client.send(&ack_with(PUBREC, first.packet_id, 0x80));
    assert_eq!(client.take().text(), "2");
}

#[test]
fn packet_identifiers_in_use_are_not_given_again() {
    for version in BOTH {
        let topic = unique("ids");
        let mut client = Connect::new(version, &unique("ids")).open();
        client.subscribe(&topic, 1);
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        let mut in_use = Vec::new();
        for number in 1..=40 {
            publisher.publish(&Publish::new(&topic, "x").qos(1, number));
            let packet_id = client.message().packet_id;
            assert!(!in_use.contains(&packet_id));
            in_use.push(packet_id);
            if number % 3 == 0 {
                let done = in_use.remove(0);
                client.send(&ack(PUBACK, done));
            }
        }
    }
}

#[test]
fn messages_of_one_publisher_come_in_its_order() {
    for version in BOTH {
        for qos in 0..3 {
            let topic = unique("order");
            let mut client = Connect::new(version, &unique("order")).open();
            client.subscribe(&topic, qos);
            let mut publisher = Connect::new(version, &unique("publisher")).open();
            let texts: Vec<String> = (1..=50).map(|number| number.to_string()).collect();
            let mut bytes = Vec::new();
            for (packet_id, text) in (1..).zip(&texts) {
                bytes.extend(Publish::new(&topic, text).qos(qos, packet_id).bytes(version));
            }
            publisher.send(&bytes);
            for text in &texts {
                assert_eq!(client.take().text(), text);
            }
        }
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_their_messages() {
    for version in BOTH {
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        let mut bytes = Vec::new();
        for packet_id in 1..=40 {
            // Some go through the store, some do not.
            let publish = Publish::new("acknowledged", "x").qos(1, packet_id);
            let publish = if packet_id % 2 == 0 { publish.retain() } else { publish };
            bytes.extend(publish.bytes(version));
        }
        publisher.send(&bytes);
        for expected in 1..=40 {
            assert!(matches!(publisher.next(), Packet::Ack { packet_id, .. } if packet_id == expected));
        }
    }
}

#[test]
fn every_matching_session_gets_the_message() {
    for version in BOTH {
        let topic = unique("all");
        let mut clients: Vec<_> = (0..8).map(|_| Connect::new(version, &unique("all")).open()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.subscribe(&format!("{topic}{}", if number % 2 == 0 { "" } else { "/#" }), 0);
        }
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        publisher.publish(&Publish::new(&topic, "x"));
        for client in &mut clients {
            assert_eq!(client.message().topic, topic);
        }
    }
}

#[test]
fn payloads_are_any_bytes_and_may_be_none() {
    for version in BOTH {
        let topic = unique("bytes");
        let mut client = Connect::new(version, &unique("bytes")).open();
        client.subscribe(&topic, 1);
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        for payload in [&[][..], &[0], &[0xff; 127], &[1; 128], &[2; 16_384], &all] {
            publisher.publish(&Publish::new(&topic, payload).qos(1, 1));
            assert_eq!(client.take().payload, payload);
        }
    }
}
