//! Shared subscriptions: workers that come and go, and a broker that is killed.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::packet::Packet;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::mosquitto::{self, Subscriber};
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, Message, Phone, ack};

on_both_stores!(
    stored_members_lose_nothing_to_a_kill_and_what_was_done_stays_done,
    a_graceful_restart_repeats_nothing_and_gives_what_is_left_to_whoever_comes,
    a_kill_under_members_at_work_loses_nothing,
);

const JOBS: &str = "$share/workers/jobs/#";
/// Progress is kept within it.
const KEPT_WITHIN: Duration = Duration::from_secs(4);
/// Long enough for a message that is on its way to come.
const A_WHILE: Duration = Duration::from_millis(700);

async fn lab(kind: Kind) -> House {
    House::configured(kind, "lab = true\n").await
}

async fn worker(house: &House, name: &str) -> Phone {
    let mut worker = Login::anonymous(name).lasting().connect(house).await;
    if !worker.present {
        assert_eq!(worker.subscribe(JOBS, QoS::AtLeastOnce).await, 1);
    }
    worker
}

async fn publish(house: &House, numbers: std::ops::Range<u32>) {
    let mut publisher = Login::anonymous("publisher").connect(house).await;
    for number in numbers {
        publisher.publish("jobs/x", number.to_string().as_bytes(), QoS::AtLeastOnce).await;
    }
    publisher.disconnect().await;
}

/// What comes until nothing comes for a while; acknowledged if so wished.
async fn drain(worker: &mut Phone, acknowledge: bool) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(heard) = worker.next_within(A_WHILE).await {
        let Heard::Publish(message) = heard else { panic!("{heard:?}") };
        if acknowledge {
            worker.acknowledge(&message).await;
        }
        messages.push(message);
    }
    messages
}

fn numbers(messages: &[Message]) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        messages.iter().map(|message| message.text().parse().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

async fn stored_members_lose_nothing_to_a_kill_and_what_was_done_stays_done(kind: Kind) {
    let mut house = lab(kind).await;
    let mut workers = [worker(&house, "one").await, worker(&house, "two").await];
    publish(&house, 0..20).await;
    for worker in &mut workers {
        assert_eq!(drain(worker, true).await.len(), 10);
    }
    tokio::time::sleep(KEPT_WITHIN).await;
    publish(&house, 20..30).await;
    for worker in &mut workers {
        assert_eq!(drain(worker, false).await.len(), 5);
    }
    house.kill_and_start().await;
    // Nobody is there, and nobody was since the start.
    publish(&house, 30..40).await;
    let [mut one, mut two] = [worker(&house, "one").await, worker(&house, "two").await];
    assert!(one.present && two.present);
    let (of_one, of_two) = tokio::join!(drain(&mut one, true), drain(&mut two, true));
    let all = [of_one, of_two].concat();
    assert!(all.iter().all(|message| !message.dup));
    assert_eq!(numbers(&all), (20..40).collect::<Vec<_>>());
}

async fn a_graceful_restart_repeats_nothing_and_gives_what_is_left_to_whoever_comes(kind: Kind) {
    let mut house = lab(kind).await;
    let (mut one, two) = (worker(&house, "one").await, worker(&house, "two").await);
    two.disconnect().await;
    publish(&house, 0..10).await;
    for message in drain(&mut one, false).await {
        // All but one, and not the oldest first.
        if message.text() != "4" {
            one.acknowledge(&message).await;
        }
    }
    one.ping().await;
    assert!(house.terminate().await.success());
    house.start().await;
    let mut two = worker(&house, "two").await;
    let left = drain(&mut two, true).await;
    assert_eq!(numbers(&left), [4]);
    let mut one = worker(&house, "one").await;
    assert_eq!(drain(&mut one, true).await, []);
}

async fn a_kill_under_members_at_work_loses_nothing(kind: Kind) {
    let mut house = lab(kind).await;
    let mut done = Vec::new();
    for round in 0..3 {
        let (mut one, mut two) = (worker(&house, "one").await, worker(&house, "two").await);
        publish(&house, round * 100..round * 100 + 100).await;
        for _ in 0..30 {
            done.push(one.receive().await);
            done.push(two.receive().await);
        }
        house.kill_and_start().await;
    }
    let (mut one, mut two) = (worker(&house, "one").await, worker(&house, "two").await);
    done.extend(drain(&mut one, true).await);
    done.extend(drain(&mut two, true).await);
    let mut numbers = numbers(&done);
    // What was done within the last seconds before a kill comes again.
    numbers.dedup();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_is_not_there_after_a_restart() {
    let mut house = lab(Kind::Sqlite).await;
    let mut one = worker(&house, "one").await;
    one.unsubscribe(JOBS).await;
    publish(&house, 0..3).await;
    house.kill_and_start().await;
    let mut one = worker(&house, "one").await;
    assert_eq!(one.subscribe(JOBS, QoS::AtLeastOnce).await, 1);
    assert_eq!(drain(&mut one, true).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_neither_lost_nor_given_to_another_by_a_kill_once_the_member_has_it() {
    let mut house = lab(Kind::Sqlite).await;
    let one = Login::anonymous("one").lasting();
    let mut first = one.connect(&house).await;
    first.subscribe(JOBS, QoS::ExactlyOnce).await;
    let mut publisher = Login::anonymous("publisher").connect(&house).await;
    publisher.publish("jobs/x", b"exactly once", QoS::ExactlyOnce).await;
    let sent = first.message().await;
    let mut other = Login::anonymous("other").lasting().connect(&house).await;
    other.subscribe(JOBS, QoS::ExactlyOnce).await;
    tokio::time::sleep(KEPT_WITHIN).await;
    house.kill_and_start().await;
    let mut other = Login::anonymous("other").lasting().connect(&house).await;
    assert_eq!(other.next_within(A_WHILE).await, None);
    // [MQTT-4.8.2-4]
    let mut first = one.connect(&house).await;
    assert_eq!(first.message().await, Message { dup: true, ..sent.clone() });
    let packet_id = sent.packet_id.expect("of QoS 2");
    first.send(&Packet::PubRec(ack(packet_id))).await;
    first.expect(Heard::PubRel(packet_id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_s_clients_share_where_the_tenant_s_rules_allow_it() {
    if !mosquitto::is_installed() {
        return;
    }
    let house = House::open(Kind::Sqlite).await;
    let mut alice = Login::of(&house, "alice", "tablet").connect(&house).await;
    assert_eq!(alice.subscribe(JOBS, QoS::AtLeastOnce).await, 0x87);
    house.sotto(&["acl", "add", "demo", "allow", "all", "jobs/#"]).await;
    let arguments = ["-q", "1", "-C", "5", "-t", JOBS];
    let workers =
        [Subscriber::start(&house, "bob", &arguments), Subscriber::start(&house, "carol", &arguments)];
    until("both have subscribed", async || house.metrics().await.count("sotto_subscriptions") == 2).await;
    for number in 0..10 {
        alice.publish("jobs/x", number.to_string().as_bytes(), QoS::AtLeastOnce).await;
    }
    let mut lines = Vec::new();
    for worker in workers {
        lines.extend(worker.rest().await.lines().map(str::to_owned));
    }
    lines.sort();
    assert_eq!(lines, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}
