//! Retained messages.

use crate::support::client::{Client, unique};
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{self, Publish};

fn retained(version: Version, topic: &str) -> Vec<(String, u8)> {
    let mut client = Connect::new(version, &unique("reader")).open();
    client.subscribe(topic, 2);
    messages(&mut client)
}

/// All that come before a message that is published now.
fn messages(client: &mut Client) -> Vec<(String, u8)> {
    let marker = unique("marker");
    client.send(&write::subscribe(client.version, 0x7003, &[], &[(&marker, 0)]));
    client.send(&Publish::new(&marker, "x").bytes(client.version));
    let mut messages = Vec::new();
    loop {
        match client.next() {
            Packet::SubAck { packet_id: 0x7003, .. } => {}
            Packet::Publish(message) if message.topic == marker => return messages,
            Packet::Publish(message) => {
                assert!(message.retain, "sent for a new subscription");
                messages.push((message.text().to_owned(), message.qos));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_last_retained_message_of_a_topic_is_kept_with_its_qos() {
    for version in BOTH {
        for qos in 0..3 {
            let topic = unique("kept");
            let mut publisher = Connect::new(version, &unique("publisher")).open();
            publisher.publish(&Publish::new(&topic, "old").qos(1, 1).retain());
            publisher.publish(&Publish::new(&topic, "new").qos(qos, 2).retain());
            publisher.publish(&Publish::new(&topic, "not retained").qos(1, 3));
            // Its acknowledgement says that the QoS 0 message before it is stored.
            publisher.publish(&Publish::new(&unique("last"), "x").qos(1, 4).retain());
            assert_eq!(retained(version, &topic), [("new".to_owned(), qos)]);
        }
    }
}

#[test]
fn an_empty_retained_message_removes_the_one_before_and_is_delivered() {
    for version in BOTH {
        for qos in 0..3 {
            let topic = unique("removed");
            let mut watcher = Connect::new(version, &unique("watcher")).open();
            watcher.subscribe(&topic, 1);
            let mut publisher = Connect::new(version, &unique("publisher")).open();
            publisher.publish(&Publish::new(&topic, "old").qos(1, 1).retain());
            assert_eq!(watcher.take().text(), "old");
            publisher.publish(&Publish::new(&topic, "").qos(qos, 2).retain());
            publisher.publish(&Publish::new(&unique("last"), "x").qos(1, 4).retain());
            let message = watcher.take();
            assert_eq!((message.text(), message.retain), ("", false));
            assert_eq!(retained(version, &topic), []);
            // There is none to remove any more.
            publisher.publish(&Publish::new(&topic, "").qos(qos, 2).retain());
            publisher.publish(&Publish::new(&unique("last"), "x").qos(1, 4).retain());
            assert_eq!(retained(version, &topic), []);
        }
    }
}

#[test]
fn a_message_published_before_a_subscribe_on_its_connection_is_retained_by_then() {
    for version in BOTH {
        for qos in 0..2 {
            for _ in 0..20 {
                let topic = unique("before");
                let mut client = Connect::new(version, &unique("before")).open();
                let publish = Publish::new(&topic, "x").qos(qos, 1).retain().bytes(version);
                client.send(&[publish, write::subscribe(version, 2, &[], &[(&topic, 0)])].concat());
                if qos == 1 {
                    assert!(matches!(client.next(), Packet::Ack { kind: write::PUBACK, .. }));
                }
                assert_eq!(client.next(), Packet::SubAck { packet_id: 2, codes: vec![0] });
                assert_eq!(messages(&mut client), [("x".to_owned(), 0)]);
            }
        }
    }
}

#[test]
fn a_message_published_before_a_subscribe_on_its_connection_does_not_come_by_it() {
    for version in BOTH {
        for qos in 0..3 {
            let topic = unique("before");
            let mut client = Connect::new(version, &unique("before")).lasting().open();
            client.send(
                &[
                    Publish::new(&topic, "x").qos(qos, 1).bytes(version),
                    write::subscribe(version, 2, &[], &[(&topic, 2)]),
                ]
                .concat(),
            );
            if qos > 0 {
                assert!(matches!(client.next(), Packet::Ack { .. }));
            }
            assert_eq!(client.next(), Packet::SubAck { packet_id: 2, codes: vec![2] });
            client.expect_silence();
        }
    }
}

#[test]
fn wildcards_fetch_all_that_match() {
    for version in BOTH {
        let topic = unique("wild");
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        for level in ["a", "b", "a/c"] {
            publisher.publish(&Publish::new(&format!("{topic}/{level}"), level).qos(1, 1).retain());
        }
        publisher.publish(&Publish::new(&topic, "").qos(1, 1));
        let found = |filter: &str| {
            let mut texts: Vec<_> =
                retained(version, &format!("{topic}/{filter}")).into_iter().map(|(text, _)| text).collect();
            texts.sort();
            texts
        };
        assert_eq!(found("#"), ["a", "a/c", "b"]);
        assert_eq!(found("+"), ["a", "b"]);
        assert_eq!(found("+/c"), ["a/c"]);
    }
}

#[test]
fn in_3_1_1_a_repeated_subscribe_fetches_again() {
    let topic = unique("again");
    let mut client = Connect::new(Version::V3, &unique("again")).open();
    client.publish(&Publish::new(&topic, "x").qos(1, 1).retain());
    for _ in 0..2 {
        client.subscribe(&topic, 0);
        assert_eq!(messages(&mut client), [("x".to_owned(), 0)]);
    }
}

#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    let topic = unique("handling");
    let mut client = Connect::new(Version::V5, &unique("handling")).open();
    client.publish(&Publish::new(&topic, "x").qos(1, 1).retain());
    // 2: never; 1: for a new subscription alone; 0: always.
    for (handling, fetched) in [(2, 0), (1, 0), (0, 1), (0, 1), (1, 0), (2, 0)] {
        client.subscribe(&topic, handling << 4);
        assert_eq!(messages(&mut client).len(), fetched, "{handling}");
    }
    client.unsubscribe(&[&topic]);
    client.subscribe(&topic, 1 << 4);
    assert_eq!(messages(&mut client).len(), 1);
}

#[test]
fn a_retained_message_reaches_those_who_subscribe_already_without_retain() {
    for version in BOTH {
        let topic = unique("already");
        let mut client = Connect::new(version, &unique("already")).open();
        client.subscribe(&topic, 1);
        Connect::new(version, &unique("publisher"))
            .open()
            .publish(&Publish::new(&topic, "x").qos(1, 1).retain());
        assert!(!client.take().retain);
        client.expect_silence();
    }
}

#[test]
fn retained_messages_do_not_end_with_their_publisher_s_session() {
    for version in BOTH {
        let topic = unique("stays");
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        publisher.publish(&Publish::new(&topic, "x").qos(1, 1).retain());
        publisher.goodbye();
        assert_eq!(retained(version, &topic), [("x".to_owned(), 1)]);
    }
}
