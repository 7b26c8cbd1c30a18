//! A log that forgets: who missed something is told, and nobody is stuck.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::packet::Packet;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, Phone, ack};

on_both_stores!(
    a_session_that_fell_off_is_told_and_goes_on,
    a_qos_2_message_that_has_gone_while_it_was_in_flight_ends_well,
    a_legal_hold_keeps_all_until_it_is_lifted,
    days_below_the_minimum_are_refused_by_name,
);

const NO_MINIMUM: &str = "[retention]\nminimum_days = 0\n";
/// Of what four messages take at least.
const BYTES: &str = "4000";

async fn publish(alice: &mut Phone, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let payload = format!("{number:01000}");
        alice.publish(topic, payload.as_bytes(), QoS::AtLeastOnce).await;
    }
}

fn number(payload: &str) -> u64 {
    payload.trim_start_matches('0').parse().expect("a number")
}

async fn demo(house: &House, field: &str) -> u64 {
    let tenants = house.sotto(&["tenant", "list"]).await;
    let rows = tenants.as_array().expect("rows");
    let demo = rows.iter().find(|row| row["tenant"] == "demo").expect("the demo tenant");
    demo[field].as_u64().unwrap_or_else(|| panic!("{field} in {demo}"))
}

async fn trim(house: &House) -> u64 {
    house.sotto(&["tenant", "retention", "demo", "--bytes", BYTES]).await;
    // A round that is under way counts what there was when it began; the next begins when it is asked to.
    until("all but the last messages have gone", async || {
        house.sotto(&["tenant", "retention", "demo", "--bytes", BYTES]).await;
        demo(house, "history_from").await >= 16
    })
    .await;
    demo(house, "history_from").await
}

async fn a_session_that_fell_off_is_told_and_goes_on(kind: Kind) {
    let mut house = House::configured(kind, NO_MINIMUM).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let old_phone = Login::of(&house, "carol", "old").v3();
    for login in [&phone, &old_phone] {
        let mut there = login.connect(&house).await;
        there.subscribe("c/+/m", QoS::AtLeastOnce).await;
        assert_eq!(there.history_from, None);
        there.disconnect().await;
    }
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    publish(&mut alice, &topic, 1..=20).await;
    let first = trim(&house).await;
    // What the process knows it finds again when it starts.
    house.kill_and_start().await;

    let mut bob = phone.connect(&house).await;
    assert!(bob.present);
    assert_eq!(bob.history_from, Some(first));
    let mut carol = old_phone.connect(&house).await;
    for there in [&mut bob, &mut carol] {
        for expected in first..=20 {
            let message = there.receive().await;
            assert_eq!((number(&message.text()), message.dup), (expected, false));
        }
    }
    let metrics = house.metrics().await;
    assert_eq!(metrics.count("sotto_history_missed_offsets_total"), 2 * (first - 1));
    assert_eq!(metrics.count("sotto_history_missed_sessions_total"), 2);

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    publish(&mut alice, &topic, 21..=21).await;
    assert_eq!(number(&bob.receive().await.text()), 21);
    bob.disconnect().await;
    let bob = phone.connect(&house).await;
    assert_eq!(bob.history_from, None, "it has caught up");
}

async fn a_qos_2_message_that_has_gone_while_it_was_in_flight_ends_well(kind: Kind) {
    let house = House::configured(kind, NO_MINIMUM).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting().receive_maximum(1);
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, &[b'0'; 999], QoS::ExactlyOnce).await;
    let first = bob.message().await;
    let packet_id = first.packet_id.expect("of QoS 2");
    bob.disconnect().await;
    for number in 2..=20 {
        alice.publish(&topic, format!("{number:01000}").as_bytes(), QoS::ExactlyOnce).await;
    }
    let history_from = trim(&house).await;

    // The client may hold the message under this packet id: it is to let go of it.
    let mut bob = phone.connect(&house).await;
    assert_eq!(bob.history_from, Some(history_from));
    bob.expect(Heard::PubRel(packet_id)).await;
    bob.send(&Packet::PubComp(ack(packet_id))).await;
    for expected in history_from..=20 {
        let message = bob.receive().await;
        assert_eq!((number(&message.text()), message.qos), (expected, QoS::ExactlyOnce));
    }
    bob.disconnect().await;
    let mut bob = phone.connect(&house).await;
    bob.ping().await;
    assert!(bob.has_nothing_aside());
}

async fn a_legal_hold_keeps_all_until_it_is_lifted(kind: Kind) {
    /// Many times what a round takes.
    const A_WHILE: Duration = Duration::from_millis(500);
    let mut house = House::configured(kind, NO_MINIMUM).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    publish(&mut alice, &topic, 1..=20).await;

    house.sotto(&["tenant", "hold", "demo", "on"]).await;
    house.sotto(&["tenant", "retention", "demo", "--bytes", "1"]).await;
    tokio::time::sleep(A_WHILE).await;
    house.kill_and_start().await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(demo(&house, "history_from").await, 1);
    assert_eq!(house.sotto(&["tenant", "list"]).await[0]["legal_hold"], true);
    let mut bob = phone.connect(&house).await;
    assert_eq!(bob.history_from, None);
    assert_eq!(bob.receive_payloads(20).await.len(), 20);

    house.sotto(&["tenant", "hold", "demo", "off"]).await;
    until("most has gone", async || demo(&house, "history_from").await >= 16).await;
    let audit = house.sotto(&["audit", "--tenant", "demo", "--limit", "3"]).await;
    let actions: Vec<_> = audit.as_array().expect("rows").iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["tenant.legal_hold_lifted", "tenant.retention_changed", "tenant.legal_hold_set"]);
}

async fn days_below_the_minimum_are_refused_by_name(kind: Kind) {
    let house = House::open(kind).await;
    let (code, _, error) = house.sotto_failing(&["tenant", "retention", "demo", "--days", "29"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("minimum_days is 30"), "{error}");
    assert_eq!(demo(&house, "retention_days").await, 0);
    house.sotto(&["tenant", "retention", "demo", "--days", "90", "--bytes", "5000000"]).await;
    house.sotto(&["tenant", "retention", "demo", "--days", "91"]).await;
    assert_eq!(demo(&house, "retention_days").await, 91);
    assert_eq!(demo(&house, "retention_bytes").await, 5_000_000);
    house.sotto(&["tenant", "retention", "demo", "--default"]).await;
    assert_eq!((demo(&house, "retention_days").await, demo(&house, "retention_bytes").await), (0, 0));
}
