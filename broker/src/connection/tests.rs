//! What a connection promises, shown by packets over real sockets and a real store.

mod sharing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_model::{ClientLimits, PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{
    Ack, Connect, Packet, Publish, Subscribe, SubscribeFilters, Unsubscribe, UnsubscribeFilters, Version,
};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::retention::RetentionPolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::admission::{AddressLimits, FailedLoginLimits};
use crate::app::App;
use crate::clock::SystemClock;
use crate::config::{Config, Tls};
use crate::drain::DrainPlan;
use crate::push_config::Push;

/// Longer than anything here takes, shorter than what a connection that ends waits for at most.
const SOON: Duration = Duration::from_secs(4);

struct Broker {
    app: App,
    _data: tempfile::TempDir,
}

impl Broker {
    async fn start() -> Self {
        Self::limited(ClientLimits::DEFAULT).await
    }

    async fn limited(limits: ClientLimits) -> Self {
        // The process's provider is another test's too.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let data = tempfile::tempdir().expect("temporary folder");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("address");
        let config = Config {
            data: data.path().join("data"),
            mqtts: any,
            wss: any,
            private: any,
            plain: Some(any),
            lab: true,
            demo: false,
            database_url: None,
            connections_max: None,
            memory_bytes_max: None,
            proxy_protocol_from: Vec::new(),
            addresses: AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 0 },
            failed_logins: FailedLoginLimits { failures_max: 0, window_seconds: 0 },
            drain: DrainPlan { per_second: 0, grace_seconds: 0, to: None },
            tls: Tls::default(),
            push: Push::default(),
            limits,
            retention: RetentionPolicy::default(),
            acl: Vec::new(),
        };
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let app = App::start(config, Arc::new(SystemClock::new()), metrics).await.expect("starts");
        Self { app, _data: data }
    }

    async fn connect(&self, client: &Client) -> Connected {
        let connected = self.try_connect(client).await;
        assert!(connected.connack.starts_with("CONNACK 0x00"), "{}", connected.connack);
        connected
    }

    async fn try_connect(&self, client: &Client) -> Connected {
        let address = self.app.addresses.plain.expect("plain MQTT is on");
        let mut connected = Connected {
            socket: TcpStream::connect(address).await.expect("connect"),
            version: client.version,
            input: Vec::new(),
            connack: String::new(),
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
            keep_alive: client.keep_alive,
            client_id: client.id,
            will: None,
            username: None,
            password: None,
            properties: properties.as_properties(),
        };
        connected.send(&Packet::Connect(connect)).await;
        connected.connack = connected.next().await.expect("CONNACK");
        connected
    }
}

struct Client {
    id: &'static str,
    version: Version,
    clean: bool,
    receive_maximum: u16,
    keep_alive: u16,
}

impl Client {
    fn new(id: &'static str, version: Version) -> Self {
        Self { id, version, clean: true, receive_maximum: 100, keep_alive: 60 }
    }
}

struct Connected {
    socket: TcpStream,
    version: Version,
    input: Vec<u8>,
    connack: String,
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
            let properties = connack.properties;
            format!(
                "CONNACK 0x{:02x} {} keep alive {:?} receive {:?} packet {:?} aliases {:?} expiry {:?}",
                connack.reason.code(),
                connack.session_present,
                properties.server_keep_alive(),
                properties.receive_maximum(),
                properties.maximum_packet_size(),
                properties.topic_alias_maximum(),
                properties.session_expiry_interval(),
            )
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
async fn a_subscription_follows_retained_messages_that_were_settled_long_ago() {
    let broker = Broker::start().await;
    let mut client = broker.connect(&Client::new("both", Version::V5)).await;
    client.publish("r/1", QoS::AtLeastOnce, 1, true, b"retained").await;
    client.until("PUBACK").await;
    client.publish("r/2", QoS::AtMostOnce, 0, false, b"live").await;
    client.subscribe("r/#", qos(QoS::AtLeastOnce)).await;
    client.until("SUBACK").await;
    assert_eq!(client.next().await.expect("alive"), "PUBLISH r/1 retained");
}

/// More than a page, each retained on its topic `r/<number>`.
const RETAINED: u16 = 300;

async fn retain_many(broker: &Broker) -> Connected {
    let mut publisher = broker.connect(&Client::new("publisher", Version::V5)).await;
    for number in 1..=RETAINED {
        publisher.publish(&format!("r/{number:03}"), QoS::AtLeastOnce, number, true, b"retained").await;
        if number % 50 == 0 {
            publisher.until(&format!("PUBACK {number} ")).await;
        }
    }
    publisher
}

#[tokio::test]
async fn what_comes_live_follows_what_was_retained() {
    let broker = Broker::start().await;
    let mut publisher = retain_many(&broker).await;
    for granted in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let slow = Client { receive_maximum: 1, ..Client::new("slow", Version::V5) };
        let mut slow = broker.connect(&slow).await;
        slow.subscribe("r/#", qos(granted)).await;
        slow.until("SUBACK").await;
        publisher.publish("r/300", QoS::AtLeastOnce, 1, false, b"live").await;
        publisher.until("PUBACK").await;
        for packet_id in 1..=RETAINED + 1 {
            let expected = match packet_id {
                ..=RETAINED => format!("PUBLISH r/{packet_id:03} retained"),
                _ => "PUBLISH r/300 live".to_owned(),
            };
            assert_eq!(slow.next().await.expect("alive"), expected);
            if granted == QoS::AtLeastOnce {
                slow.acknowledge(Packet::PubAck, packet_id).await;
            }
        }
    }
}

