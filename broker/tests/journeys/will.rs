//! The will of a client that goes without a word.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Disconnect, Packet, Version};
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, LastWill, Login};

on_both_stores!(
    a_will_is_published_for_who_vanishes_and_not_for_who_says_goodbye,
    a_delayed_will_is_published_when_its_session_ends_or_its_delay_has_passed,
    a_delayed_will_is_not_published_for_who_comes_back_or_may_not_publish_any_more,
    a_will_survives_a_kill_if_its_session_does,
);

/// Longer than the delays here and the looks for what is due.
const PATIENCE: Duration = Duration::from_secs(4);

async fn a_will_is_published_for_who_vanishes_and_not_for_who_says_goodbye(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "tablet").connect(&house).await;
    let will = |payload: &str| LastWill {
        topic: topic.clone(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    for version in [Version::V3, Version::V5] {
        let phone = Login::of(&house, "alice", "phone").version(version).clean_start();
        let vanishing = format!("vanished, {version:?}");
        phone.clone().will(will(&vanishing)).connect(&house).await.vanish();
        // [MQTT-3.1.2-8]
        assert_eq!(bob.receive().await.text(), vanishing);

        // [MQTT-3.1.2-10]
        phone.clone().will(will("said goodbye")).connect(&house).await.disconnect().await;
        alice.publish(&topic, b"sign", QoS::AtLeastOnce).await;
        assert_eq!(bob.receive().await.text(), "sign");

        // Whoever breaks the protocol is closed, and has a will too.
        let breaking = format!("broke the protocol, {version:?}");
        let mut broken = phone.clone().will(will(&breaking)).connect(&house).await;
        broken.send_bytes(&[0xF0 | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF]).await;
        assert_eq!(bob.receive().await.text(), breaking);
    }

    let asking = Login::of(&house, "alice", "phone").will(will("asked for"));
    let mut asking = asking.connect(&house).await;
    let reason = ReasonCode::DisconnectWithWillMessage;
    asking.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY })).await;
    asking.expect(Heard::Closed).await;
    assert_eq!(bob.receive().await.text(), "asked for");
}

async fn a_delayed_will_is_published_when_its_session_ends_or_its_delay_has_passed(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut tablet = Login::of(&house, "alice", "tablet").connect(&house).await;
    let phone = |payload: &str, delay| {
        Login::of(&house, "alice", "phone").will(will(&topic, payload)).will_delay(delay)
    };

    // Not before its delay, which begins with DISCONNECT too where that asks for the will.
    phone("vanished", 1).lasting().connect(&house).await.vanish();
    tablet.publish(&topic, b"sign", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "sign");
    assert_eq!(bob.receive().await.text(), "vanished");
    let mut asking = phone("asked for", 1).lasting().connect(&house).await;
    let reason = ReasonCode::DisconnectWithWillMessage;
    asking.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY })).await;
    tablet.publish(&topic, b"sign", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "sign");
    assert_eq!(bob.receive().await.text(), "asked for");

    // The session ends before the delay does: with its connection, by its expiry, by a clean start.
    phone("unstored", 3600).clean_start().connect(&house).await.vanish();
    assert_eq!(bob.receive().await.text(), "unstored");
    phone("expired", 3600).expiry(1).connect(&house).await.vanish();
    assert_eq!(bob.receive().await.text(), "expired");
    phone("discarded", 3600).lasting().connect(&house).await.vanish();
    let phone = Login::of(&house, "alice", "phone").lasting();
    let phone = phone.clean_start().connect(&house).await;
    assert_eq!(bob.receive().await.text(), "discarded");
    phone.disconnect().await;
}

async fn a_delayed_will_is_not_published_for_who_comes_back_or_may_not_publish_any_more(kind: Kind) {
    let house = House::open(kind).await;
    let conversation = house.add_conversation(&["alice", "bob", "carol"]).await;
    let topic = format!("c/{conversation}/m");
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let phone = Login::of(&house, "alice", "phone").lasting();
    let with_will = |delay| phone.clone().will(will(&topic, "from alice")).will_delay(delay);
    with_will(2).connect(&house).await.vanish();
    let mut alice = with_will(2).connect(&house).await;
    assert!(alice.present);
    // Taken over by herself.
    let taking_over = phone.connect(&house).await;
    assert!(taking_over.present);
    alice.expect(Heard::Closed).await;
    let carol = Login::of(&house, "carol", "phone").lasting().will(will(&topic, "from carol"));
    carol.clone().will_delay(2).connect(&house).await.vanish();
    house.remove_member(&conversation, "carol").await;
    assert_eq!(bob.next_within(PATIENCE).await, None);
    taking_over.disconnect().await;

    // A takeover publishes a will that has no delay.
    let mut old = with_will(0).connect(&house).await;
    let _new = phone.connect(&house).await;
    old.expect(Heard::Closed).await;
    assert_eq!(bob.receive().await.text(), "from alice");
}

async fn a_will_survives_a_kill_if_its_session_does(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let subscriber = Login::of(&house, "bob", "phone").lasting();
    let mut bob = subscriber.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let alice = |device| Login::of(&house, "alice", device).lasting();
    let (gone, present, returning) = (alice("gone"), alice("present"), alice("returning"));
    let gone = gone.will(will(&topic, "gone before the kill")).will_delay(3).connect(&house).await;
    let present = present.will(will(&topic, "present at the kill")).connect(&house).await;
    let back = returning.clone().will(will(&topic, "came back")).will_delay(3).connect(&house).await;
    gone.vanish();
    house.connections_come_to(3).await;
    house.kill_and_start().await;
    drop((present, back));
    assert!(returning.connect(&house).await.present);

    let mut bob = subscriber.connect(&house).await;
    let wills = bob.receive_payloads(2).await;
    assert_eq!(wills, ["present at the kill", "gone before the kill"]);
    assert_eq!(bob.next_within(PATIENCE).await, None, "each once, and none for who came back");
    house.kill_and_start().await;
    let mut bob = subscriber.connect(&house).await;
    assert_eq!(bob.next_within(Duration::from_secs(1)).await, None);
}

fn will(topic: &str, payload: &str) -> LastWill {
    LastWill {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_that_its_user_may_not_publish_is_refused_at_connect() {
    let house = House::open(Kind::Sqlite).await;
    let conversation = house.add_conversation(&["bob", "carol"]).await;
    let will = LastWill {
        topic: format!("c/{conversation}/m"),
        payload: b"from outside".to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    let refused = Login::of(&house, "alice", "phone").will(will).try_connect(&house).await;
    assert_eq!(refused.err(), Some(ReasonCode::NotAuthorized));
}
