//! Receive Maximum, both ways.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{Packet, Version};
use crate::support::write::{PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, RECEIVE_MAXIMUM, ack, ack_with};

#[test]
fn no_more_than_the_client_s_receive_maximum_is_in_flight() {
    for qos in 1..3 {
        let topic = unique("window");
        let mut client = Connect::new(Version::V5, &unique("window")).receive_maximum(3).open();
        client.subscribe(&topic, 2);
        let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
        for number in 1..=9 {
            publisher.publish(&Publish::new(&topic, &number.to_string()).qos(qos, number));
        }
        let mut open: Vec<u16> = (0..3).map(|_| client.message().packet_id).collect();
        client.expect_silence();
        for _ in 0..6 {
            let packet_id = open.remove(0);
            if qos == 1 {
                client.send(&ack(PUBACK, packet_id));
            } else {
                client.send(&ack(PUBREC, packet_id));
                client.expect_ack(PUBREL, packet_id, 0);
                client.expect_silence();
                client.send(&ack(PUBCOMP, packet_id));
            }
            open.push(client.message().packet_id);
            client.expect_silence();
        }
    }
}

#[test]
fn qos_0_and_answers_flow_while_the_window_is_full() {
    let topic = unique("full");
    let mut client = Connect::new(Version::V5, &unique("full")).receive_maximum(1).open();
    client.subscribe(&topic, 1);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&topic, "1").qos(1, 1));
    publisher.publish(&Publish::new(&topic, "2").qos(1, 2));
    let first = client.message();
    client.expect_silence();
    let other = unique("other");
    client.subscribe(&other, 0);
    client.publish(&Publish::new("elsewhere", "x").qos(1, 5));
    client.publish(&Publish::new("elsewhere", "x").qos(2, 6));
    client.unsubscribe(&[&other]);
    client.send(&ack(PUBACK, first.packet_id));
    assert_eq!(client.take().text(), "2");
}

#[test]
fn a_negative_acknowledgement_makes_room() {
    let topic = unique("room");
    let mut client = Connect::new(Version::V5, &unique("room")).receive_maximum(1).open();
    client.subscribe(&topic, 2);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    for number in 1..=3 {
        publisher.publish(&Publish::new(&topic, &number.to_string()).qos(2, number));
    }
    for _ in 0..2 {
        let message = client.message();
        client.send(&ack_with(PUBREC, message.packet_id, 0x97));
    }
    assert_eq!(client.take().text(), "3");
}

#[test]
fn a_client_may_use_the_server_s_receive_maximum_and_not_go_over_it() {
    let (mut client, connack) = Connect::new(Version::V5, &unique("quota")).attempt();
    let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
    let quota = properties.number(RECEIVE_MAXIMUM).map_or(0xffff, |quota| quota.try_into().expect("16 bits"));
    assert!(quota > 0);
    // Unreleased QoS 2 messages hold their place.
    for packet_id in 1..=quota {
        client.send(&Publish::new("quota", "x").qos(2, packet_id).bytes(Version::V5));
        assert!(matches!(client.next(), Packet::Ack { kind: PUBREC, .. }));
    }
    client.expect_silence();
    client.send(&ack(PUBREL, 1));
    client.expect_ack(PUBCOMP, 1, 0);
    client.send(&Publish::new("quota", "x").qos(2, 1).bytes(Version::V5));
    assert!(matches!(client.next(), Packet::Ack { kind: PUBREC, packet_id: 1, .. }));
    client.send(&Publish::new("quota", "x").qos(1, quota + 1).bytes(Version::V5));
    client.expect_closed_with(0x93);
}

#[test]
fn the_window_holds_for_what_is_sent_again_too() {
    let topic = unique("again");
    let connect = Connect::new(Version::V5, &unique("again")).lasting();
    let mut client = connect.clone().receive_maximum(5).open();
    client.subscribe(&topic, 1);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    for number in 1..=5 {
        publisher.publish(&Publish::new(&topic, &number.to_string()).qos(1, number));
        client.message();
    }
    drop(client);
    let mut client = connect.receive_maximum(2).open();
    for number in 1..=5 {
        let message = client.message();
        assert_eq!((message.text(), message.dup), (number.to_string().as_str(), true));
        if number >= 2 {
            client.expect_silence();
        }
        if number == 2 {
            client.send(&ack(PUBACK, 1));
        } else if number > 2 {
            client.send(&ack(PUBACK, number - 1));
        }
    }
}
