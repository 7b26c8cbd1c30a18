//! Messages from one to another, in every Quality of Service and both versions.

use sotto_model::QoS;
use sotto_mqtt::codec::properties::Property;
use sotto_mqtt::packet::{Packet, Version};
use sotto_mqtt::reason::ReasonCode;
use uuid::Uuid;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, Login, ack};

on_both_stores!(
    every_quality_of_service_arrives_in_both_versions,
    what_was_not_acknowledged_is_sent_again_with_dup_and_its_packet_id,
    a_message_received_exactly_once_is_stored_once_across_a_kill,
    a_message_that_comes_again_because_of_a_kill_is_known_by_its_offset,
    what_is_published_again_under_its_id_arrives_once,
);

const VERSIONS: [Version; 2] = [Version::V3, Version::V5];
const QUALITIES: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn every_quality_of_service_arrives_in_both_versions(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    for from in VERSIONS {
        for to in VERSIONS {
            let mut alice = Login::of(&house, "alice", "phone").version(from).connect(&house).await;
            let mut bob = Login::of(&house, "bob", "phone").version(to).clean_start().connect(&house).await;
            for granted in QUALITIES {
                assert_eq!(bob.subscribe(&topic, granted).await, granted as u8);
                for published in QUALITIES {
                    let payload = format!("{from:?} {published:?} to {to:?} {granted:?}");
                    alice.publish(&topic, payload.as_bytes(), published).await;
                    let message = bob.receive().await;
                    assert_eq!((message.text(), message.topic), (payload, topic.clone()));
                    // [MQTT-3.8.4-8]
                    assert_eq!(message.qos, published.min(granted));
                    assert!(!message.dup && !message.retain);
                }
            }
            alice.disconnect().await;
            bob.disconnect().await;
        }
    }
}

async fn what_was_not_acknowledged_is_sent_again_with_dup_and_its_packet_id(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for (payload, qos) in [("one", QoS::AtLeastOnce), ("two", QoS::ExactlyOnce), ("three", QoS::ExactlyOnce)]
    {
        alice.publish(&topic, payload.as_bytes(), qos).await;
    }
    let first = [bob.message().await, bob.message().await, bob.message().await];
    // The second is received, and its PUBREL not answered.
    let second = first[1].packet_id.expect("of QoS 2");
    bob.send(&Packet::PubRec(ack(second))).await;
    bob.expect(Heard::PubRel(second)).await;
    bob.vanish();

    let mut bob = phone.connect(&house).await;
    assert!(bob.present);
    // [MQTT-4.4.0-1]
    bob.expect(Heard::PubRel(second)).await;
    bob.send(&Packet::PubComp(ack(second))).await;
    for old in [&first[0], &first[2]] {
        let again = bob.receive().await;
        assert!(again.dup);
        assert_eq!((again.packet_id, &again.payload, again.qos), (old.packet_id, &old.payload, old.qos));
    }
    alice.publish(&topic, b"four", QoS::AtLeastOnce).await;
    let fourth = bob.receive().await;
    assert_eq!((fourth.text().as_str(), fourth.dup), ("four", false));
}

async fn a_message_received_exactly_once_is_stored_once_across_a_kill(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    bob.disconnect().await;

    let phone = Login::of(&house, "alice", "phone").lasting();
    let mut alice = phone.connect(&house).await;
    let packet_id = alice.send_publish(&topic, b"once", QoS::ExactlyOnce).await;
    alice.expect(Heard::PubRec(packet_id, ReasonCode::Success)).await;
    house.kill_and_start().await;

    // The client has not seen its PUBREC, or has lost it: it sends the message again. [MQTT-4.4.0-1]
    let mut alice = phone.connect(&house).await;
    assert!(alice.present);
    alice.send_again(packet_id, &topic, b"once").await;
    alice.expect(Heard::PubRec(packet_id, ReasonCode::Success)).await;
    house.kill_and_start().await;
    let mut alice = phone.connect(&house).await;
    alice.send(&Packet::PubRel(ack(packet_id))).await;
    alice.expect(Heard::PubComp(packet_id)).await;
    house.kill_and_start().await;

    // PUBCOMP freed the packet id: the same one means another message. [MQTT-4.3.3-11]
    let mut alice = phone.connect(&house).await;
    let other = alice.send_publish(&topic, b"another", QoS::ExactlyOnce).await;
    assert_eq!(other, packet_id);
    alice.expect(Heard::PubRec(packet_id, ReasonCode::Success)).await;

    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    assert_eq!(bob.receive_payloads(2).await, ["once", "another"]);
    alice.publish(&topic, b"the last", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "the last");
}

