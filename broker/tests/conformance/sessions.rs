//! Session State: what outlives a connection, and for how long.

use std::time::Duration;

use crate::support::broker::Broker;
use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{
    PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, SESSION_EXPIRY_INTERVAL, ack, ack_with, disconnect_with,
    four_bytes,
};

fn publish_elsewhere(version: Version, topic: &str, text: &str, qos: u8) {
    let mut publisher = Connect::new(version, &unique("publisher")).open();
    publisher.publish(&Publish::new(topic, text).qos(qos, 1));
}

#[test]
fn session_present_tells_whether_there_was_a_session() {
    for version in BOTH {
        let connect = Connect::new(version, &unique("present")).lasting();
        let first = connect.open();
        assert!(!first.present);
        first.goodbye();
        let second = connect.open();
        assert!(second.present);
        second.goodbye();
        let mut clean = connect.clone();
        clean.clean = true;
        let third = clean.open();
        assert!(!third.present, "a clean start has no session");
    }
}

#[test]
fn a_session_keeps_its_subscriptions_and_what_was_published_meanwhile() {
    for version in BOTH {
        for qos in [1, 2] {
            let topic = unique("kept");
            let connect = Connect::new(version, &unique("kept")).lasting();
            let mut client = connect.open();
            client.subscribe(&topic, qos);
            client.goodbye();
            publish_elsewhere(version, &topic, "meanwhile", qos);
            let mut client = connect.open();
            assert!(client.present);
            let message = client.take();
            assert_eq!((message.text(), message.qos, message.dup), ("meanwhile", qos, false));
            publish_elsewhere(version, &topic, "live", qos);
            assert_eq!(client.take().text(), "live");
        }
    }
}

#[test]
fn a_clean_start_discards_the_session() {
    for version in BOTH {
        let topic = unique("discarded");
        let connect = Connect::new(version, &unique("discarded")).lasting();
        let mut client = connect.open();
        client.subscribe(&topic, 1);
        client.goodbye();
        publish_elsewhere(version, &topic, "meanwhile", 1);
        let mut clean = connect.clone();
        clean.clean = true;
        let mut client = clean.open();
        publish_elsewhere(version, &topic, "later", 1);
        client.expect_silence();
        client.goodbye();
    }
}

#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    for version in BOTH {
        let topic = unique("ends");
        let mut client = Connect::new(version, "").open();
        client.subscribe(&topic, 1);
        client.goodbye();
        let connect = Connect::new(version, &unique("ends"));
        let mut client = connect.open();
        client.subscribe(&topic, 1);
        drop(client);
        let mut again = connect.clone();
        again.clean = false;
        let mut client = again.open();
        assert!(!client.present);
        publish_elsewhere(version, &topic, "x", 1);
        client.expect_silence();
    }
}

#[test]
fn a_session_ends_when_its_expiry_has_passed_and_not_before() {
    let mut connect = Connect::new(Version::V5, &unique("expiry")).expiry(2);
    connect.clean = false;
    connect.open().goodbye();
    std::thread::sleep(Duration::from_millis(500));
    let client = connect.open();
    assert!(client.present);
    client.goodbye();
    std::thread::sleep(Duration::from_millis(3200));
    assert!(!connect.open().present);
}

#[test]
fn a_session_is_not_discarded_while_it_is_connected() {
    let topic = unique("connected");
    let mut connect = Connect::new(Version::V5, &unique("connected")).expiry(1);
    connect.clean = false;
    let mut client = connect.open();
    client.subscribe(&topic, 1);
    std::thread::sleep(Duration::from_millis(2200));
    publish_elsewhere(Version::V5, &topic, "x", 1);
    assert_eq!(client.take().text(), "x");
    client.goodbye();
    assert!(connect.open().present);
}

#[test]
fn a_disconnect_may_change_how_long_the_session_lasts() {
    let connect = Connect::new(Version::V5, &unique("changed")).lasting();
    let mut client = connect.open();
    client.send(&disconnect_with(0, &four_bytes(SESSION_EXPIRY_INTERVAL, 0)));
    client.expect_closed();
    assert!(!connect.open().present);
}

