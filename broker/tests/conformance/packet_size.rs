//! Maximum Packet Size, both ways.

use crate::support::client::{Client, unique};
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{MAXIMUM_PACKET_SIZE, PUBACK, Publish, ack, four_bytes, variable_byte_integer};

#[test]
fn a_message_too_large_for_a_client_is_left_out_and_takes_no_place() {
    for qos in 0..3 {
        let topic = unique("large");
        let connect = Connect::new(Version::V5, &unique("large")).lasting().receive_maximum(1);
        let connect = connect.property(&four_bytes(MAXIMUM_PACKET_SIZE, 60));
        let mut client = connect.open();
        client.subscribe(&topic, qos);
        let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
        for _ in 0..3 {
            publisher.publish(&Publish::new(&topic, &[b'x'; 100]).qos(qos, 1));
        }
        publisher.publish(&Publish::new(&topic, "small").qos(qos, 2));
        assert_eq!(client.take().text(), "small");
        client.expect_silence();
        client.goodbye();
        connect.open().expect_silence();
    }
}

#[test]
fn a_packet_of_exactly_the_maximum_is_sent() {
    let topic = unique("exact");
    let publish = Publish::new(&topic, &[b'x'; 30]).bytes(Version::V5);
    for (maximum, comes) in [(publish.len(), true), (publish.len() - 1, false)] {
        let maximum = u32::try_from(maximum).expect("small");
        let connect = Connect::new(Version::V5, &unique("exact"));
        let mut client = connect.property(&four_bytes(MAXIMUM_PACKET_SIZE, maximum)).open();
        client.subscribe(&topic, 0);
        Connect::new(Version::V5, &unique("publisher")).open().send(&publish);
        if comes {
            assert_eq!(client.take().payload.len(), 30);
        } else {
            std::thread::sleep(std::time::Duration::from_millis(200));
            client.expect_silence();
        }
    }
}

#[test]
fn retained_messages_too_large_for_a_client_are_left_out() {
    let topic = unique("retained");
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&format!("{topic}/a"), &[b'x'; 100]).qos(1, 1).retain());
    publisher.publish(&Publish::new(&format!("{topic}/b"), "small").qos(1, 2).retain());
    let connect = Connect::new(Version::V5, &unique("retained")).receive_maximum(1);
    let mut client = connect.property(&four_bytes(MAXIMUM_PACKET_SIZE, 60)).open();
    client.subscribe(&format!("{topic}/+"), 1);
    let message = client.message();
    assert_eq!(message.text(), "small");
    client.send(&ack(PUBACK, message.packet_id));
    client.expect_silence();
}

#[test]
fn a_connack_that_the_client_does_not_take_is_not_sent() {
    for maximum in [1, 4] {
        let connect = Connect::new(Version::V5, &unique("tiny"));
        let (_, first) = connect.property(&four_bytes(MAXIMUM_PACKET_SIZE, maximum)).attempt();
        assert_eq!(first, Packet::End);
    }
}

#[test]
fn a_packet_larger_than_the_server_takes_is_refused_by_its_header() {
    for version in BOTH {
        let (mut client, connack) = Connect::new(version, &unique("huge")).attempt();
        let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
        let maximum = properties.number(MAXIMUM_PACKET_SIZE).unwrap_or(0x0fff_ffff) as usize;
        client.send(&[vec![0x30], variable_byte_integer(maximum)].concat());
        client.expect_closed_with(0x95);
    }
}

#[test]
fn a_packet_as_large_as_the_server_takes_is_taken() {
    let (mut client, connack) = Connect::new(Version::V5, &unique("largest")).attempt();
    let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
    let maximum = properties.number(MAXIMUM_PACKET_SIZE).expect("announced") as usize;
    let topic = unique("largest");
    let overhead =
        Publish::new(&topic, &vec![0; maximum / 2]).qos(1, 1).bytes(Version::V5).len() - maximum / 2;
    let payload = vec![b'x'; maximum - overhead];
    let publish = Publish::new(&topic, &payload).qos(1, 1);
    assert_eq!(publish.bytes(Version::V5).len(), maximum);
    client.subscribe(&topic, 0);
    client.send(&publish.bytes(Version::V5));
    let acknowledged = |client: &mut Client| match client.next() {
        Packet::Ack { kind: PUBACK, .. } => None,
        Packet::Publish(message) => Some(message.payload.len()),
        other => panic!("{other:?}"),
    };
    let both = [acknowledged(&mut client), acknowledged(&mut client)];
    assert!(both.contains(&None) && both.contains(&Some(payload.len())), "{both:?}");
}
