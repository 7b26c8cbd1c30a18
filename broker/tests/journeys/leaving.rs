//! A broker that is told to go: who is told what, how fast, and what is finished before.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::{soon, until};
use crate::support::phone::{Heard, LastWill, Login, Phone};

/// So many clients of the demo tenant.
async fn crowd(house: &House, size: usize) -> Vec<Phone> {
    let mut phones = Vec::with_capacity(size);
    for number in 0..size {
        phones.push(Login::of(house, "alice", &format!("phone-{number}")).connect(house).await);
    }
    phones
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_to_another_server_and_none_is_told_twice() {
    let mut house = House::open(Kind::Sqlite).await;
    let crowd = crowd(&house, 5).await;
    let mut plain = Login::of(&house, "bob", "phone").v3().connect(&house).await;
    let drained = house.sotto(&["drain", "--to", "other.example.org:8883"]).await;
    assert_eq!((drained["sent_away"].as_u64(), drained["left"].as_u64()), (Some(6), Some(0)));
    for mut phone in crowd {
        assert_eq!(phone.next().await, Heard::Disconnect(ReasonCode::UseAnotherServer));
        assert_eq!(phone.server_reference.as_deref(), Some("other.example.org:8883"));
        assert_eq!(phone.next().await, Heard::Closed);
    }
    assert_eq!(plain.next().await, Heard::Closed, "3.1.1 has no word for it");
    assert!(house.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_keeps_to_its_rate_and_a_signal_ends_the_waiting() {
    let mut house = House::open(Kind::Sqlite).await;
    let crowd = crowd(&house, 30).await;
    let (mut told, mut waiting) = (Vec::new(), Vec::new());
    {
        let drain = house.sotto(&["drain", "--rate", "5"]);
        let watch = async {
            // Five a second: of thirty some are told, and most are not.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            for mut phone in crowd {
                match phone.next_within(Duration::from_millis(1)).await {
                    Some(heard) => told.push(heard),
                    None => waiting.push(phone),
                }
            }
            assert!((5..=20).contains(&told.len()), "{} are told", told.len());
            assert_eq!(house.get("/health/ready").await.0, 503);
            house.signal("-TERM").await;
            for phone in &mut waiting {
                assert_eq!(phone.next().await, Heard::Disconnect(ReasonCode::ServerShuttingDown));
            }
        };
        let both = Box::pin(async { tokio::join!(drain, watch) });
        let (drained, ()) = soon("a drain that is hurried", both).await;
        assert_eq!(drained["sent_away"].as_u64(), Some(30));
    }
    assert!(told.iter().all(|heard| *heard == Heard::Disconnect(ReasonCode::ServerShuttingDown)));
    assert!(house.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_grace_it_says_that_it_is_not_ready_and_still_serves() {
    let mut house = House::configured(Kind::Sqlite, "[drain]\ngrace_seconds = 60\n").await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    assert_eq!(house.get("/health/ready").await.0, 200);
    house.signal("-TERM").await;
    until("it is not ready", async || house.get("/health/ready").await.0 == 503).await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    alice.ping().await;
    bob.ping().await;
    house.signal("-TERM").await;
    for phone in [&mut alice, &mut bob] {
        assert_eq!(phone.next().await, Heard::Disconnect(ReasonCode::ServerShuttingDown));
    }
    assert!(house.ended().await.success());
}

async fn what_was_sent_before_is_answered_before_the_client_is_sent_away(kind: Kind) {
    const MESSAGES: usize = 200;
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let login = Login::of(&house, "bob", "phone").lasting();
    let mut bob = login.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let mut sent = Vec::new();
    for number in 0..MESSAGES {
        sent.push(alice.send_publish(&topic, number.to_string().as_bytes(), QoS::AtLeastOnce).await);
        if number == MESSAGES / 2 {
            house.signal("-TERM").await;
        }
    }
    let mut acknowledged = 0;
    loop {
        match alice.next().await {
            Heard::PubAck(packet_id, reason) => {
                assert_eq!(packet_id, sent[acknowledged], "in the order in which they came");
                assert!(!reason.is_error());
                acknowledged += 1;
            }
            Heard::Disconnect(reason) => {
                assert_eq!(reason, ReasonCode::ServerShuttingDown);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(alice.next().await, Heard::Closed);
    assert!(acknowledged > 0);
    assert!(house.ended().await.success());
    house.start().await;
    let mut bob = login.connect(&house).await;
    assert!(bob.present);
    let mut stored = 0;
    while let Some(heard) = bob.next_within(Duration::from_secs(2)).await {
        let Heard::Publish(message) = heard else { panic!("{heard:?}") };
        assert_eq!(message.text(), stored.to_string());
        bob.acknowledge(&message).await;
        stored += 1;
    }
    assert_eq!(stored, acknowledged, "who was sent away knows what was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_of_who_is_sent_away_is_published_unless_it_waits_for_a_session_that_is_kept() {
    let mut house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let login = Login::of(&house, "bob", "phone").lasting();
    let mut bob = login.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let will = |payload: &str| LastWill {
        topic: topic.clone(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    let at_once = Login::of(&house, "alice", "at-once").will(will("at once")).connect(&house).await;
    let waits = Login::of(&house, "alice", "waits").lasting().will(will("later")).will_delay(3000);
    let waiting = waits.connect(&house).await;
    house.signal("-TERM").await;
    assert!(house.ended().await.success());
    drop((at_once, waiting));
    house.start().await;
    let mut bob = login.connect(&house).await;
    assert_eq!(bob.receive().await.text(), "at once");
    assert!(bob.next_within(Duration::from_secs(1)).await.is_none(), "the other may still come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_makes_no_sense_is_refused_and_without_a_broker_there_is_none() {
    let mut house = House::open(Kind::Sqlite).await;
    let (_, _, error) = house.sotto_failing(&["drain", "--to", ""]).await;
    assert!(error.contains("to:"), "{error}");
    assert_eq!(house.get("/health/ready").await.0, 200);
    house.kill().await;
    let (code, _, error) = house.sotto_failing(&["drain"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("no broker runs"), "{error}");
}

on_both_stores!(what_was_sent_before_is_answered_before_the_client_is_sent_away);
