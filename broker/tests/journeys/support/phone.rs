//! A client that says exactly what it is told to, on the product's own codec.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{
    Ack, Connect, Disconnect, Packet, Publish, Subscribe, SubscribeFilters, Unsubscribe, UnsubscribeFilters,
    Version, Will,
};
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::house::House;
use super::patience::soon;

/// What a phone says of itself in CONNECT.
#[derive(Clone)]
pub(crate) struct Login {
    version: Version,
    clean_start: bool,
    keep_alive: u16,
    client_id: String,
    username: Option<String>,
    password: Option<String>,
    properties: PropertyBuf,
    will: Option<LastWill>,
    will_properties: PropertyBuf,
}

#[derive(Clone)]
pub(crate) struct LastWill {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// A PUBLISH from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) user_properties: Vec<(String, String)>,
}

/// What the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    ConnAck {
        present: bool,
        reason: ReasonCode,
    },
    /// A CONNACK that names an authentication method.
    Authenticated {
        reason: ReasonCode,
        method: String,
        data: Vec<u8>,
    },
    Auth {
        reason: ReasonCode,
        method: String,
        data: Vec<u8>,
    },
    Publish(Message),
    PubAck(PacketId, ReasonCode),
    PubRec(PacketId, ReasonCode),
    PubRel(PacketId),
    PubComp(PacketId),
    SubAck(PacketId, Vec<u8>),
    UnsubAck(PacketId),
    PingResp,
    Disconnect(ReasonCode),
    Closed,
}

pub(crate) struct Phone {
    stream: TlsStream<TcpStream>,
    version: Version,
    input: Vec<u8>,
    /// Heard while something else was waited for.
    put_aside: VecDeque<Heard>,
    next_packet_id: PacketId,
    /// What CONNACK said: the session was there.
    pub(crate) present: bool,
    /// And at which offset history starts.
    pub(crate) history_from: Option<u64>,
    /// How long a refusal asks it to stay away.
    pub(crate) retry_after_seconds: Option<u64>,
    /// Where a refusal or DISCONNECT sends it.
    pub(crate) server_reference: Option<String>,
}

impl Login {
    /// A user of the demo tenant, in version 5, with a session that ends with its connection.
    pub(crate) fn of(house: &House, user: &str, device: &str) -> Self {
        Self::with(&format!("{user}@demo"), &format!("{user}/{device}"), &house.password(user))
    }

    pub(crate) fn with(username: &str, client_id: &str, password: &str) -> Self {
        Self {
            version: Version::V5,
            clean_start: false,
            keep_alive: 60,
            client_id: client_id.to_owned(),
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            properties: PropertyBuf::new(),
            will: None,
            will_properties: PropertyBuf::new(),
        }
    }

    /// A client of the lab.
    pub(crate) fn anonymous(client_id: &str) -> Self {
        Self { username: None, password: None, ..Self::with("", client_id, "") }
    }

    pub(crate) fn v3(mut self) -> Self {
        self.version = Version::V3;
        self
    }

    pub(crate) fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn clean_start(mut self) -> Self {
        self.clean_start = true;
        self
    }

    /// Takes up the session that there is.
    pub(crate) fn resume(mut self) -> Self {
        self.clean_start = false;
        self
    }

    /// Seconds.
    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// The session outlives its connection by an hour: in 3.1.1 by being what it is.
    pub(crate) fn lasting(self) -> Self {
        self.expiry(3600)
    }

    /// Seconds.
    pub(crate) fn expiry(self, seconds: u32) -> Self {
        self.property(Property::SessionExpiryInterval(seconds))
    }

    pub(crate) fn receive_maximum(self, packets: u16) -> Self {
        self.property(Property::ReceiveMaximum(packets))
    }

    pub(crate) fn property(mut self, property: Property<'_>) -> Self {
        self.properties.push(property);
        self
    }

    pub(crate) fn will(mut self, will: LastWill) -> Self {
        self.will = Some(will);
        self
    }

    /// Seconds between the end of the connection and the will.
    pub(crate) fn will_delay(mut self, seconds: u32) -> Self {
        self.will_properties.push(Property::WillDelayInterval(seconds));
        self
    }

    pub(crate) fn client_id(mut self, client_id: &str) -> Self {
        client_id.clone_into(&mut self.client_id);
        self
    }

    /// User and tenant, and the device.
    pub(crate) fn named(&self) -> ((String, String), String) {
        let username = self.username.as_deref().expect("a user");
        let (user, tenant) = username.split_once('@').expect("user@tenant");
        let (_, device) = self.client_id.split_once('/').expect("user/device");
        ((user.to_owned(), tenant.to_owned()), device.to_owned())
    }

