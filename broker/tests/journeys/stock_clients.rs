//! rumqttc, a client in Rust that others wrote, in both versions.

use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport, v5};
use sotto_model::QoS;
use sotto_mqtt::packet::Version;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::soon;

on_both_stores!(
    version_5_clients_find_all_that_they_ask_for,
    version_3_1_1_clients_find_all_that_they_ask_for
);

/// Requests, and things told, that wait.
const QUEUE_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const SESSION_SECONDS: u32 = 3600;

async fn version_5_clients_find_all_that_they_ask_for(kind: Kind) {
    find_all_that_they_ask_for(kind, Version::V5).await;
}

async fn version_3_1_1_clients_find_all_that_they_ask_for(kind: Kind) {
    find_all_that_they_ask_for(kind, Version::V3).await;
}

async fn find_all_that_they_ask_for(kind: Kind, version: Version) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let bobs = Asked { lasting: true, ..Asked::of(version, "bob") };
    let mut bob = bobs.connect(&house).await;
    bob.subscribe("c/+/m").await;
    let mut alice = Asked::of(version, "alice").connect(&house).await;
    for (payload, qos) in [
        ("at most once", QoS::AtMostOnce),
        ("at least once", QoS::AtLeastOnce),
        ("exactly once", QoS::ExactlyOnce),
    ] {
        alice.publish(&topic, payload, qos, false).await;
        bob.expect(&format!("{qos:?}: {payload}")).await;
    }
    alice.expect("acknowledged").await;

    let pinned = format!("c/{}/pinned", house.conversation());
    alice.publish(&pinned, "kept", QoS::AtLeastOnce, true).await;
    alice.expect("acknowledged").await;
    let mut carol = Asked::of(version, "carol").connect(&house).await;
    carol.subscribe(&pinned).await;
    carol.expect("AtLeastOnce, retained: kept").await;

    let will = Some((topic.clone(), "last will"));
    Asked { will, ..Asked::of(version, "alice-tablet") }.connect(&house).await.vanish();
    bob.expect("AtLeastOnce: last will").await;

    bob.disconnect().await;
    for number in 0..3 {
        alice.publish(&topic, &format!("missed {number}"), QoS::AtLeastOnce, false).await;
        alice.expect("acknowledged").await;
    }
    let mut bob = bobs.connect_to(&house, "taken up").await;
    for number in 0..3 {
        bob.expect(&format!("AtLeastOnce: missed {number}")).await;
    }
}

