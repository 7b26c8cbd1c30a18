//! Messages for someone who is not there, and a broker that is killed.

use sotto_model::QoS;
use sotto_mqtt::packet::Packet;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::mosquitto::{self, Subscriber};
use crate::support::on_both_stores;
use crate::support::phone::{Heard, Login, Message, ack};

on_both_stores!(
    what_came_while_offline_survives_a_kill_and_comes_in_order_once,
    a_stock_client_finds_what_came_while_it_was_offline,
    a_kill_under_a_connected_subscriber_loses_nothing_and_keeps_the_order,
    whatever_was_acknowledged_before_a_kill_is_there_after_it,
    a_subscriber_that_comes_and_goes_misses_nothing,
    a_kill_at_any_step_of_a_qos_2_delivery_neither_repeats_nor_loses_it,
);

/// Of one publisher, in a burst.
const BURST: usize = 600;
/// PUBLISH packets that wait for their answer.
const OUTSTANDING_MAX: usize = 100;

fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("message {number}")).collect()
}

async fn what_came_while_offline_survives_a_kill_and_comes_in_order_once(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    assert!(!bob.present);
    assert_eq!(bob.subscribe("c/+/m", QoS::AtLeastOnce).await, 1);
    bob.disconnect().await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for payload in numbered(10) {
        alice.publish(&topic, payload.as_bytes(), QoS::AtLeastOnce).await;
    }
    house.kill_and_start().await;

    let mut bob = phone.connect(&house).await;
    assert!(bob.present);
    assert_eq!(bob.receive_payloads(10).await, numbered(10));
    // Whatever would come twice comes before this.
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"the last", QoS::AtLeastOnce).await;
    let last = bob.receive().await;
    assert_eq!((last.text().as_str(), last.dup), ("the last", false));
    bob.disconnect().await;

    let mut bob = phone.connect(&house).await;
    alice.publish(&topic, b"the very last", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "the very last");
}

async fn a_kill_at_any_step_of_a_qos_2_delivery_neither_repeats_nor_loses_it(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"first", QoS::ExactlyOnce).await;
    let first = bob.message().await;
    assert!(!first.dup);
    let packet_id = first.packet_id.expect("of QoS 2");
    house.kill_and_start().await;

    // The client may hold the message under this packet id: it must come under no other, and no other
    // message under this one.
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"second", QoS::ExactlyOnce).await;
    let mut bob = phone.connect(&house).await;
    let again = bob.message().await;
    assert_eq!(again, Message { dup: true, ..first });
    let second = bob.message().await;
    assert_eq!((second.text().as_str(), second.dup), ("second", false));
    assert_ne!(second.packet_id, Some(packet_id));
    bob.send(&Packet::PubRec(ack(packet_id))).await;
    bob.expect(Heard::PubRel(packet_id)).await;
    house.kill_and_start().await;

    // The client has let go of the message: it must not come again.
    let mut bob = phone.connect(&house).await;
    bob.expect(Heard::PubRel(packet_id)).await;
    let again = bob.message().await;
    assert_eq!(again, Message { dup: true, ..second });
    bob.send(&Packet::PubComp(ack(packet_id))).await;
    bob.acknowledge(&again).await;
    bob.disconnect().await;

    let mut bob = phone.connect(&house).await;
    bob.ping().await;
    assert!(bob.has_nothing_aside());
}

async fn a_stock_client_finds_what_came_while_it_was_offline(kind: Kind) {
    if !mosquitto::is_installed() {
        return;
    }
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let lasting = ["-c", "-x", "3600", "-q", "1", "-t", "c/+/m"];
    // -E: goes once the subscription is acknowledged.
    let subscribed = Subscriber::start(&house, "bob", &[&lasting[..], &["-E"]].concat());
    assert_eq!(subscribed.rest().await, "");
    for payload in numbered(10) {
        mosquitto::publish(&house, "alice", &topic, &payload).await;
    }
    house.kill_and_start().await;
    // -C: goes after so many messages.
    let received = Subscriber::start(&house, "bob", &[&lasting[..], &["-C", "10"]].concat());
    assert_eq!(received.rest().await.lines().collect::<Vec<_>>(), numbered(10));
}

