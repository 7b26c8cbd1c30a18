//! Sessions: how long they last, and whose they are.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::codec::properties::{Property, PropertyBuf};
use sotto_mqtt::packet::{Disconnect, Packet, Version};
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::{SOON, until};
use crate::support::phone::{Heard, Login};

on_both_stores!(
    a_session_lasts_as_long_as_was_asked_for,
    a_clean_start_discards_what_was,
    a_takeover_ends_the_old_connection_and_goes_on_with_the_session,
    what_was_acknowledged_is_there_after_a_graceful_end,
);

async fn a_session_lasts_as_long_as_was_asked_for(kind: Kind) {
    let mut house = House::open(kind).await;
    let logins = [
        (Login::of(&house, "bob", "a").v3(), true),
        (Login::of(&house, "bob", "b").v3().clean_start(), false),
        (Login::of(&house, "bob", "c").lasting(), true),
        (Login::of(&house, "bob", "d").lasting().clean_start(), true),
        (Login::of(&house, "bob", "e"), false),
    ];
    for (login, _) in &logins {
        let bob = login.connect(&house).await;
        assert!(!bob.present);
        bob.disconnect().await;
    }
    house.kill_and_start().await;
    for (login, lasts) in logins {
        // Whether it is there is seen by a connection that does not clean it away.
        let bob = login.resume().connect(&house).await;
        assert_eq!(bob.present, lasts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_time_is_over_and_may_be_ended_by_goodbye() {
    let house = House::open(Kind::Sqlite).await;
    let brief = Login::of(&house, "bob", "brief").expiry(1);
    let bob = brief.connect(&house).await;
    let mut ended = Login::of(&house, "bob", "ended").lasting().connect(&house).await;
    until("both sessions are known", async || house.sessions().await == 2).await;
    bob.disconnect().await;
    let mut properties = PropertyBuf::new();
    properties.push(Property::SessionExpiryInterval(0));
    let goodbye = Disconnect { reason: ReasonCode::Success, properties: properties.as_properties() };
    ended.send(&Packet::Disconnect(goodbye)).await;
    ended.expect(Heard::Closed).await;
    until("both sessions are gone", async || house.sessions().await == 0).await;
    for device in ["brief", "ended"] {
        assert!(!Login::of(&house, "bob", device).lasting().connect(&house).await.present);
    }
}

async fn a_clean_start_discards_what_was(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"discarded", QoS::AtLeastOnce).await;

    let mut bob = phone.clone().clean_start().connect(&house).await;
    assert!(!bob.present);
    // Neither what was queued nor the subscription is left.
    alice.publish(&topic, b"not subscribed", QoS::AtLeastOnce).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    alice.publish(&topic, b"subscribed anew", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "subscribed anew");
    bob.disconnect().await;
    let mut bob = phone.connect(&house).await;
    assert!(bob.present);
    alice.publish(&topic, b"to the new session", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "to the new session");
}

async fn a_takeover_ends_the_old_connection_and_goes_on_with_the_session(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut old = phone.connect(&house).await;
    old.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"not acknowledged", QoS::AtLeastOnce).await;
    let unacknowledged = old.message().await;

    let mut new = phone.connect(&house).await;
    assert!(new.present);
    // [MQTT-3.1.4-3]
    assert_eq!(old.next().await, Heard::Disconnect(ReasonCode::SessionTakenOver));
    assert_eq!(old.next().await, Heard::Closed);
    let again = new.receive().await;
    assert!(again.dup);
    assert_eq!((again.packet_id, &again.payload), (unacknowledged.packet_id, &unacknowledged.payload));
    alice.publish(&topic, b"to the new connection", QoS::AtLeastOnce).await;
    assert_eq!(new.receive().await.text(), "to the new connection");

    // In 3.1.1 there is no DISCONNECT from a server.
    let phone = Login::of(&house, "carol", "phone").v3();
    let mut old = phone.connect(&house).await;
    let new = phone.connect(&house).await;
    assert!(new.present);
    assert_eq!(old.next().await, Heard::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_over_the_session_of_somebody_else() {
    let house = House::open(Kind::Sqlite).await;
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    let refused = Login::of(&house, "alice", "phone").client_id("bob/phone").try_connect(&house).await;
    assert_eq!(refused.err(), Some(ReasonCode::ClientIdentifierNotValid));
    bob.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_for_one_and_a_half_keep_alives_is_closed() {
    /// One and a half times 2 s, less a second: seconds are counted whole.
    const SURELY_OPEN: Duration = Duration::from_millis(1900);
    /// From there to a second past the time, and the sweep's round.
    const SURELY_CLOSED: Duration = Duration::from_millis(3600);
    let house = House::open(Kind::Sqlite).await;
    for version in [Version::V3, Version::V5] {
        let silent = Login::of(&house, "bob", "silent").version(version).keep_alive(2);
        let mut silent = silent.connect(&house).await;
        assert_eq!(silent.next_within(SURELY_OPEN).await, None);
        // [MQTT-3.1.2-22]
        let told = silent.next_within(SURELY_CLOSED).await.expect("closed in time");
        if version == Version::V5 {
            assert_eq!(told, Heard::Disconnect(ReasonCode::KeepAliveTimeout));
            assert_eq!(silent.next().await, Heard::Closed);
        } else {
            assert_eq!(told, Heard::Closed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pings_in_time_stays_and_without_keep_alive_nobody_has_to() {
    const SILENCE: Duration = Duration::from_millis(1500);
    let house = House::open(Kind::Sqlite).await;
    let mut pinging = Login::of(&house, "bob", "pinging").keep_alive(2).connect(&house).await;
    let mut without = Login::of(&house, "bob", "without").keep_alive(0).connect(&house).await;
    for _ in 0..3 {
        assert_eq!(pinging.next_within(SILENCE).await, None);
        pinging.ping().await;
    }
    without.ping().await;
}

async fn what_was_acknowledged_is_there_after_a_graceful_end(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut carol = Login::of(&house, "carol", "phone").v3().connect(&house).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"received", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "received");
    bob.ping().await;
    alice.publish(&topic, b"in flight", QoS::ExactlyOnce).await;
    let in_flight = bob.message().await;

    // The broker reads these, or it has sent DISCONNECT first: what it acknowledges, it keeps.
    let mut sent = Vec::new();
    for number in 0..20 {
        let payload = format!("just before the end {number}");
        let packet_id = alice.send_publish(&topic, payload.as_bytes(), QoS::AtLeastOnce).await;
        sent.push((packet_id, payload));
    }
    let status = house.terminate().await;
    assert_eq!(status.code(), Some(0));
    let mut acknowledged = 0;
    loop {
        match alice.next().await {
            Heard::PubAck(packet_id, ReasonCode::Success) => {
                // In order, so that a count says which.
                assert_eq!(packet_id, sent[acknowledged].0);
                acknowledged += 1;
            }
            heard => {
                assert_eq!(heard, Heard::Disconnect(ReasonCode::ServerShuttingDown));
                break;
            }
        }
    }
    assert_eq!(alice.next().await, Heard::Closed);
    bob.expect(Heard::Disconnect(ReasonCode::ServerShuttingDown)).await;
    assert_eq!(carol.next().await, Heard::Closed);

    house.start().await;
    let mut bob = phone.connect(&house).await;
    assert!(bob.present);
    let again = bob.receive().await;
    assert!(again.dup);
    assert_eq!((again.packet_id, &again.payload), (in_flight.packet_id, &in_flight.payload));
    let received = bob.receive_payloads(acknowledged).await;
    let payloads: Vec<String> = sent.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(received, payloads[..acknowledged]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_end_is_soon_though_a_client_does_not_listen() {
    let mut house = House::open(Kind::Sqlite).await;
    let deaf = Login::of(&house, "bob", "phone").connect(&house).await;
    let ended = tokio::time::timeout(SOON, house.terminate()).await.expect("in time");
    assert_eq!(ended.code(), Some(0));
    deaf.vanish();
}
