//! The will of a client that goes without a word.

use sotto_model::QoS;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Disconnect, Packet, Version};
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, LastWill, Login};

on_both_stores!(a_will_is_published_for_who_vanishes_and_not_for_who_says_goodbye);

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
