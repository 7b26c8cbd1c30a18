//! What a connection promises, shown by packets over real sockets and a real store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_model::{ClientLimits, PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{Ack, Connect, Packet, Publish, Subscribe, SubscribeFilters, Version};
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::App;
use crate::clock::SystemClock;
use crate::config::{Config, Push, Tls};

/// Longer than anything here takes, shorter than what a connection that ends waits for at most.
const SOON: Duration = Duration::from_secs(4);

struct Broker {
    app: App,
    _data: tempfile::TempDir,
}

impl Broker {
    async fn start() -> Self {
        // The process's provider is another test's too.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let data = tempfile::tempdir().expect("temporary folder");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("address");
        let config = Config {
            data: data.path().join("data"),
            mqtts: any,
            private: any,
            plain: Some(any),
            lab: true,
            demo: false,
            database_url: None,
            connections_max: None,
            tls: Tls::default(),
            push: Push { allow_networks: Vec::new(), extra_ca: None },
            limits: ClientLimits::DEFAULT,
        };
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let app = App::start(config, Arc::new(SystemClock::new()), metrics).await.expect("starts");
        Self { app, _data: data }
    }

    async fn connect(&self, client: &Client) -> Connected {
        let address = self.app.addresses.plain.expect("plain MQTT is on");
        let mut connected = Connected {
            socket: TcpStream::connect(address).await.expect("connect"),
            version: client.version,
            input: Vec::new(),
        };
        let mut properties = PropertyBuf::new();
        if client.version == Version::V5 {
            properties.push(Property::ReceiveMaximum(client.receive_maximum));
            if !client.clean {
                properties.push(Property::SessionExpiryInterval(3600));
            }
        }
        let connect = Connect {
            version: client.version,
            clean_start: client.clean,
            keep_alive: 60,
            client_id: client.id,
            will: None,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        connected.send(&Packet::Connect(connect)).await;
        let connack = connected.next().await.expect("CONNACK");
        assert!(connack.starts_with("CONNACK 0x00"), "{connack}");
        connected
    }
}

struct Client {
    id: &'static str,
    version: Version,
    clean: bool,
    receive_maximum: u16,
}

impl Client {
    fn new(id: &'static str, version: Version) -> Self {
        Self { id, version, clean: true, receive_maximum: 100 }
    }
}

struct Connected {
    socket: TcpStream,
    version: Version,
    input: Vec<u8>,
}

impl Connected {
    async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.socket.write_all(&bytes).await.expect("write");
    }

    async fn publish(&mut self, topic: &str, qos: QoS, packet_id: u16, retain: bool, payload: &[u8]) {
        let packet_id = PacketId::new(packet_id);
        let publish =
            Publish { dup: false, qos, retain, topic, packet_id, properties: Properties::EMPTY, payload };
        self.send(&Packet::Publish(publish)).await;
    }

    async fn acknowledge(&mut self, kind: fn(Ack<'static>) -> Packet<'static>, packet_id: u16) {
        let packet_id = PacketId::new(packet_id).expect("not zero");
        self.send(&kind(Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY })).await;
    }

    /// Sends SUBSCRIBE; its SUBACK is for the caller to await.
    async fn subscribe(&mut self, filter: &str, options: SubscriptionOptions) {
        let mut raw = Vec::new();
        let filters = SubscribeFilters::encode(&[(filter, options)], &mut raw);
        let packet_id = PacketId::FIRST;
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters })).await;
    }

    /// The next packet in brief; `None` when the connection has ended.
    async fn next(&mut self) -> Option<String> {
        tokio::time::timeout(SOON, async {
            loop {
                let decoded = decode(&self.input, self.version, PACKET_BYTES_MAX).expect("well formed");
                if let Some((packet, len)) = decoded {
                    let brief = brief(&packet);
                    self.input.drain(..len);
                    return Some(brief);
                }
                if self.socket.read_buf(&mut self.input).await.expect("read") == 0 {
                    return None;
                }
            }
        })
        .await
        .expect("a packet comes soon")
    }

    /// Everything up to the first packet that begins with `last`.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.last().is_none_or(|packet: &String| !packet.starts_with(last)) {
            packets.push(self.next().await.expect("the connection lives"));
        }
        packets
    }
}

fn brief(packet: &Packet<'_>) -> String {
    let number = |id: PacketId| id.0.get();
    match packet {
        Packet::ConnAck(connack) => {
            format!("CONNACK 0x{:02x} {}", connack.reason.code(), connack.session_present)
        }
        Packet::Publish(publish) => {
            let payload = String::from_utf8_lossy(publish.payload.get(..8).unwrap_or(publish.payload));
            format!("PUBLISH {} {payload}", publish.topic)
        }
        Packet::PubAck(ack) => format!("PUBACK {} 0x{:02x}", number(ack.packet_id), ack.reason.code()),
        Packet::PubRec(ack) => format!("PUBREC {} 0x{:02x}", number(ack.packet_id), ack.reason.code()),
        Packet::PubComp(ack) => format!("PUBCOMP {} 0x{:02x}", number(ack.packet_id), ack.reason.code()),
        Packet::SubAck(suback) => format!("SUBACK {:?}", suback.reasons),
        Packet::Disconnect(disconnect) => format!("DISCONNECT 0x{:02x}", disconnect.reason.code()),
        other => format!("{other:?}"),
    }
}

