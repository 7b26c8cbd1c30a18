//! What a PUBLISH carries beside its payload, from publisher to subscriber.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{Packet, Version};
use crate::support::write::{
    self, CONTENT_TYPE, CORRELATION_DATA, PAYLOAD_FORMAT_INDICATOR, Publish, REASON_STRING,
    REQUEST_PROBLEM_INFORMATION, RESPONSE_TOPIC, byte, data, subscription_identifier, text, user_property,
};

fn everything() -> Vec<u8> {
    [
        byte(PAYLOAD_FORMAT_INDICATOR, 1),
        text(CONTENT_TYPE, "application/x-\u{1f600}"),
        text(RESPONSE_TOPIC, "answer/here"),
        data(CORRELATION_DATA, &[0, 255, 0]),
        user_property("z", "first"),
        user_property("a", ""),
        user_property("z", "first"),
        user_property("", "nameless"),
    ]
    .concat()
}

#[test]
fn the_publisher_s_properties_arrive_unaltered_and_in_order() {
    let topic = unique("all");
    let mut live = Connect::new(Version::V5, &unique("live")).open();
    live.subscribe(&topic, 2);
    let connect = Connect::new(Version::V5, &unique("offline")).lasting();
    let mut offline = connect.open();
    offline.subscribe(&topic, 2);
    offline.goodbye();
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    for qos in 0..3 {
        publisher.publish(&Publish::new(&topic, "x").qos(qos, 1).retain().property(&everything()));
    }
    let mut later = Connect::new(Version::V5, &unique("later")).open();
    later.subscribe(&topic, 2);
    let mut offline = connect.open();
    let messages = [live.take(), live.take(), live.take(), offline.take(), offline.take(), later.take()];
    for message in messages {
        let properties = message.properties;
        assert_eq!(properties.number(PAYLOAD_FORMAT_INDICATOR), Some(1));
        assert_eq!(properties.text(CONTENT_TYPE), Some("application/x-\u{1f600}"));
        assert_eq!(properties.text(RESPONSE_TOPIC), Some("answer/here"));
        assert_eq!(properties.data(CORRELATION_DATA), Some(&[0, 255, 0][..]));
        assert_eq!(properties.pairs(), [("z", "first"), ("a", ""), ("z", "first"), ("", "nameless")]);
        assert_eq!(properties.0.len(), 8, "nothing was added");
    }
}

#[test]
fn a_3_1_1_subscriber_gets_the_payload_alone() {
    let topic = unique("old");
    let mut old = Connect::new(Version::V3, &unique("old")).open();
    old.subscribe(&topic, 1);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&topic, "x").qos(1, 1).property(&everything()));
    let message = old.take();
    assert_eq!((message.text(), message.properties.is_empty()), ("x", true));
}

#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let mut client = Connect::new(Version::V5, &unique("identifier")).open();
    client.send(&Publish::new("t", "x").property(&subscription_identifier(1)).bytes(Version::V5));
    client.expect_closed_with(0x82);
}

#[test]
fn a_response_topic_has_no_wildcards() {
    for topic in ["a/#", "a/+", "+"] {
        let mut client = Connect::new(Version::V5, &unique("response")).open();
        client.send(&Publish::new("t", "x").property(&text(RESPONSE_TOPIC, topic)).bytes(Version::V5));
        assert!(matches!(client.next(), Packet::Disconnect { code: 0x81 | 0x82 | 0x90, .. }));
        client.expect_closed();
    }
}

#[test]
fn strings_in_properties_are_utf8() {
    let bad = b"\xed\xa0\x80";
    let pair = |name: &[u8], value: &[u8]| {
        [vec![write::USER_PROPERTY], write::binary(name), write::binary(value)].concat()
    };
    for property in [data(RESPONSE_TOPIC, bad), data(CONTENT_TYPE, bad), pair(bad, b"x"), pair(b"x", bad)] {
        let mut client = Connect::new(Version::V5, &unique("utf8")).open();
        client.send(&Publish::new("t", "x").property(&property).bytes(Version::V5));
        client.expect_closed_with(0x81);
    }
}

#[test]
fn without_problem_information_no_acknowledgement_explains_itself() {
    let connect = Connect::new(Version::V5, &unique("silent"));
    let mut client = connect.property(&byte(REQUEST_PROBLEM_INFORMATION, 0)).open();
    let topic = unique("silent");
    client.send(&Publish::new(&topic, "x").qos(1, 1).bytes(Version::V5));
    client.send(&Publish::new(&topic, "x").qos(2, 2).bytes(Version::V5));
    client.send(&write::ack(write::PUBREL, 99));
    client.send(&write::ack(write::PUBREC, 98));
    for _ in 0..4 {
        let Packet::Ack { properties, .. } = client.next() else { panic!("an acknowledgement") };
        assert!(properties.is_empty());
    }
}

#[test]
fn a_reason_string_from_the_client_is_read_and_goes_no_further() {
    let topic = unique("string");
    let mut client = Connect::new(Version::V5, &unique("string")).open();
    client.subscribe(&topic, 1);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&topic, "x").qos(1, 1));
    let message = client.message();
    let [high, low] = message.packet_id.to_be_bytes();
    let own = write::properties(Version::V5, &text(REASON_STRING, "because"));
    client.send(&write::packet(write::PUBACK, &[vec![high, low, 0], own].concat()));
    client.expect_silence();
}
