//! Message Expiry Interval.

use std::time::Duration;

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{MESSAGE_EXPIRY_INTERVAL, PUBCOMP, PUBREC, PUBREL, Publish, ack, four_bytes};

#[test]
fn what_is_left_of_a_message_s_life_is_told_at_delivery() {
    let topic = unique("left");
    let connect = Connect::new(Version::V5, &unique("left")).lasting();
    let mut client = connect.open();
    client.subscribe(&topic, 1);
    client.goodbye();
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    let expiring = Publish::new(&topic, "x").property(&four_bytes(MESSAGE_EXPIRY_INTERVAL, 60));
    publisher.publish(&expiring.qos(1, 1).retain());
    publisher.publish(&Publish::new(&topic, "for ever").qos(1, 2));
    std::thread::sleep(Duration::from_millis(2100));
    let mut client = connect.open();
    let left = client.take().properties.number(MESSAGE_EXPIRY_INTERVAL).expect("it expires");
    assert!((57..=58).contains(&left), "{left}");
    assert_eq!(client.take().properties.number(MESSAGE_EXPIRY_INTERVAL), None);
    let mut later = Connect::new(Version::V5, &unique("later")).open();
    later.subscribe(&topic, 0);
    let left = later.take().properties.number(MESSAGE_EXPIRY_INTERVAL).expect("it expires");
    assert!((57..=58).contains(&left), "{left}");
}

#[test]
fn an_expired_message_is_not_delivered() {
    let topic = unique("expired");
    let sessions = BOTH.map(|version| Connect::new(version, &unique("expired")).lasting());
    for connect in &sessions {
        let mut client = connect.open();
        client.subscribe(&topic, 2);
        client.goodbye();
    }
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    for qos in 1..3 {
        let expiring = Publish::new(&topic, "x").property(&four_bytes(MESSAGE_EXPIRY_INTERVAL, 1));
        publisher.publish(&expiring.qos(qos, 1).retain());
    }
    publisher.publish(&Publish::new(&topic, "lasting").qos(1, 2));
    std::thread::sleep(Duration::from_millis(1600));
    for connect in &sessions {
        let mut client = connect.open();
        assert_eq!(client.take().text(), "lasting");
        client.expect_silence();
        // Nor is it retained any more.
        client.subscribe(&topic, 2);
        client.expect_silence();
    }
}

#[test]
fn a_qos_2_message_that_was_sent_is_seen_through_although_it_expires() {
    let topic = unique("through");
    let mut client = Connect::new(Version::V5, &unique("through")).open();
    client.subscribe(&topic, 2);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    let expiring = Publish::new(&topic, "x").property(&four_bytes(MESSAGE_EXPIRY_INTERVAL, 1));
    publisher.send(&expiring.qos(2, 1).bytes(Version::V5));
    assert!(matches!(publisher.next(), Packet::Ack { kind: PUBREC, packet_id: 1, .. }));
    let packet_id = client.message().packet_id;
    std::thread::sleep(Duration::from_millis(1500));
    publisher.send(&ack(PUBREL, 1));
    publisher.expect_ack(PUBCOMP, 1, 0);
    client.send(&ack(PUBREC, packet_id));
    client.expect_ack(PUBREL, packet_id, 0);
    client.send(&ack(PUBCOMP, packet_id));
    client.expect_silence();
}