    pub(crate) fn packet(&self) -> Packet<'_> {
        Packet::Connect(Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            client_id: &self.client_id,
            will: self.will.as_ref().map(|will| Will {
                topic: &will.topic,
                payload: &will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: match self.version {
                    Version::V3 => Properties::EMPTY,
                    Version::V5 => self.will_properties.as_properties(),
                },
            }),
            username: self.username.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
            properties: match self.version {
                Version::V3 => Properties::EMPTY,
                Version::V5 => self.properties.as_properties(),
            },
        })
    }

    /// Connects, and is accepted.
    pub(crate) async fn connect(&self, house: &House) -> Phone {
        match self.try_connect(house).await {
            Ok(phone) => phone,
            Err(reason) => panic!("refused: {reason:?}"),
        }
    }

    /// The reason of the refusal, after which the broker must close.
    pub(crate) async fn try_connect(&self, house: &House) -> Result<Phone, ReasonCode> {
        let mut phone = Phone::silent(house, self.version).await;
        phone.send(&self.packet()).await;
        match phone.next().await {
            Heard::ConnAck { present, reason: ReasonCode::Success } => {
                phone.present = present;
                Ok(phone)
            }
            Heard::ConnAck { present, reason } => {
                // [MQTT-3.2.2-6]
                assert!(!present);
                assert_eq!(phone.next().await, Heard::Closed);
                Err(reason)
            }
            other => panic!("{other:?} in the place of CONNACK"),
        }
    }
}

impl Phone {
    /// Has said nothing yet.
    pub(crate) async fn silent(house: &House, version: Version) -> Self {
        let tcp = soon("a connection", TcpStream::connect(house.mqtts())).await.expect("connect");
        Self::over(house, version, tcp).await
    }

    /// From another of this machine's addresses.
    pub(crate) async fn silent_from(house: &House, version: Version, source: Ipv4Addr) -> Self {
        Self::over(house, version, dial_from(house, source).await).await
    }

    pub(crate) async fn over(house: &House, version: Version, tcp: TcpStream) -> Self {
        Self::try_over(house.tls(), version, tcp).await.expect("speak TLS")
    }

    /// `None` where there is no TLS to be spoken.
    pub(crate) async fn try_over(tls: Arc<ClientConfig>, version: Version, tcp: TcpStream) -> Option<Self> {
        tcp.set_nodelay(true).expect("set TCP_NODELAY");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = soon("a TLS handshake", TlsConnector::from(tls).connect(name, tcp)).await.ok()?;
        Some(Self {
            stream,
            version,
            input: Vec::new(),
            put_aside: VecDeque::new(),
            next_packet_id: PacketId::FIRST,
            present: false,
            history_from: None,
            retry_after_seconds: None,
            server_reference: None,
        })
    }

    /// The TLS session of an earlier connection was taken up.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The broker's certificate, DER.
    pub(crate) fn server_certificate(&self) -> Vec<u8> {
        let chain = self.stream.get_ref().1.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    }