/// What a client asks for in CONNECT.
#[derive(Clone)]
struct Asked {
    version: Version,
    user: &'static str,
    device: &'static str,
    lasting: bool,
    will: Option<(String, &'static str)>,
}

struct Stock {
    client: Client,
    /// What came, told in words; no acknowledgement is told but PUBACK.
    told: mpsc::Receiver<String>,
    events: JoinHandle<()>,
}

enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Asked {
    /// `user`, or `user-device`.
    fn of(version: Version, name: &'static str) -> Self {
        let (user, device) = name.split_once('-').unwrap_or((name, "rumqttc"));
        Self { version, user, device, lasting: false, will: None }
    }

    async fn connect(&self, house: &House) -> Stock {
        self.connect_to(house, "connected").await
    }

    async fn connect_to(&self, house: &House, session: &str) -> Stock {
        let (tell, told) = mpsc::channel(QUEUE_MAX);
        let (client, events) = match self.version {
            Version::V3 => self.version_3(house, tell),
            Version::V5 => self.version_5(house, tell),
        };
        let mut stock = Stock { client, told, events };
        stock.expect(session).await;
        stock
    }

    fn client_id(&self) -> String {
        format!("{}/{}", self.user, self.device)
    }

    fn version_3(&self, house: &House, tell: mpsc::Sender<String>) -> (Client, JoinHandle<()>) {
        use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet};
        let mut options = MqttOptions::new(self.client_id(), "localhost", house.mqtts().port());
        options
            .set_credentials(format!("{}@demo", self.user), house.password(self.user))
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(!self.lasting)
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(house.tls())));
        if let Some((topic, payload)) = &self.will {
            options.set_last_will(LastWill::new(topic, *payload, rumqttc::QoS::AtLeastOnce, false));
        }
        let (client, mut events) = AsyncClient::new(options, QUEUE_MAX);
        let events = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                let told = match event {
                    Event::Incoming(Packet::ConnAck(connack)) => connected(connack.session_present),
                    Event::Incoming(Packet::SubAck(_)) => "subscribed".to_owned(),
                    Event::Incoming(Packet::PubAck(_)) => "acknowledged".to_owned(),
                    Event::Incoming(Packet::Publish(publish)) => {
                        message(&format!("{:?}", publish.qos), publish.retain, &publish.payload)
                    }
                    _ => continue,
                };
                if tell.send(told).await.is_err() {
                    return;
                }
            }
        });
        (Client::V3(client), events)
    }

    fn version_5(&self, house: &House, tell: mpsc::Sender<String>) -> (Client, JoinHandle<()>) {
        use v5::mqttbytes::v5::{LastWill, Packet};
        use v5::{AsyncClient, Event, MqttOptions};
        let mut options = MqttOptions::new(self.client_id(), "localhost", house.mqtts().port());
        options
            .set_credentials(format!("{}@demo", self.user), house.password(self.user))
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(!self.lasting)
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(house.tls())));
        if self.lasting {
            options.set_session_expiry_interval(Some(SESSION_SECONDS));
        }
        if let Some((topic, payload)) = &self.will {
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            options.set_last_will(LastWill::new(topic, *payload, qos, false, None));
        }
        let (client, mut events) = AsyncClient::new(options, QUEUE_MAX);
        let events = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                let told = match event {
                    Event::Incoming(Packet::ConnAck(connack)) => connected(connack.session_present),
                    Event::Incoming(Packet::SubAck(_)) => "subscribed".to_owned(),
                    Event::Incoming(Packet::PubAck(_)) => "acknowledged".to_owned(),
                    Event::Incoming(Packet::Publish(publish)) => {
                        message(&format!("{:?}", publish.qos), publish.retain, &publish.payload)
                    }
                    _ => continue,
                };
                if tell.send(told).await.is_err() {
                    return;
                }
            }
        });
        (Client::V5(client), events)
    }
}

impl Stock {
    async fn subscribe(&mut self, filter: &str) {
        match &self.client {
            Client::V3(client) => client.subscribe(filter, rumqttc::QoS::ExactlyOnce).await.expect("ask"),
            Client::V5(client) => {
                client.subscribe(filter, v5::mqttbytes::QoS::ExactlyOnce).await.expect("ask");
            }
        }
        self.expect("subscribed").await;
    }

    async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, retain: bool) {
        match &self.client {
            Client::V3(client) => {
                let qos = rumqttc::qos(qos as u8).expect("a QoS");
                client.publish(topic, qos, retain, payload).await.expect("ask");
            }
            Client::V5(client) => {
                let qos = v5::mqttbytes::qos(qos as u8).expect("a QoS");
                client.publish(topic, qos, retain, payload.to_owned()).await.expect("ask");
            }
        }
    }

    async fn expect(&mut self, told: &str) {
        assert_eq!(soon(told, self.told.recv()).await.as_deref(), Some(told));
    }

    /// DISCONNECT, after which the broker closes.
    async fn disconnect(self) {
        match &self.client {
            Client::V3(client) => client.disconnect().await.expect("ask"),
            Client::V5(client) => client.disconnect().await.expect("ask"),
        }
        soon("the end of the connection", self.events).await.expect("it does not panic");
    }

    /// The socket goes without a word.
    fn vanish(self) {
        self.events.abort();
    }
}

fn connected(session_present: bool) -> String {
    if session_present { "taken up" } else { "connected" }.to_owned()
}

fn message(qos: &str, retain: bool, payload: &[u8]) -> String {
    let retained = if retain { ", retained" } else { "" };
    format!("{qos}{retained}: {}", String::from_utf8_lossy(payload))
}