#[tokio::test]
async fn what_is_retained_after_a_subscription_comes_once_and_live() {
    let broker = Broker::start().await;
    let mut publisher = retain_many(&broker).await;
    let slow = Client { receive_maximum: 1, ..Client::new("slow", Version::V5) };
    let mut slow = broker.connect(&slow).await;
    slow.subscribe("r/#", qos(QoS::AtLeastOnce)).await;
    slow.until("SUBACK").await;
    // On a page that is not read before the window has room again.
    publisher.publish("r/299", QoS::AtLeastOnce, 1, true, b"newer").await;
    publisher.until("PUBACK").await;
    for (packet_id, number) in (1..).zip((1..=298).chain([300])) {
        assert_eq!(slow.next().await.expect("alive"), format!("PUBLISH r/{number:03} retained"));
        slow.acknowledge(Packet::PubAck, packet_id).await;
    }
    assert_eq!(slow.next().await.expect("alive"), "PUBLISH r/299 newer");
    slow.acknowledge(Packet::PubAck, RETAINED).await;
    slow.send(&Packet::PingReq).await;
    assert_eq!(slow.next().await.expect("alive"), "PingResp");
}

#[tokio::test]
async fn what_is_retained_is_sent_anew_to_who_subscribes_again_and_no_more_to_who_unsubscribes() {
    let broker = Broker::start().await;
    retain_many(&broker).await;
    let slow = Client { receive_maximum: 1, ..Client::new("slow", Version::V5) };
    let mut slow = broker.connect(&slow).await;
    slow.subscribe("r/#", qos(QoS::AtLeastOnce)).await;
    slow.until("SUBACK").await;
    let mut filled_by = 0;
    for _ in 0..2 {
        for topic in ["r/001", "r/002"] {
            assert_eq!(slow.next().await.expect("alive"), format!("PUBLISH {topic} retained"));
            filled_by += 1;
            if topic == "r/001" {
                slow.acknowledge(Packet::PubAck, filled_by).await;
            }
        }
        // While the window of one is full.
        slow.subscribe("r/#", qos(QoS::AtLeastOnce)).await;
        assert!(slow.next().await.expect("alive").starts_with("SUBACK"));
        slow.acknowledge(Packet::PubAck, filled_by).await;
    }
    assert_eq!(slow.next().await.expect("alive"), "PUBLISH r/001 retained");
    let mut raw = Vec::new();
    let filters = UnsubscribeFilters::encode(&["r/#"], &mut raw);
    let packet_id = PacketId::FIRST;
    slow.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters })).await;
    assert!(slow.next().await.expect("alive").starts_with("UnsubAck"));
    slow.acknowledge(Packet::PubAck, filled_by + 1).await;
    slow.send(&Packet::PingReq).await;
    // [MQTT-3.10.4-2]
    assert_eq!(slow.next().await.expect("alive"), "PingResp");
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
async fn what_is_configured_is_announced_and_held_to() {
    let limits = ClientLimits {
        packet_bytes_max: 1000,
        receive_maximum: 7,
        topic_alias_maximum: 0,
        topic_levels_max: 4,
        topic_bytes_max: 64,
        subscriptions_per_session_max: 2,
        session_expiry_seconds_max: 600,
        keep_alive_seconds_max: 50,
        ..ClientLimits::DEFAULT
    };
    let broker = Broker::limited(limits).await;
    let lasting = Client { clean: false, ..Client::new("v5", Version::V5) };
    let mut client = broker.connect(&lasting).await;
    let announced = "keep alive Some(50) receive Some(7) packet Some(1000) aliases None expiry Some(600)";
    assert_eq!(client.connack, format!("CONNACK 0x00 false {announced}"));
    client.publish("a/b/c/d/e", QoS::AtLeastOnce, 1, false, b"").await;
    assert_eq!(client.next().await.expect("alive"), "PUBACK 1 0x90");
    client.publish(&"x".repeat(65), QoS::AtLeastOnce, 1, false, b"").await;
    assert_eq!(client.next().await.expect("alive"), "PUBACK 1 0x90");
    for (filter, answer) in
        [("a/b/c/d/e", "[143]"), ("a/#", "[1]"), ("b", "[1]"), ("c", "[151]"), ("b", "[1]")]
    {
        client.subscribe(filter, qos(QoS::AtLeastOnce)).await;
        assert_eq!(client.next().await.expect("alive"), format!("SUBACK {answer}"), "{filter}");
    }
    client.publish("a/b", QoS::AtLeastOnce, 1, false, &[b'x'; 1000]).await;
    assert_eq!(client.next().await.expect("a reason"), "DISCONNECT 0x95");
    let unlimited = Client { keep_alive: 0, ..Client::new("v5-unlimited", Version::V5) };
    assert!(broker.connect(&unlimited).await.connack.contains("keep alive Some(50)"));
    let modest = Client { keep_alive: 20, ..Client::new("v5-modest", Version::V5) };
    assert!(broker.connect(&modest).await.connack.contains("keep alive None"));
    let limits = ClientLimits { topic_alias_maximum: 5, ..ClientLimits::DEFAULT };
    let broker = Broker::limited(limits).await;
    assert!(broker.connect(&modest).await.connack.contains("aliases Some(5)"));
}

