//! Waking phones that sleep.

use std::time::Duration;

use sotto_model::QoS;

use crate::support::database::{Database, Kind};
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::Login;
use crate::support::push_service::PushService;

on_both_stores!(
    ten_messages_cost_a_sleeping_phone_one_push_that_says_nothing,
    a_push_that_was_due_when_the_broker_was_killed_comes_after_its_restart,
);

/// A claim of a process that died is another's after this (the dispatcher's lease), and a little.
const LEASE: Duration = Duration::from_secs(75);

async fn with_push(kind: Kind, service: &PushService) -> House {
    let mut house = House::closed(Database::create(kind).await, "");
    house.configure(service.config(house.folder()));
    house.start().await;
    house
}

async fn register(house: &House, user: &str, service: &PushService) {
    let of = ["--tenant", "demo", "--user", user, "--device", "phone"];
    let endpoint = service.endpoint();
    house.sotto(&[&["push", "register"][..], &of, &["--endpoint", &endpoint]].concat()).await;
}

async fn ten_messages_cost_a_sleeping_phone_one_push_that_says_nothing(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let topic = house.topic();
    // The sender's own phone sleeps too, and must not be woken by its user's messages.
    register(&house, "alice", &service).await;
    let mut alice = Login::of(&house, "alice", "phone").lasting().connect(&house).await;
    alice.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.disconnect().await;
    let mut alice = Login::of(&house, "alice", "tablet").connect(&house).await;

    register(&house, "bob", &service).await;
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.publish(&topic, b"while connected", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "while connected");
    service.stays_at(0).await;
    bob.disconnect().await;

    for _ in 0..10 {
        alice.publish(&topic, b"while asleep", QoS::AtLeastOnce).await;
    }
    service.comes_to(1).await;
    service.stays_at(1).await;

    let request = service.requests().remove(0);
    assert_eq!(request.body, b"1");
    assert!(request.head.starts_with("POST /push/0190a0b0 HTTP/1.1\r\n"), "{}", request.head);
    let users = house.sotto(&["user", "list", "--tenant", "demo"]).await;
    let ids = users.as_array().expect("rows").iter().map(|row| row["id"].as_str().expect("an id"));
    let conversation = house.conversation();
    let devices = house.sotto(&["push", "list", "--tenant", "demo"]).await;
    let devices = devices.as_array().expect("rows").iter().map(|row| row["device"].as_str().expect("an id"));
    let told = ["alice", "bob", "phone", "demo", "sotto", "c/", "10", conversation.as_str()];
    let whole = request.whole().replace("/push/0190a0b0", "").replace(&service.endpoint_host(), "");
    for word in told.into_iter().chain(ids).chain(devices) {
        assert!(!whole.to_lowercase().contains(word), "{word} in {whole}");
    }

    let mut bob = phone.connect(&house).await;
    assert_eq!(bob.receive_payloads(10).await, vec!["while asleep"; 10]);
    bob.disconnect().await;
    alice.publish(&topic, b"asleep again", QoS::AtLeastOnce).await;
    alice.publish(&topic, b"and again", QoS::AtLeastOnce).await;
    service.comes_to(2).await;
    service.stays_at(2).await;
}

async fn a_push_that_was_due_when_the_broker_was_killed_comes_after_its_restart(kind: Kind) {
    let service = PushService::start().await;
    let mut house = with_push(kind, &service).await;
    let topic = house.topic();
    register(&house, "bob", &service).await;
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"acknowledged, then killed", QoS::AtLeastOnce).await;
    house.kill_and_start().await;

    service.comes_to_within(1, LEASE).await;
    service.stays_at(service.requests().len()).await;
    assert!(service.requests().len() <= 2);
}
