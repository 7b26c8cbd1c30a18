//! Subscribers that do not keep up.

use std::collections::VecDeque;

use sotto_model::QoS;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, Login, Phone};

on_both_stores!(
    a_subscriber_that_does_not_read_costs_no_memory_and_loses_nothing,
    a_subscriber_that_takes_one_at_a_time_loses_nothing,
);

const MESSAGES: usize = 5000;
/// 80 MB in all: more than the recent log in memory, which holds 64 MiB once for all sessions.
const LARGE_BYTES: usize = 16_000;
const SMALL_BYTES: usize = 100;
/// What a subscriber that does not read may cost: what is on its way to it, a mailbox of 512 KiB, and what the
/// allocator and the database's caches vary by. With an unbounded mailbox it is 52 MB and more.
const MORE_BYTES_MAX: usize = 40 * 1024 * 1024;
/// PUBLISH packets that wait for their PUBACK.
const OUTSTANDING_MAX: usize = 100;

async fn a_subscriber_that_does_not_read_costs_no_memory_and_loses_nothing(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    // Fills the recent log and the database's caches.
    publish_all(&house, &topic, LARGE_BYTES).await;
    let before = house.resident_bytes_max();
    let login = Login::of(&house, "bob", "phone").lasting().keep_alive(0);
    let mut bob = login.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    publish_all(&house, &topic, LARGE_BYTES).await;
    let more = house.resident_bytes_max() - before;
    assert!(more < MORE_BYTES_MAX, "{more} bytes more than {before}");
    receive_all(&mut bob, LARGE_BYTES).await;
    let more = house.resident_bytes_max() - before;
    assert!(more < MORE_BYTES_MAX, "{more} bytes more than {before}");
    nothing_else_comes(&house, &topic, &mut bob).await;
}

async fn a_subscriber_that_takes_one_at_a_time_loses_nothing(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let login = Login::of(&house, "bob", "phone").lasting().receive_maximum(1);
    let mut bob = login.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let publishing = publish_all(&house, &topic, SMALL_BYTES);
    tokio::join!(publishing, receive_all(&mut bob, SMALL_BYTES));
    nothing_else_comes(&house, &topic, &mut bob).await;
}

async fn publish_all(house: &House, topic: &str, bytes: usize) {
    let mut alice = Login::of(house, "alice", "phone").connect(house).await;
    let mut outstanding = VecDeque::new();
    for number in 0..MESSAGES {
        if outstanding.len() == OUTSTANDING_MAX {
            let oldest = outstanding.pop_front().expect("some are outstanding");
            alice.expect(Heard::PubAck(oldest, ReasonCode::Success)).await;
        }
        let payload = format!("{number:0bytes$}");
        outstanding.push_back(alice.send_publish(topic, payload.as_bytes(), QoS::AtLeastOnce).await);
    }
    for packet_id in outstanding {
        alice.expect(Heard::PubAck(packet_id, ReasonCode::Success)).await;
    }
}

async fn receive_all(phone: &mut Phone, bytes: usize) {
    for number in 0..MESSAGES {
        let message = phone.receive().await;
        assert_eq!(message.payload.len(), bytes);
        let text = message.text();
        assert_eq!(text.trim_start_matches('0'), number.to_string().trim_start_matches('0'));
    }
}

async fn nothing_else_comes(house: &House, topic: &str, phone: &mut Phone) {
    let mut carol = Login::of(house, "carol", "phone").connect(house).await;
    carol.publish(topic, b"the last", QoS::AtLeastOnce).await;
    assert_eq!(phone.receive().await.text(), "the last");
}