    // ---- saying ----

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    /// Whether or not anybody reads them.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A broker that has closed says why in what it sent before.
        let _ = soon("bytes to be taken", written).await;
    }

    /// The reason code for the one filter.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> u8 {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let packet_id = self.packet_id();
        let mut raw = Vec::new();
        let filters = SubscribeFilters::encode(&[(filter, options)], &mut raw);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters })).await;
        let heard = self.hear("SUBACK", |heard| matches!(heard, Heard::SubAck(..))).await;
        let Heard::SubAck(answered, reasons) = heard else { unreachable!("it was looked for") };
        assert_eq!((answered, reasons.len()), (packet_id, 1));
        reasons[0]
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.packet_id();
        let mut raw = Vec::new();
        let filters = UnsubscribeFilters::encode(&[filter], &mut raw);
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters }))
            .await;
        self.expect(Heard::UnsubAck(packet_id)).await;
    }

    /// Publishes and sees it through to its last acknowledgement.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) {
        self.publish_message(topic, payload, qos, false).await;
    }

    pub(crate) async fn publish_retained(&mut self, topic: &str, payload: &[u8]) {
        self.publish_message(topic, payload, QoS::AtLeastOnce, true).await;
    }

    async fn publish_message(&mut self, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.packet_id());
        let publish =
            Publish { dup: false, qos, retain, topic, packet_id, properties: Properties::EMPTY, payload };
        self.send(&Packet::Publish(publish)).await;
        let Some(packet_id) = packet_id else { return };
        self.see_through(packet_id, qos).await;
    }

    async fn see_through(&mut self, packet_id: PacketId, qos: QoS) {
        // Success, with or without subscribers.
        let reason = self.answer(packet_id).await;
        assert!(!reason.is_error(), "{reason:?}");
        if qos == QoS::AtLeastOnce {
            return;
        }
        self.send(&Packet::PubRel(ack(packet_id))).await;
        self.expect(Heard::PubComp(packet_id)).await;
    }

    /// Publishes under a `sotto-id`.
    pub(crate) async fn publish_named(&mut self, topic: &str, payload: &[u8], qos: QoS, id: &str) {
        let packet_id = self.send_named(topic, payload, qos, id).await;
        self.see_through(packet_id, qos).await;
    }

    /// A QoS 1 PUBLISH with a user property.
    pub(crate) async fn send_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        name: &str,
        value: &str,
    ) -> PacketId {
        let packet_id = self.packet_id();
        let mut properties = PropertyBuf::new();
        properties.push(Property::UserProperty(name, value));
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            packet_id: Some(packet_id),
            properties: properties.as_properties(),
            payload,
        };
        self.send(&Packet::Publish(publish)).await;
        packet_id
    }

    pub(crate) async fn send_named(&mut self, topic: &str, payload: &[u8], qos: QoS, id: &str) -> PacketId {
        let packet_id = self.packet_id();
        let mut properties = PropertyBuf::new();
        properties.push(Property::UserProperty("sotto-id", id));
        let properties = properties.as_properties();
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: Some(packet_id),
            properties,
            payload,
        };
        self.send(&Packet::Publish(publish)).await;
        packet_id
    }

    /// Sends a PUBLISH of QoS 1 or 2 and does not wait for the answer.
    pub(crate) async fn send_publish(&mut self, topic: &str, payload: &[u8], qos: QoS) -> PacketId {
        let packet_id = self.packet_id();
        self.send_publish_as(packet_id, false, topic, payload, qos).await;
        packet_id
    }

    /// Sends a PUBLISH of QoS 2 of an earlier connection again.
    pub(crate) async fn send_again(&mut self, packet_id: PacketId, topic: &str, payload: &[u8]) {
        self.send_publish_as(packet_id, true, topic, payload, QoS::ExactlyOnce).await;
    }

    async fn send_publish_as(
        &mut self,
        packet_id: PacketId,
        dup: bool,
        topic: &str,
        payload: &[u8],
        qos: QoS,
    ) {
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic,
            packet_id: Some(packet_id),
            properties: Properties::EMPTY,
            payload,
        };
        self.send(&Packet::Publish(publish)).await;
    }

    pub(crate) fn packet_id(&mut self) -> PacketId {
        let packet_id = self.next_packet_id;
        self.next_packet_id = packet_id.next();
        packet_id
    }

    /// Acknowledges what came with QoS 1 or 2, to the end.
    pub(crate) async fn acknowledge(&mut self, message: &Message) {
        let Some(packet_id) = message.packet_id else { return };
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(&Packet::PubAck(ack(packet_id))).await,
            QoS::ExactlyOnce => {
                self.send(&Packet::PubRec(ack(packet_id))).await;
                self.expect(Heard::PubRel(packet_id)).await;
                self.send(&Packet::PubComp(ack(packet_id))).await;
            }
        }
    }

    /// DISCONNECT, and waits until the broker has closed.
    pub(crate) async fn disconnect(mut self) {
        let packet = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        self.send(&Packet::Disconnect(packet)).await;
        self.expect(Heard::Closed).await;
    }

    /// The end of a tunnel: the socket goes without a word.
    pub(crate) fn vanish(self) {
        drop(self);
    }

    /// The broker has handled everything sent so far.
    pub(crate) async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        self.expect(Heard::PingResp).await;
    }

    // ---- hearing ----

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.put_aside.pop_front() {
            Some(heard) => heard,
            None => soon("something from the broker", self.read()).await,
        }
    }

    /// What comes next within `limit`, if anything does.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Heard> {
        match self.put_aside.pop_front() {
            Some(heard) => Some(heard),
            None => tokio::time::timeout(limit, self.read()).await.ok(),
        }
    }

    /// Waits for exactly this; what else comes is put aside, in order.
    pub(crate) async fn expect(&mut self, expected: Heard) {
        let what = format!("{expected:?}");
        self.hear(&what, |heard| *heard == expected).await;
    }

    /// What the PUBACK or PUBREC says.
    pub(crate) async fn answer(&mut self, packet_id: PacketId) -> ReasonCode {
        let answers = |heard: &Heard| match heard {
            Heard::PubAck(answered, reason) | Heard::PubRec(answered, reason) if *answered == packet_id => {
                Some(*reason)
            }
            _ => None,
        };
        let heard = self.hear("PUBACK or PUBREC", |heard| answers(heard).is_some()).await;
        answers(&heard).expect("it was looked for")
    }

    /// The next PUBLISH, not acknowledged.
    pub(crate) async fn message(&mut self) -> Message {
        let heard = self.hear("PUBLISH", |heard| matches!(heard, Heard::Publish(_))).await;
        let Heard::Publish(message) = heard else { unreachable!("it was looked for") };
        message
    }

    /// The next PUBLISH, acknowledged.
    pub(crate) async fn receive(&mut self) -> Message {
        let message = self.message().await;
        self.acknowledge(&message).await;
        message
    }

    /// The payloads of the next so many, acknowledged.
    pub(crate) async fn receive_payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::with_capacity(count);
        for _ in 0..count {
            payloads.push(self.receive().await.text());
        }
        payloads
    }

    pub(crate) fn has_nothing_aside(&self) -> bool {
        self.put_aside.is_empty()
    }

    async fn hear(&mut self, what: &str, is_it: impl Fn(&Heard) -> bool) -> Heard {
        if let Some(at) = self.put_aside.iter().position(&is_it) {
            return self.put_aside.remove(at).expect("it is there");
        }
        loop {
            let heard = soon(what, self.read()).await;
            if is_it(&heard) {
                return heard;
            }
            assert_ne!(
                heard,
                Heard::Closed,
                "closed while {what} was waited for, after {:?}",
                self.put_aside
            );
            self.put_aside.push_back(heard);
        }
    }

    /// Loses nothing when it is dropped half-way.
    async fn read(&mut self) -> Heard {
        loop {
            let decoded = decode(&self.input, self.version, u32::MAX).expect("well-formed packets");
            if let Some((packet, len)) = decoded {
                if let Packet::ConnAck(connack) = &packet {
                    let mut told = connack.properties.user_properties();
                    let from = told.find(|(name, _)| *name == "sotto-history-from");
                    self.history_from = from.map(|(_, offset)| offset.parse().expect("a number"));
                    let mut told = connack.properties.user_properties();
                    let after = told.find(|(name, _)| *name == "sotto-retry-after");
                    self.retry_after_seconds = after.map(|(_, seconds)| seconds.parse().expect("a number"));
                    self.server_reference = connack.properties.server_reference().map(str::to_owned);
                }
                if let Packet::Disconnect(disconnect) = &packet {
                    self.server_reference = disconnect.properties.server_reference().map(str::to_owned);
                }
                let heard = Heard::of(&packet);
                self.input.drain(..len);
                return heard;
            }
            // However the connection ends, it is over.
            if !matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
                return Heard::Closed;
            }
        }
    }
}