async fn a_message_that_comes_again_because_of_a_kill_is_known_by_its_offset(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"once", QoS::ExactlyOnce).await;
    let once = bob.receive().await;
    assert_eq!(once.text(), "once");
    house.kill_and_start().await;
    let mut bob = phone.connect(&house).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"another", QoS::ExactlyOnce).await;
    // How far the session had come is kept every few seconds: what it did since may come again, as it was.
    let mut next = bob.receive().await;
    if next.text() == "once" {
        assert_eq!(next.user_properties, once.user_properties);
        next = bob.receive().await;
    }
    assert_eq!(next.text(), "another");
    assert_ne!(next.user_property("sotto-offset"), once.user_property("sotto-offset"));
}

async fn what_is_published_again_under_its_id_arrives_once(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    phone.connect(&house).await.subscribe(&topic, QoS::AtLeastOnce).await;
    let id = Uuid::from_u128(7).to_string();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        alice.publish_named(&topic, b"once", qos, &id).await;
    }
    // Another user's message of the same name is another message.
    let mut carol = Login::of(&house, "carol", "phone").connect(&house).await;
    carol.publish_named(&topic, b"hers", QoS::AtLeastOnce, &id).await;
    house.kill_and_start().await;
    // Another device of the same user, without a session.
    let mut alice = Login::of(&house, "alice", "tablet").connect(&house).await;
    alice.publish_named(&topic, b"once", QoS::AtLeastOnce, &id).await;
    alice.publish(&topic, b"the last", QoS::AtLeastOnce).await;
    let mut bob = phone.connect(&house).await;
    assert_eq!(bob.receive_payloads(3).await, ["once", "hers", "the last"]);

    let refused = alice.send_named(&topic, b"x", QoS::AtLeastOnce, "no uuid").await;
    assert_eq!(alice.answer(refused).await, ReasonCode::ImplementationSpecificError);
    assert_eq!(house.metrics().await.count("sotto_messages_repeated_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_in_flight_than_the_client_takes() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").receive_maximum(2).connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut carol = Login::of(&house, "carol", "phone").connect(&house).await;
    carol.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for number in 0..6 {
        let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        alice.publish(&topic, &[b'0' + number], qos).await;
    }
    // Where nothing is held back, all six have come.
    assert_eq!(carol.receive_payloads(6).await.len(), 6);
    let mut waiting = vec![bob.message().await, bob.message().await];
    bob.ping().await;
    // [MQTT-3.3.4-9]
    assert!(bob.has_nothing_aside());
    let mut received = Vec::new();
    while let Some(message) = waiting.first().cloned() {
        waiting.remove(0);
        bob.acknowledge(&message).await;
        received.push(message.text());
        if received.len() + waiting.len() < 6 {
            waiting.push(bob.message().await);
            // Exactly one took the free place.
            bob.ping().await;
            assert!(bob.has_nothing_aside());
        }
    }
    assert_eq!(received, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_over_the_announced_size_ends_the_connection_with_its_reason() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    for version in VERSIONS {
        let mut alice = Login::of(&house, "alice", "phone").version(version).connect(&house).await;
        alice.send_publish(&topic, &vec![b'x'; 1100 * 1024], QoS::AtLeastOnce).await;
        if version == Version::V5 {
            assert_eq!(alice.next().await, Heard::Disconnect(ReasonCode::PacketTooLarge));
        }
        assert_eq!(alice.next().await, Heard::Closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_for_a_client_is_left_out_and_the_next_one_comes() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let small = Login::of(&house, "bob", "phone").property(Property::MaximumPacketSize(1024));
    let mut bob = small.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, &[b'x'; 2048], QoS::AtLeastOnce).await;
    alice.publish(&topic, b"small", QoS::AtLeastOnce).await;
    // [MQTT-3.1.2-25]
    assert_eq!(bob.receive().await.text(), "small");
    assert_eq!(
        house.metrics().await.count("sotto_messages_dropped_total{cause=\"too_large_for_client\"}"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_subscribers_are_told_place_sender_and_time() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let users = house.sotto(&["user", "list", "--tenant", "demo"]).await;
    let rows = users.as_array().expect("rows");
    let row = rows.iter().find(|row| row["user"] == "alice").expect("alice");
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let mut offsets = Vec::new();
    for _ in 0..2 {
        alice.publish(&topic, b"hello", QoS::AtLeastOnce).await;
        let message = bob.receive().await;
        assert_eq!(message.user_property("sotto-from"), row["id"].as_str());
        let at: u64 = message.user_property("sotto-at").and_then(|at| at.parse().ok()).expect("a time");
        // After this was written, and in milliseconds.
        assert!(at > 1_700_000_000_000 && at < 10_000_000_000_000);
        let offset = message.user_property("sotto-offset").and_then(|offset| offset.parse::<u64>().ok());
        offsets.push(offset.expect("an offset"));
    }
    assert!(offsets[0] < offsets[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsubscribed_topic_does_not_come() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let other = format!("c/{}/m", house.add_conversation(&["alice", "bob"]).await);
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.subscribe(&other, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"subscribed", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "subscribed");
    bob.unsubscribe(&topic).await;
    alice.publish(&topic, b"unsubscribed", QoS::AtLeastOnce).await;
    alice.publish(&other, b"sign", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "sign");
}