fn qos(qos: QoS) -> SubscriptionOptions {
    let retain_handling = RetainHandling::SendAtSubscribe;
    SubscriptionOptions { qos, no_local: false, retain_as_published: false, retain_handling }
}

#[tokio::test]
async fn retained_messages_of_qos_0_arrive_however_many_writes_they_take() {
    let broker = Broker::start().await;
    let mut client = broker.connect(&Client::new("retained", Version::V5)).await;
    for number in 0..60 {
        client.publish(&format!("r/{number}"), QoS::AtMostOnce, 0, true, &[b'x'; 4000]).await;
    }
    client.publish("r/last", QoS::AtLeastOnce, 1, true, b"x").await;
    client.until("PUBACK").await;
    client.subscribe("r/#", qos(QoS::AtMostOnce)).await;
    client.until("SUBACK").await;
    for _ in 0..61 {
        assert!(client.next().await.expect("alive").starts_with("PUBLISH r/"));
    }
}

#[tokio::test]
async fn a_3_1_1_client_may_send_any_number_of_qos_2_messages_before_its_first_pubrel() {
    let broker = Broker::start().await;
    let mut client = broker.connect(&Client::new("twice", Version::V3)).await;
    for packet_id in 1..=300 {
        client.publish("t", QoS::ExactlyOnce, packet_id, false, b"x").await;
    }
    for packet_id in 1..=300 {
        assert_eq!(client.next().await.expect("alive"), format!("PUBREC {packet_id} 0x00"));
        client.acknowledge(Packet::PubRel, packet_id).await;
    }
    client.until("PUBCOMP 300").await;
}

#[tokio::test]
async fn no_local_holds_back_what_the_connection_published_and_nothing_else() {
    let broker = Broker::start().await;
    let mut client = broker.connect(&Client::new("one", Version::V5)).await;
    let mut other = broker.connect(&Client::new("other", Version::V5)).await;
    client.subscribe("t", SubscriptionOptions { no_local: true, ..qos(QoS::AtLeastOnce) }).await;
    client.until("SUBACK").await;
    client.publish("t", QoS::AtLeastOnce, 1, false, b"mine").await;
    client.until("PUBACK").await;
    other.publish("t", QoS::AtLeastOnce, 1, false, b"theirs").await;
    assert_eq!(client.next().await.expect("alive"), "PUBLISH t theirs");
}

#[tokio::test]
async fn subscribing_again_loses_nothing_of_what_is_still_to_come() {
    let broker = Broker::start().await;
    let phone = Client { clean: false, receive_maximum: 1, ..Client::new("phone", Version::V5) };
    let mut first = broker.connect(&phone).await;
    first.subscribe("t", qos(QoS::AtLeastOnce)).await;
    first.until("SUBACK").await;
    drop(first);
    let mut publisher = broker.connect(&Client::new("publisher", Version::V5)).await;
    for packet_id in 1..=5 {
        publisher.publish("t", QoS::AtLeastOnce, packet_id, false, &packet_id.to_string().into_bytes()).await;
        publisher.until("PUBACK").await;
    }
    // It comes back, subscribes again as phones do, and is lost before it has taken anything.
    let mut second = broker.connect(&phone).await;
    second.subscribe("t", qos(QoS::AtLeastOnce)).await;
    second.until("SUBACK").await;
    drop(second);
    let mut third = broker.connect(&phone).await;
    for number in 1..=5 {
        let publish = third.next().await.expect("alive");
        assert_eq!(publish, format!("PUBLISH t {number}"));
        third.acknowledge(Packet::PubAck, number).await;
    }
}

#[tokio::test]
async fn a_client_that_was_sent_away_for_its_publish_may_come_back_at_once() {
    let broker = Broker::start().await;
    let client = Client::new("refused", Version::V3);
    let mut connected = broker.connect(&client).await;
    connected.publish("$server/t", QoS::AtLeastOnce, 1, false, b"x").await;
    assert_eq!(connected.next().await, None, "3.1.1 has no other way to say no");
    broker.connect(&client).await;
}

#[tokio::test]
async fn a_slow_subscriber_whose_session_ends_with_its_connection_loses_nothing_either() {
    const MESSAGES: u16 = 1000;
    let broker = Broker::start().await;
    let mut slow = broker.connect(&Client { receive_maximum: 1, ..Client::new("slow", Version::V5) }).await;
    slow.subscribe("t", qos(QoS::AtLeastOnce)).await;
    slow.until("SUBACK").await;
    let mut publisher = broker.connect(&Client::new("publisher", Version::V5)).await;
    // More than the mailbox holds, pipelined, so that some are on their way while it fills.
    for first in (1..=MESSAGES).step_by(50) {
        for number in first..first + 50 {
            publisher.publish("t", QoS::AtLeastOnce, number, false, &number.to_string().into_bytes()).await;
        }
        publisher.until(&format!("PUBACK {} ", first + 49)).await;
    }
    for number in 1..=MESSAGES {
        assert_eq!(slow.next().await.expect("alive"), format!("PUBLISH t {number}"));
        slow.acknowledge(Packet::PubAck, number).await;
    }
}
