//! More clients than there is room for, and clients that say nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use sotto_mqtt::packet::Version;
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, Phone, dial_from};

const ANOTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn dial(house: &House) -> TcpStream {
    dial_from(house, Ipv4Addr::LOCALHOST).await
}

/// Is the connection ended within `limit`, without a word?
async fn is_closed_within(tcp: &mut TcpStream, limit: Duration) -> bool {
    matches!(tokio::time::timeout(limit, tcp.read_u8()).await, Ok(Err(_)))
}

/// Tries until there is a CONNACK that lets it in.
async fn let_in_within(limit: Duration, house: &House, login: &Login) -> Phone {
    let tries = async {
        loop {
            // Where there is no room it may be closed before TLS.
            if let Some(phone) = try_over(house.tls(), dial(house).await, login).await {
                return phone;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(limit, tries).await.expect("it is let in")
}

async fn try_over(tls: Arc<ClientConfig>, tcp: TcpStream, login: &Login) -> Option<Phone> {
    let mut phone = Phone::try_over(tls, Version::V5, tcp).await?;
    phone.send(&login.packet()).await;
    let heard = phone.next().await;
    matches!(heard, Heard::ConnAck { reason: ReasonCode::Success, .. }).then_some(phone)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_full_of_silent_sockets_lets_a_client_in() {
    let house = House::configured(Kind::Sqlite, "connections_max = 40\n").await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(dial(&house).await);
    }
    // They would be ended after ten seconds anyhow.
    let _alice = let_in_within(Duration::from_secs(8), &house, &Login::of(&house, "alice", "phone")).await;
    let metrics = house.metrics().await;
    assert_eq!(metrics.count("sotto_disconnects_total{reason=\"gave_way\"}"), 1);
    assert!(is_closed_within(&mut silent[0], Duration::from_secs(1)).await, "the first to come gave way");
    assert!(!is_closed_within(&mut silent[39], Duration::from_millis(50)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stop_after_a_byte_do_not_keep_a_client_waiting() {
    let house = House::open(Kind::Sqlite).await;
    let mut stopped = Vec::new();
    // More than there are slots on a machine of two cores; of more cores, as many as they have.
    let slots = 256 * std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..slots + 88 {
        let mut tcp = dial(&house).await;
        tcp.write_all(&[0x16]).await.expect("send");
        stopped.push(tcp);
    }
    until("the slots are taken", async || {
        house.metrics().await.value("sotto_arrivals") >= f64::from(u32::try_from(slots).expect("few"))
    })
    .await;
    // They would be ended after ten seconds anyhow.
    let _alice = let_in_within(Duration::from_secs(8), &house, &Login::of(&house, "alice", "phone")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_its_limit_the_node_says_so_and_when_to_come_back() {
    let house = House::configured(Kind::Sqlite, "connections_max = 2\n").await;
    let alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let _bob = Login::of(&house, "bob", "phone").connect(&house).await;
    let carol = Login::of(&house, "carol", "phone");
    let mut refused = Phone::silent(&house, Version::V5).await;
    refused.send(&carol.packet()).await;
    assert_eq!(refused.next().await, Heard::ConnAck { present: false, reason: ReasonCode::ServerBusy });
    assert!(refused.retry_after_seconds.is_some_and(|seconds| (5..15).contains(&seconds)));
    assert_eq!(refused.next().await, Heard::Closed);
    assert_eq!(carol.clone().v3().try_connect(&house).await.err(), Some(ReasonCode::ServerUnavailable));
    alice.disconnect().await;
    house.connections_come_to(1).await;
    carol.connect(&house).await;
    assert_eq!(house.metrics().await.count("sotto_connections_max"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_over_its_connections_is_closed_before_tls_and_others_are_not() {
    let house = House::configured(Kind::Sqlite, "[addresses]\nconnections_max = 2\n").await;
    let login = Login::of(&house, "alice", "phone");
    let alice = login.connect(&house).await;
    let _silent = dial(&house).await;
    let mut third = dial(&house).await;
    assert!(is_closed_within(&mut third, Duration::from_secs(5)).await);
    let counted = "sotto_connections_closed_unread_total{cause=\"address_connections\"}";
    assert_eq!(house.metrics().await.count(counted), 1);
    let mut other = Phone::silent_from(&house, Version::V5, ANOTHER).await;
    other.send(&Login::of(&house, "bob", "phone").packet()).await;
    assert_eq!(other.next().await, Heard::ConnAck { present: false, reason: ReasonCode::Success });
    alice.disconnect().await;
    house.connections_come_to(1).await;
    login.connect(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_connects_too_fast_is_closed_before_tls() {
    let config = "[addresses]\nconnects_per_second = 1\nconnects_burst = 3\n";
    let house = House::configured(Kind::Sqlite, config).await;
    let mut closed = 0_u64;
    for _ in 0..10 {
        let mut tcp = dial(&house).await;
        closed += u64::from(is_closed_within(&mut tcp, Duration::from_millis(100)).await);
    }
    // A second or two may pass meanwhile.
    assert!((4..=7).contains(&closed), "{closed} of ten");
    let counted = "sotto_connections_closed_unread_total{cause=\"address_rate\"}";
    assert_eq!(house.metrics().await.count(counted), closed);
    let_in_within(Duration::from_secs(10), &house, &Login::of(&house, "alice", "phone")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_too_many_failed_logins_an_address_is_refused_for_a_while() {
    let house = House::configured(Kind::Sqlite, "[addresses]\nfailed_logins_max = 3\n").await;
    let right = Login::of(&house, "alice", "phone");
    right.connect(&house).await.disconnect().await;
    let wrong = Login::with("alice@demo", "alice/phone", "a guess");
    for _ in 0..3 {
        assert_eq!(wrong.try_connect(&house).await.err(), Some(ReasonCode::BadUserNameOrPassword));
    }
    let mut barred = Phone::silent(&house, Version::V5).await;
    barred.send(&right.packet()).await;
    assert_eq!(barred.next().await, Heard::ConnAck { present: false, reason: ReasonCode::QuotaExceeded });
    assert!(barred.retry_after_seconds.is_some_and(|seconds| (200..=300).contains(&seconds)));
    assert_eq!(barred.next().await, Heard::Closed);
    assert_eq!(right.clone().v3().try_connect(&house).await.err(), Some(ReasonCode::ServerUnavailable));
    let mut other = Phone::silent_from(&house, Version::V5, ANOTHER).await;
    other.send(&right.packet()).await;
    assert_eq!(other.next().await, Heard::ConnAck { present: false, reason: ReasonCode::Success });
    until("it is written down", async || {
        let rows = house.sotto(&["audit"]).await;
        let rows = rows.as_array().expect("rows");
        rows.iter().filter(|row| row["action"] == "connect.address_barred").count() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_does_not_wait_for_who_has_not_come_to_connect() {
    let mut house = House::open(Kind::Sqlite).await;
    let _silent = dial(&house).await;
    let mut begun = dial(&house).await;
    begun.write_all(&[0x16, 3, 1]).await.expect("send");
    let _established = Phone::silent(&house, Version::V5).await;
    let status = tokio::time::timeout(Duration::from_secs(6), house.terminate()).await;
    assert!(status.expect("it does not wait for them").success());
}