#[test]
fn a_disconnect_cannot_give_a_session_to_a_connection_that_asked_for_none() {
    let mut client = Connect::new(Version::V5, &unique("none")).open();
    client.send(&disconnect_with(0, &four_bytes(SESSION_EXPIRY_INTERVAL, 60)));
    client.expect_closed_with(0x82);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_with_dup_and_its_packet_identifiers_in_order() {
    for version in BOTH {
        for qos in [1, 2] {
            let topic = unique("again");
            let connect = Connect::new(version, &unique("again")).lasting();
            let mut client = connect.open();
            client.subscribe(&topic, qos);
            let mut packet_ids = Vec::new();
            for text in ["1", "2", "3"] {
                publish_elsewhere(version, &topic, text, qos);
                let message = client.message();
                assert!(!message.dup);
                packet_ids.push(message.packet_id);
            }
            drop(client);
            let mut client = connect.open();
            for (text, packet_id) in ["1", "2", "3"].into_iter().zip(packet_ids) {
                let message = client.message();
                assert_eq!((message.text(), message.packet_id, message.dup), (text, packet_id, true));
            }
            client.expect_silence();
        }
    }
}

#[test]
fn nothing_is_sent_again_while_the_connection_lasts() {
    for version in BOTH {
        let topic = unique("once");
        let mut client = Connect::new(version, &unique("once")).lasting().open();
        client.subscribe(&topic, 2);
        publish_elsewhere(version, &topic, "1", 1);
        publish_elsewhere(version, &topic, "2", 2);
        client.message();
        client.message();
        std::thread::sleep(Duration::from_millis(1500));
        client.expect_silence();
    }
}

#[test]
fn a_message_whose_pubrec_came_is_never_sent_again_its_pubrel_is() {
    for version in BOTH {
        let topic = unique("released");
        let connect = Connect::new(version, &unique("released")).lasting();
        let mut client = connect.open();
        client.subscribe(&topic, 2);
        publish_elsewhere(version, &topic, "x", 2);
        let packet_id = client.message().packet_id;
        client.send(&ack(PUBREC, packet_id));
        client.expect_ack(PUBREL, packet_id, 0);
        drop(client);
        let mut client = connect.open();
        client.expect_ack(PUBREL, packet_id, 0);
        client.send(&ack(PUBCOMP, packet_id));
        client.expect_silence();
        drop(client);
        connect.open().expect_silence();
    }
}

#[test]
fn a_message_that_the_client_refused_is_not_sent_again() {
    for (kind, qos) in [(PUBACK, 1), (PUBREC, 2)] {
        let topic = unique("refused");
        let connect = Connect::new(Version::V5, &unique("refused")).lasting();
        let mut client = connect.open();
        client.subscribe(&topic, qos);
        publish_elsewhere(Version::V5, &topic, "x", qos);
        let packet_id = client.message().packet_id;
        client.send(&ack_with(kind, packet_id, 0x83));
        client.expect_silence();
        drop(client);
        connect.open().expect_silence();
    }
}

#[test]
fn a_qos_2_message_is_taken_once_though_its_publisher_comes_back() {
    for version in BOTH {
        let topic = unique("once");
        let mut watcher = Connect::new(version, &unique("watcher")).open();
        watcher.subscribe(&topic, 2);
        let connect = Connect::new(version, &unique("once")).lasting();
        let mut client = connect.open();
        client.send(&Publish::new(&topic, "x").qos(2, 9).bytes(version));
        assert!(matches!(client.next(), Packet::Ack { kind: PUBREC, packet_id: 9, .. }));
        assert_eq!(watcher.take().text(), "x");
        drop(client);
        let mut client = connect.open();
        client.send(&Publish::new(&topic, "x").qos(2, 9).dup().bytes(version));
        assert!(matches!(client.next(), Packet::Ack { kind: PUBREC, packet_id: 9, code: 0 | 0x10, .. }));
        client.send(&ack(PUBREL, 9));
        client.expect_ack(PUBCOMP, 9, 0);
        watcher.expect_silence();
        // The identifier is free, and names a new message.
        client.publish(&Publish::new(&topic, "y").qos(2, 9));
        assert_eq!(watcher.take().text(), "y");
    }
}

#[test]
fn sessions_and_retained_messages_outlive_the_broker() {
    let mut broker = Broker::start();
    for end in [Broker::restart, Broker::crash_and_restart] {
        for version in BOTH {
            let (topic, kept) = (unique("outlives"), unique("retained"));
            let connect = Connect::new(version, &unique("outlives")).lasting();
            let mut client = connect.clone().to(broker.address()).open();
            client.subscribe(&topic, 2);
            client.goodbye();
            let mut publisher = Connect::new(version, &unique("publisher")).to(broker.address()).open();
            publisher.publish(&Publish::new(&topic, "1").qos(1, 1));
            publisher.publish(&Publish::new(&topic, "2").qos(2, 2));
            publisher.publish(&Publish::new(&kept, "3").qos(1, 3).retain());
            end(&mut broker);
            let mut client = connect.to(broker.address()).open();
            assert!(client.present);
            assert_eq!(client.take().text(), "1");
            assert_eq!(client.take().text(), "2");
            client.subscribe(&kept, 1);
            assert_eq!(client.take().text(), "3");
        }
    }
}

#[test]
fn a_session_goes_on_in_the_other_version() {
    for (first, second) in [(Version::V3, Version::V5), (Version::V5, Version::V3)] {
        let (topic, client_id) = (unique("other"), unique("other"));
        let mut client = Connect::new(first, &client_id).lasting().open();
        client.subscribe(&topic, 2);
        client.goodbye();
        publish_elsewhere(first, &topic, "x", 2);
        let mut client = Connect::new(second, &client_id).lasting().open();
        assert!(client.present);
        let message = client.take();
        assert_eq!((message.text(), message.qos), ("x", 2));
    }
}
