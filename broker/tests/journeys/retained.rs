//! Retained messages.

use std::time::Duration;

use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::properties::{Property, PropertyBuf};
use sotto_mqtt::packet::{Packet, Publish};
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, Login, Phone};

on_both_stores!(
    a_retained_message_greets_each_subscriber_until_it_is_cleared,
    a_retained_message_in_flight_is_sent_again_as_one,
    an_expired_retained_message_greets_nobody_across_a_kill,
    what_was_retained_before_somebody_joined_is_not_shown,
);

async fn a_retained_message_greets_each_subscriber_until_it_is_cleared(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone");
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish_retained(&topic, b"first").await;
    alice.publish_retained(&topic, b"second").await;
    for payload in ["first", "second"] {
        let live = bob.receive().await;
        // It was not sent because of a new subscription. [MQTT-3.3.1-12]
        assert_eq!((live.text().as_str(), live.retain), (payload, false));
    }
    bob.disconnect().await;

    for filter in [topic.as_str(), "c/+/m", "c/#"] {
        let mut bob = phone.connect(&house).await;
        bob.subscribe(filter, QoS::AtLeastOnce).await;
        assert_eq!(greeting(&mut bob).await, "second");
        bob.disconnect().await;
    }
    house.kill_and_start().await;
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    assert_eq!(greeting(&mut bob).await, "second");

    // An empty one clears, and is delivered to whoever subscribes already. [MQTT-3.3.1-6]
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish_retained(&topic, b"").await;
    let cleared = bob.receive().await;
    assert_eq!((cleared.payload.len(), cleared.retain), (0, false));
    bob.disconnect().await;
    house.kill_and_start().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.publish(&topic, b"nothing before this", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "nothing before this");
}

async fn a_retained_message_in_flight_is_sent_again_as_one(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish_retained(&topic, b"retained").await;
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let first = bob.message().await;
    alice.publish(&topic, b"live", QoS::AtLeastOnce).await;
    let second = bob.message().await;
    assert_eq!((first.retain, second.retain), (true, false));
    bob.vanish();
    for _ in 0..2 {
        let mut bob = phone.connect(&house).await;
        for sent in [&first, &second] {
            let again = bob.message().await;
            assert!(again.dup);
            assert_eq!((again.retain, &again.payload), (sent.retain, &sent.payload));
        }
        bob.disconnect().await;
        house.kill_and_start().await;
    }
}

async fn an_expired_retained_message_greets_nobody_across_a_kill(kind: Kind) {
    const LIFE: Duration = Duration::from_secs(1);
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let lasting = format!("{topic}/lasting");
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let mut properties = PropertyBuf::new();
    properties.push(Property::MessageExpiryInterval(u32::try_from(LIFE.as_secs()).expect("fits")));
    alice
        .send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: &topic,
            packet_id: Some(PacketId::FIRST),
            properties: properties.as_properties(),
            payload: b"brief",
        }))
        .await;
    alice.expect(Heard::PubAck(PacketId::FIRST, ReasonCode::Success)).await;
    alice.publish_retained(&lasting, b"lasting").await;
    house.kill_and_start().await;
    tokio::time::sleep(LIFE).await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe("c/#", QoS::AtLeastOnce).await;
    // By topic, the expired one would be the first.
    assert_eq!(greeting(&mut bob).await, "lasting");
}

async fn what_was_retained_before_somebody_joined_is_not_shown(kind: Kind) {
    let house = House::open(kind).await;
    let conversation = house.add_conversation(&["alice", "bob"]).await;
    let topic = format!("c/{conversation}/m");
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish_retained(&topic, b"before").await;
    house.add_member(&conversation, "carol").await;
    alice.publish_retained(&format!("{topic}/later"), b"after").await;
    for (user, greetings) in [("bob", ["before", "after"].as_slice()), ("carol", ["after"].as_slice())] {
        let mut phone = Login::of(&house, user, "phone").connect(&house).await;
        phone.subscribe("c/#", QoS::AtLeastOnce).await;
        for greeted in greetings {
            assert_eq!(greeting(&mut phone).await, *greeted);
        }
        alice.publish(&topic, b"sign", QoS::AtLeastOnce).await;
        assert_eq!(phone.receive().await.text(), "sign");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_is_retained_a_page_of_it_is_held() {
    const MESSAGES: usize = 2000;
    const BYTES: usize = 40 * 1024;
    /// A page, the buffers on its way, and SQLite's cache; all that is retained is twice this.
    const GROWTH_MAX: usize = MESSAGES * BYTES / 2;
    let mut house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for number in 0..MESSAGES {
        alice.publish_retained(&format!("{topic}/{number}"), &vec![b'x'; BYTES]).await;
    }
    house.kill_and_start().await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let before = house.resident_bytes_max();
    bob.subscribe("c/#", QoS::AtLeastOnce).await;
    for _ in 0..MESSAGES {
        assert_eq!(greeting(&mut bob).await.len(), BYTES);
    }
    let growth = house.resident_bytes_max() - before;
    assert!(growth < GROWTH_MAX, "{growth} bytes");
}

/// What is sent because of the subscription.
async fn greeting(phone: &mut Phone) -> String {
    let message = phone.receive().await;
    // [MQTT-3.3.1-8]
    assert!(message.retain && !message.dup);
    message.text()
}
