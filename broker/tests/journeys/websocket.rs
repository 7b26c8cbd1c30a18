//! MQTT over WebSocket over TLS, frame by frame.

use std::time::Duration;

use rustls::pki_types::ServerName;
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Disconnect, Packet, Publish, Subscribe, SubscribeFilters, Version};
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::{soon, until};
use crate::support::phone::{LastWill, Login};

on_both_stores!(a_browser_and_a_phone_talk_to_each_other);

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nOrigin: https://clinic.example\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";
const MASK: [u8; 4] = [0x5A, 0x00, 0xFF, 0x17];
const BINARY: u8 = 0x82;

async fn a_browser_and_a_phone_talk_to_each_other(kind: Kind) {
    let house = House::open(kind).await;
    let topic = house.topic();
    let mut phone = Login::of(&house, "bob", "phone").connect(&house).await;
    phone.subscribe(&topic, QoS::ExactlyOnce).await;
    let mut page = Page::connect(&house, &Login::of(&house, "alice", "browser")).await;
    page.send(&frame(BINARY, &subscribe(&topic))).await;
    assert_eq!(page.packet().await, "SUBACK [2]");
    page.send(&frame(BINARY, &publish(&topic, "from the page"))).await;
    assert_eq!(phone.receive().await.text(), "from the page");
    assert_eq!(page.echo().await, "PUBLISH from the page");
    phone.publish(&topic, b"from the phone", QoS::AtMostOnce).await;
    assert_eq!(page.packet().await, "PUBLISH from the phone");
    let metrics = house.metrics().await;
    assert_eq!(metrics.count("sotto_connections{listener=\"wss\"}"), 1);
    assert_eq!(metrics.count("sotto_connections{listener=\"mqtts\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_and_frames_need_not_begin_or_end_together() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let login = Login::of(&house, "alice", "browser");
    let mut page = Page::open(&house).await;
    // CONNECT in fragments of one byte, with pings between.
    let connect = encoded(&login.packet());
    let last = connect.len() - 1;
    for (at, byte) in connect.iter().enumerate() {
        let opcode = if at == 0 { 0x02 } else { 0x00 };
        let fin = if at == last { 0x80 } else { 0x00 };
        page.send(&frame(fin | opcode, &[*byte])).await;
        if at % 16 == 0 {
            page.send(&frame(0x89, &[u8::try_from(at).expect("short")])).await;
            assert_eq!(page.frame().await, (0x8A, vec![u8::try_from(at).expect("short")]));
        }
    }
    assert_eq!(page.packet().await, "CONNACK Success");
    // [MQTT-6.0.0-2]: many packets in a frame, and the last of them begun only.
    let mut packets = [subscribe(&topic), publish(&topic, "one"), publish(&topic, "two")].concat();
    let rest = packets.split_off(packets.len() - 2);
    page.send(&frame(BINARY, &packets)).await;
    assert_eq!(page.packet().await, "SUBACK [2]");
    assert_eq!(page.echo().await, "PUBLISH one");
    page.send(&frame(BINARY, &rest)).await;
    assert_eq!(page.echo().await, "PUBLISH two");
    // A length in 64 bits.
    let payload = "x".repeat(200_000);
    page.send(&frame(BINARY, &publish(&topic, &payload))).await;
    assert_eq!(page.echo().await, format!("PUBLISH {payload}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_of_ours_is_answered_and_closed() {
    let house = House::open(Kind::Sqlite).await;
    let long = format!("Host: localhost\r\nCookie: {}\r\n", "x".repeat(20_000));
    for (request, status) in [
        (REQUEST.replace("/mqtt ", "/ "), "404"),
        (REQUEST.replace("GET", "POST"), "405"),
        (REQUEST.replace("Upgrade: websocket\r\n", ""), "426"),
        (REQUEST.replace("Version: 13", "Version: 8"), "426"),
        (REQUEST.replace("Protocol: mqtt\r\n", "Protocol: wamp\r\n"), "400"),
        (REQUEST.replace("Sec-WebSocket-Protocol: mqtt\r\n", ""), "400"),
        (REQUEST.replace("Host: localhost\r\n", &long), "431"),
        ("\u{10}\u{1}\u{0}\u{4}MQTT\r\n\r\n".to_owned(), "400"),
    ] {
        let mut page = Page::silent(&house).await;
        page.send(request.as_bytes()).await;
        let answer = String::from_utf8(page.rest().await).expect("ASCII");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    Page::connect(&house, &Login::of(&house, "alice", "browser")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_goes_on_and_on_is_given_up_in_time_and_so_are_pings_without_connect() {
    // The deadline of everybody who arrives, and a little.
    const ARRIVAL_MAX: Duration = Duration::from_secs(25);
    const PAUSE: Duration = Duration::from_millis(300);
    let house = House::open(Kind::Sqlite).await;
    let mut slow = Page::silent(&house).await;
    let mut pinging = Page::open(&house).await;
    let slow_ends = async {
        for byte in "GET /mqtt HTTP/1.1\r\nCookie: ".bytes().chain(std::iter::repeat(b'x')) {
            tokio::select! {
                read = slow.stream.read_u8() => return assert!(read.is_err(), "it is not answered"),
                () = tokio::time::sleep(PAUSE) => slow.send(&[byte]).await,
            }
        }
    };
    pinging.send(&frame(0x89, b"")).await;
    let pinging_ends = async {
        while pinging.read().await {
            pinging.send(&frame(0x89, b"")).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let both = tokio::time::timeout(ARRIVAL_MAX, async { tokio::join!(slow_ends, pinging_ends) });
    assert!(both.await.is_ok(), "they hold their places");
    let metrics = house.metrics().await;
    assert_eq!(metrics.count("sotto_disconnects_total{reason=\"arrival_timeout\"}"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_no_client_may_send_end_the_session_with_their_code_and_publish_the_will() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let too_long = [&[BINARY, 0xFF][..], &u64::MAX.to_be_bytes(), &MASK].concat();
    for (bytes, code) in [
        // [MQTT-6.0.0-1]
        (frame(0x81, b"text"), 1003_u16),
        ([&[BINARY, 2][..], &encoded(&Packet::PingReq)].concat(), 1002),
        (frame(0xC2, b"compressed"), 1002),
        (frame(0x80, b"a fragment of nothing"), 1002),
        (too_long, 1009),
    ] {
        let payload = format!("will of {code}").into_bytes();
        let will = LastWill { topic: topic.clone(), payload, qos: QoS::AtLeastOnce, retain: false };
        let mut page = Page::connect(&house, &Login::of(&house, "alice", "browser").will(will)).await;
        // What came before, in the same record even, is heard.
        page.send(&[frame(BINARY, &publish(&topic, "before")), bytes].concat()).await;
        assert_eq!(bob.receive().await.text(), "before");
        assert_eq!(bob.receive().await.text(), format!("will of {code}"));
        assert_eq!(page.close_code().await, Some(code));
        // Before CONNECT too.
        let mut page = Page::open(&house).await;
        page.send(&frame(0x81, b"text")).await;
        assert_eq!(page.close_code().await, Some(1003));
    }
    until("violations are counted", async || {
        house.metrics().await.count("sotto_disconnects_total{reason=\"websocket_violation\"}") == 10
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered_in_kind() {
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    let will = |payload: &[u8]| LastWill {
        topic: topic.clone(),
        payload: payload.to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    // As browsers go: DISCONNECT and the close frame in one write.
    let login = Login::of(&house, "alice", "browser");
    let mut page = Page::connect(&house, &login.clone().will(will(b"unwanted"))).await;
    let goodbye =
        Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY });
    page.send(&[frame(BINARY, &encoded(&goodbye)), frame(0x88, &1001_u16.to_be_bytes())].concat()).await;
    assert_eq!(page.close_code().await, Some(1001));
    // Without DISCONNECT it is the will's hour.
    let mut page = Page::connect(&house, &login.clone().will(will(b"wanted"))).await;
    page.send(&frame(0x88, &[&4321_u16.to_be_bytes()[..], b"so long"].concat())).await;
    assert_eq!(page.close_code().await, Some(4321));
    assert_eq!(bob.receive().await.text(), "wanted");
    let mut page = Page::connect(&house, &login).await;
    page.send(&frame(0x88, b"")).await;
    assert_eq!(page.close_code().await, None);
    // Refused by MQTT, the WebSocket closes normally.
    let mut page = Page::open(&house).await;
    page.send(&frame(BINARY, &encoded(&Login::with("alice@demo", "alice/b", "wrong").packet()))).await;
    assert_eq!(page.packet().await, "CONNACK BadUserNameOrPassword");
    assert_eq!(page.close_code().await, Some(1000));
    // And so it does when the broker goes.
    let mut page = Page::connect(&house, &Login::of(&house, "carol", "browser")).await;
    let mut house = house;
    assert_eq!(house.terminate().await.code(), Some(0));
    assert_eq!(page.packet().await, "DISCONNECT ServerShuttingDown");
    assert_eq!(page.close_code().await, Some(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_is_mqtts_and_pings_of_the_websocket_do_not_count() {
    let house = House::open(Kind::Sqlite).await;
    let mut page = Page::connect(&house, &Login::of(&house, "alice", "browser").keep_alive(2)).await;
    let ended = async {
        loop {
            page.send(&frame(0x89, b"")).await;
            match page.frame().await {
                (0x8A, _) => tokio::time::sleep(Duration::from_millis(200)).await,
                (BINARY, packet) => return packet,
                other => panic!("{other:?}"),
            }
        }
    };
    let ended = soon("the end of Keep Alive", ended).await;
    page.packets.extend(ended);
    assert_eq!(page.packet().await, "DISCONNECT KeepAliveTimeout");
}

/// A browser, by its socket.
struct Page {
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
    /// What frames carried, and is not decoded.
    packets: Vec<u8>,
}

impl Page {
    async fn silent(house: &House) -> Self {
        let tcp = soon("a connection", TcpStream::connect(house.wss())).await.expect("connect");
        tcp.set_nodelay(true).expect("set TCP_NODELAY");
        let name = ServerName::try_from("localhost").expect("a name");
        let connected = TlsConnector::from(house.tls()).connect(name, tcp);
        let stream = soon("a TLS handshake", connected).await.expect("speak TLS");
        Self { stream, input: Vec::new(), packets: Vec::new() }
    }

    /// Has a WebSocket, and has said nothing on it.
    async fn open(house: &House) -> Self {
        let mut page = Self::silent(house).await;
        page.send(REQUEST.as_bytes()).await;
        while !page.input.ends_with(b"\r\n\r\n") {
            assert!(page.read().await, "{}", String::from_utf8_lossy(&page.input));
        }
        let answer = String::from_utf8(std::mem::take(&mut page.input)).expect("ASCII").to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        // [MQTT-6.0.0-4]
        assert!(answer.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{answer}");
        assert!(!answer.contains("extensions"), "{answer}");
        page
    }

    async fn connect(house: &House, login: &Login) -> Self {
        let mut page = Self::open(house).await;
        page.send(&frame(BINARY, &encoded(&login.packet()))).await;
        assert_eq!(page.packet().await, "CONNACK Success");
        page
    }

    async fn send(&mut self, bytes: &[u8]) {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A broker that has closed says why in what it sent before.
        let _ = soon("bytes to be taken", written).await;
    }

    /// The next packet in brief; frames must be binary.
    async fn packet(&mut self) -> String {
        loop {
            let decoded = decode(&self.packets, Version::V5, u32::MAX).expect("well-formed packets");
            if let Some((packet, len)) = decoded {
                let brief = match &packet {
                    Packet::ConnAck(connack) => format!("CONNACK {:?}", connack.reason),
                    Packet::SubAck(suback) => format!("SUBACK {:?}", suback.reasons),
                    Packet::Publish(publish) => {
                        format!("PUBLISH {}", String::from_utf8_lossy(publish.payload))
                    }
                    Packet::PubAck(_) => "PUBACK".to_owned(),
                    Packet::Disconnect(disconnect) => format!("DISCONNECT {:?}", disconnect.reason),
                    other => panic!("{other:?} from a broker"),
                };
                self.packets.drain(..len);
                return brief;
            }
            let (first, payload) = self.frame().await;
            // [MQTT-6.0.0-1]
            assert_eq!(first, BINARY, "{payload:02x?}");
            self.packets.extend(payload);
        }
    }

    /// Of a message that it published and subscribes to: PUBLISH and PUBACK come in any order.
    async fn echo(&mut self) -> String {
        let mut both = [self.packet().await, self.packet().await];
        both.sort();
        let [puback, publish] = both;
        assert_eq!(puback, "PUBACK");
        publish
    }

    /// What the close frame says, which comes after any packets, and before the end of the connection.
    async fn close_code(&mut self) -> Option<u16> {
        loop {
            let (first, payload) = self.frame().await;
            if first == 0x88 {
                assert!(self.rest().await.is_empty(), "nothing follows it");
                return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
            assert_eq!(first, BINARY);
        }
    }

    /// The next frame: its first byte, and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let [first, second, ..] = self.input[..] {
                // RFC 6455, 5.1
                assert!(second < 0x80, "a masked frame from a server");
                let extra = match second {
                    ..126 => 0,
                    126 => 2,
                    127.. => 8,
                };
                if let Some(extended) = self.input.get(2..2 + extra) {
                    let extended = extended.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
                    let len = if extra == 0 { usize::from(second) } else { extended };
                    let start = 2 + extra;
                    if self.input.len() >= start + len {
                        let payload = self.input[start..start + len].to_vec();
                        self.input.drain(..start + len);
                        return (first, payload);
                    }
                }
            }
            assert!(self.read().await, "closed without a close frame");
        }
    }

    /// All that comes until the connection ends.
    async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.input)
    }

    /// False at the end.
    async fn read(&mut self) -> bool {
        let read = soon("bytes from the broker", self.stream.read_buf(&mut self.input)).await;
        matches!(read, Ok(1..))
    }
}

/// As a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ ..126), _) => frame.push(0x80 | len),
        (_, Ok(len)) => {
            frame.push(0xFE);
            frame.extend(len.to_be_bytes());
        }
        _ => {
            frame.push(0xFF);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// With QoS 2.
fn subscribe(topic: &str) -> Vec<u8> {
    let mut raw = Vec::new();
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let filters = SubscribeFilters::encode(&[(topic, options)], &mut raw);
    let packet_id = PacketId::FIRST;
    encoded(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }))
}

/// With QoS 1.
fn publish(topic: &str, payload: &str) -> Vec<u8> {
    encoded(&Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic,
        packet_id: Some(PacketId::FIRST),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    }))
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes);
    bytes
}
