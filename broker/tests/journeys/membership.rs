//! Who is a member of a conversation hears it, from then on and until then.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::until_within;
use crate::support::phone::{Heard, Login};

on_both_stores!(
    a_member_who_is_added_hears_from_then_on_without_a_new_subscribe,
    a_member_who_is_removed_hears_nothing_past_the_removal_nor_what_was_queued,
    what_was_said_in_the_absence_of_a_member_is_not_for_them,
    a_user_who_is_removed_is_closed_and_cannot_come_back,
);

/// A change holds within this, for connected sessions too.
const WITHIN: Duration = Duration::from_secs(1);

async fn a_member_who_is_added_hears_from_then_on_without_a_new_subscribe(kind: Kind) {
    let house = House::open(kind).await;
    let conversation = house.add_conversation(&["alice"]).await;
    let topic = format!("c/{conversation}/m");
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    let mut carol = Login::of(&house, "carol", "phone").lasting().connect(&house).await;
    carol.subscribe("c/#", QoS::AtLeastOnce).await;
    carol.disconnect().await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"before", QoS::AtLeastOnce).await;
    house.add_member(&conversation, "bob").await;
    house.add_member(&conversation, "carol").await;
    alice.publish(&topic, b"after", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "after");
    let mut carol = Login::of(&house, "carol", "phone").lasting().connect(&house).await;
    assert!(carol.present);
    assert_eq!(carol.receive().await.text(), "after");
}

async fn a_member_who_is_removed_hears_nothing_past_the_removal_nor_what_was_queued(kind: Kind) {
    let house = House::open(kind).await;
    let conversation = house.add_conversation(&["alice", "bob", "carol"]).await;
    let (topic, common) = (format!("c/{conversation}/m"), house.topic());
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    let sleeping = Login::of(&house, "bob", "tablet").lasting();
    let mut tablet = sleeping.connect(&house).await;
    tablet.subscribe("c/+/m", QoS::AtLeastOnce).await;
    tablet.disconnect().await;
    let full = Login::of(&house, "bob", "watch").receive_maximum(1);
    let mut watch = full.connect(&house).await;
    watch.subscribe("c/+/m", QoS::AtLeastOnce).await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for payload in ["queued, one", "queued, two"] {
        alice.publish(&topic, payload.as_bytes(), QoS::AtLeastOnce).await;
        assert_eq!(bob.receive().await.text(), payload);
    }
    let in_flight = watch.message().await;
    assert_eq!(in_flight.text(), "queued, one");
    house.remove_member(&conversation, "bob").await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        alice.publish(&topic, b"past the removal", qos).await;
    }
    alice.publish(&common, b"to all", QoS::AtLeastOnce).await;
    // The next that they hear is of a conversation that they are still in.
    assert_eq!(bob.receive().await.text(), "to all");
    let mut tablet = sleeping.connect(&house).await;
    assert!(tablet.present);
    assert_eq!(tablet.receive().await.text(), "to all");
    watch.acknowledge(&in_flight).await;
    assert_eq!(watch.receive().await.text(), "to all");
    // Nor may they speak or subscribe.
    assert_eq!(bob.subscribe(&topic, QoS::AtLeastOnce).await, ReasonCode::NotAuthorized.code());
    let packet_id = bob.send_publish(&topic, b"from outside", QoS::AtLeastOnce).await;
    bob.expect(Heard::PubAck(packet_id, ReasonCode::NotAuthorized)).await;
    let mut carol = Login::of(&house, "carol", "phone").connect(&house).await;
    carol.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.publish(&topic, b"among members", QoS::AtLeastOnce).await;
    assert_eq!(carol.receive().await.text(), "among members");
}

async fn what_was_said_in_the_absence_of_a_member_is_not_for_them(kind: Kind) {
    let house = House::open(kind).await;
    let conversation = house.add_conversation(&["alice", "bob"]).await;
    let topic = format!("c/{conversation}/m");
    let login = Login::of(&house, "bob", "phone").lasting();
    let mut bob = login.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"as a member", QoS::AtLeastOnce).await;
    house.remove_member(&conversation, "bob").await;
    alice.publish(&topic, b"in his absence", QoS::AtLeastOnce).await;
    house.add_member(&conversation, "bob").await;
    alice.publish(&topic, b"as a member again", QoS::AtLeastOnce).await;
    let mut bob = login.connect(&house).await;
    assert!(bob.present);
    assert_eq!(bob.receive().await.text(), "as a member again");
}

async fn a_user_who_is_removed_is_closed_and_cannot_come_back(kind: Kind) {
    let house = House::open(kind).await;
    let login = Login::of(&house, "bob", "phone").lasting();
    let mut bob = login.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    house.sotto(&["user", "remove", "--tenant", "demo", "bob"]).await;
    let told = bob.next_within(WITHIN).await;
    assert_eq!(told, Some(Heard::Disconnect(ReasonCode::NotAuthorized)));
    assert_eq!(bob.next().await, Heard::Closed);
    let refused = login.try_connect(&house).await;
    assert_eq!(refused.err(), Some(ReasonCode::BadUserNameOrPassword));
    alice.publish(&house.topic(), b"without bob", QoS::AtLeastOnce).await;
    assert_eq!(house.get("/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_past_the_broker_holds_within_a_second() {
    // On PostgreSQL another process may administer: it is followed by the directory's revision.
    let house = House::open(Kind::Postgres).await;
    let conversation = house.add_conversation(&["alice", "bob"]).await;
    let topic = format!("c/{conversation}/m");
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"as a member", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "as a member");
    let removal = ["member", "remove", "--tenant", "demo", "--conversation", &conversation, "bob"];
    house.sotto_elsewhere(&removal).await;
    until_within(WITHIN, "the removal is followed", async || {
        let packet_id = bob.send_publish(&topic, b"from outside", QoS::AtLeastOnce).await;
        bob.answer(packet_id).await == ReasonCode::NotAuthorized
    })
    .await;
}