impl Message {
    pub(crate) fn user_property(&self, name: &str) -> Option<&str> {
        let found = self.user_properties.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

impl Heard {
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::ConnAck(connack) if connack.properties.authentication_method().is_some() => {
                let (method, data) = authentication(connack.properties);
                Self::Authenticated { reason: connack.reason, method, data }
            }
            Packet::Auth(auth) => {
                // [MQTT-3.15.2-2] [MQTT-3.15.2-3]
                let mut explained = auth.properties.user_properties();
                assert!(auth.properties.reason_string().is_none() && explained.next().is_none());
                let (method, data) = authentication(auth.properties);
                Self::Auth { reason: auth.reason, method, data }
            }
            Packet::ConnAck(connack) => {
                Self::ConnAck { present: connack.session_present, reason: connack.reason }
            }
            Packet::Publish(publish) => Self::Publish(Message {
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                retain: publish.retain,
                dup: publish.dup,
                packet_id: publish.packet_id,
                user_properties: publish
                    .properties
                    .user_properties()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            }),
            Packet::PubAck(ack) => Self::PubAck(ack.packet_id, ack.reason),
            Packet::PubRec(ack) => Self::PubRec(ack.packet_id, ack.reason),
            Packet::PubRel(ack) => Self::PubRel(ack.packet_id),
            Packet::PubComp(ack) => Self::PubComp(ack.packet_id),
            Packet::SubAck(suback) => Self::SubAck(suback.packet_id, suback.reasons.to_vec()),
            Packet::UnsubAck(unsuback) => Self::UnsubAck(unsuback.packet_id),
            Packet::PingResp => Self::PingResp,
            Packet::Disconnect(disconnect) => Self::Disconnect(disconnect.reason),
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
                panic!("{packet:?} from a broker")
            }
        }
    }
}

/// Method and data.
fn authentication(properties: Properties<'_>) -> (String, Vec<u8>) {
    let data = properties.authentication_data().unwrap_or_default().to_vec();
    (properties.authentication_method().unwrap_or_default().to_owned(), data)
}

/// A connection without a byte on it.
pub(crate) async fn dial_from(house: &House, source: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("an address of this machine");
    soon("a connection", socket.connect(house.mqtts())).await.expect("connect")
}

/// An acknowledgement of any kind.
pub(crate) fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
}