#[tokio::test]
async fn a_tenant_has_only_so_many_sessions_and_a_place_that_is_left_is_free() {
    let limits = ClientLimits { sessions_per_tenant_max: 2, ..ClientLimits::DEFAULT };
    let broker = Broker::limited(limits).await;
    let first = broker.connect(&Client::new("first", Version::V5)).await;
    let stored = Client { clean: false, ..Client::new("stored", Version::V3) };
    drop(broker.connect(&stored).await);
    let third = Client::new("third", Version::V5);
    assert!(broker.try_connect(&third).await.connack.starts_with("CONNACK 0x97"));
    let old = Client::new("third", Version::V3);
    assert!(broker.try_connect(&old).await.connack.starts_with("CONNACK 0x88"), "3.1.1 has return code 3");
    // Its own session is not one more.
    drop(broker.connect(&stored).await);
    drop(first);
    let freed = async {
        while !broker.try_connect(&third).await.connack.starts_with("CONNACK 0x00") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, freed).await.expect("the first session's place is free");
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
async fn no_local_holds_for_what_is_read_from_the_log_and_for_what_an_earlier_connection_published() {
    let broker = Broker::start().await;
    let phone = Client { clean: false, ..Client::new("phone", Version::V5) };
    let mut client = broker.connect(&phone).await;
    client.subscribe("t", SubscriptionOptions { no_local: true, ..qos(QoS::AtLeastOnce) }).await;
    client.until("SUBACK").await;
    client.publish("t", QoS::AtLeastOnce, 1, false, b"mine").await;
    client.until("PUBACK").await;
    drop(client);
    let mut other = broker.connect(&Client::new("other", Version::V5)).await;
    other.publish("t", QoS::AtLeastOnce, 1, false, b"theirs").await;
    other.until("PUBACK").await;
    let mut client = broker.connect(&phone).await;
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
    connected.publish(&"deep/".repeat(1000), QoS::AtLeastOnce, 1, false, b"x").await;
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
