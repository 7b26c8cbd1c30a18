//! rumqttc, a client that others wrote, in both versions.

use std::time::Duration;

use rumqttc::{TlsConfiguration, v5};
use tokio::sync::mpsc;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::soon;

on_both_stores!(
    version_5_clients_talk_in_every_quality_of_service,
    version_3_1_1_clients_talk_in_every_quality_of_service,
);

/// Requests, and payloads received, that wait.
const QUEUE_MAX: usize = 64;
const PAYLOADS: [&str; 3] = ["at most once", "at least once", "exactly once"];

async fn version_5_clients_talk_in_every_quality_of_service(kind: Kind) {
    use v5::mqttbytes::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    let house = House::open(kind).await;
    let (bob, mut received) = v5_client(&house, "bob").await;
    bob.subscribe("c/+/m", ExactlyOnce).await.expect("subscribe");
    assert_eq!(soon("SUBACK", received.recv()).await.as_deref(), Some("subscribed"));
    let (alice, _acknowledged) = v5_client(&house, "alice").await;
    for (payload, qos) in PAYLOADS.into_iter().zip([AtMostOnce, AtLeastOnce, ExactlyOnce]) {
        alice.publish(house.topic(), qos, false, payload).await.expect("publish");
        assert_eq!(soon(payload, received.recv()).await.as_deref(), Some(payload));
    }
}

async fn version_3_1_1_clients_talk_in_every_quality_of_service(kind: Kind) {
    use rumqttc::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    let house = House::open(kind).await;
    let (bob, mut received) = v3_client(&house, "bob").await;
    bob.subscribe("c/+/m", ExactlyOnce).await.expect("subscribe");
    assert_eq!(soon("SUBACK", received.recv()).await.as_deref(), Some("subscribed"));
    let (alice, _acknowledged) = v3_client(&house, "alice").await;
    for (payload, qos) in PAYLOADS.into_iter().zip([AtMostOnce, AtLeastOnce, ExactlyOnce]) {
        alice.publish(house.topic(), qos, false, payload).await.expect("publish");
        assert_eq!(soon(payload, received.recv()).await.as_deref(), Some(payload));
    }
}

/// What it receives; `connected` first, and `subscribed` for a SUBACK, come in the same queue.
async fn v5_client(house: &House, user: &str) -> (v5::AsyncClient, mpsc::Receiver<String>) {
    use v5::mqttbytes::v5::Packet;
    let mut options = v5::MqttOptions::new(format!("{user}/rumqttc"), "localhost", house.mqtts().port());
    options
        .set_credentials(format!("{user}@demo"), house.password(user))
        .set_keep_alive(Duration::from_secs(30))
        .set_transport(rumqttc::Transport::tls_with_config(TlsConfiguration::Rustls(house.tls())));
    let (client, mut events) = v5::AsyncClient::new(options, QUEUE_MAX);
    let (queue, mut received) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            let told = match event {
                v5::Event::Incoming(Packet::ConnAck(_)) => "connected".to_owned(),
                v5::Event::Incoming(Packet::SubAck(_)) => "subscribed".to_owned(),
                v5::Event::Incoming(Packet::Publish(publish)) => {
                    String::from_utf8_lossy(&publish.payload).into_owned()
                }
                _ => continue,
            };
            if queue.send(told).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(soon("CONNACK", received.recv()).await.as_deref(), Some("connected"));
    (client, received)
}

async fn v3_client(house: &House, user: &str) -> (rumqttc::AsyncClient, mpsc::Receiver<String>) {
    use rumqttc::Packet;
    let mut options = rumqttc::MqttOptions::new(format!("{user}/rumqttc"), "localhost", house.mqtts().port());
    options
        .set_credentials(format!("{user}@demo"), house.password(user))
        .set_keep_alive(Duration::from_secs(30))
        .set_transport(rumqttc::Transport::tls_with_config(TlsConfiguration::Rustls(house.tls())));
    let (client, mut events) = rumqttc::AsyncClient::new(options, QUEUE_MAX);
    let (queue, mut received) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            let told = match event {
                rumqttc::Event::Incoming(Packet::ConnAck(_)) => "connected".to_owned(),
                rumqttc::Event::Incoming(Packet::SubAck(_)) => "subscribed".to_owned(),
                rumqttc::Event::Incoming(Packet::Publish(publish)) => {
                    String::from_utf8_lossy(&publish.payload).into_owned()
                }
                _ => continue,
            };
            if queue.send(told).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(soon("CONNACK", received.recv()).await.as_deref(), Some("connected"));
    (client, received)
}
