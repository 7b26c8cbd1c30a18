//! Retained messages.

use sotto_model::QoS;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Login, Phone};

on_both_stores!(a_retained_message_greets_each_subscriber_until_it_is_cleared);

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

/// What is sent because of the subscription.
async fn greeting(phone: &mut Phone) -> String {
    let message = phone.receive().await;
    // [MQTT-3.3.1-8]
    assert!(message.retain && !message.dup);
    message.text()
}