async fn a_kill_under_a_connected_subscriber_loses_nothing_and_keeps_the_order(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for payload in numbered(10) {
        alice.publish(&topic, payload.as_bytes(), QoS::AtLeastOnce).await;
    }
    let mut received = bob.receive_payloads(4).await;
    house.kill().await;
    while let Heard::Publish(message) = bob.next().await {
        received.push(message.text());
    }
    house.start().await;

    let mut bob = phone.connect(&house).await;
    assert!(bob.present);
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"the last", QoS::AtLeastOnce).await;
    let mut again = Vec::new();
    while again.last().is_none_or(|last| last != "the last") {
        again.push(bob.receive().await.text());
    }
    assert_eq!(again.pop().as_deref(), Some("the last"));
    // What was acknowledged a moment before the kill may come again; no gap, and no other order.
    let all = numbered(10);
    assert!(all.ends_with(&again), "{again:?} after {received:?}");
    assert!(received.len() + again.len() >= all.len(), "{again:?} after {received:?}");
    assert_eq!(received, all[..received.len()]);
}

async fn whatever_was_acknowledged_before_a_kill_is_there_after_it(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.disconnect().await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let payloads = numbered(BURST);
    let mut sent = Vec::new();
    let mut acknowledged = 0;
    // The kill comes while some wait for their answer.
    while acknowledged < BURST / 2 {
        while sent.len() - acknowledged < OUTSTANDING_MAX && sent.len() < BURST {
            let payload = payloads[sent.len()].as_bytes();
            sent.push(alice.send_publish(&topic, payload, QoS::AtLeastOnce).await);
        }
        alice.expect(Heard::PubAck(sent[acknowledged], ReasonCode::Success)).await;
        acknowledged += 1;
    }
    house.kill().await;
    while let Heard::PubAck(packet_id, ReasonCode::Success) = alice.next().await {
        assert_eq!(packet_id, sent[acknowledged]);
        acknowledged += 1;
    }
    house.start().await;

    let mut bob = phone.connect(&house).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"the last", QoS::AtLeastOnce).await;
    let mut received = Vec::new();
    while received.last().is_none_or(|last| last != "the last") {
        received.push(bob.receive().await.text());
    }
    received.pop();
    // What was committed and not acknowledged may be there: as far as it goes, in order, and once.
    assert!(received.len() >= acknowledged, "{} of {acknowledged}", received.len());
    assert_eq!(received, payloads[..received.len()]);
}

async fn a_subscriber_that_comes_and_goes_misses_nothing(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::ExactlyOnce).await;
    let payloads = numbered(BURST);
    let publishing = async {
        let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
        for (at, payload) in payloads.iter().enumerate() {
            let qos = if at % 3 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            alice.publish(&topic, payload.as_bytes(), qos).await;
        }
    };
    let receiving = async {
        let mut received: Vec<String> = Vec::new();
        let mut stays = 1;
        while received.last() != payloads.last() {
            for _ in 0..stays {
                let message = bob.receive().await;
                // What was acknowledged as the connection ended may come again.
                if !received.contains(&message.text()) {
                    received.push(message.text());
                }
                if received.last() == payloads.last() {
                    break;
                }
            }
            // In turn: the socket goes; the client says goodbye; another connection takes over.
            match stays % 3 {
                0 => std::mem::replace(&mut bob, phone.connect(&house).await).vanish(),
                1 => {
                    bob.disconnect().await;
                    bob = phone.connect(&house).await;
                }
                _ => {
                    bob.vanish();
                    bob = phone.connect(&house).await;
                }
            }
            assert!(bob.present);
            stays += 1;
        }
        received
    };
    let ((), received) = tokio::join!(publishing, receiving);
    assert_eq!(received, payloads);
}
