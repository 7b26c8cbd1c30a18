//! A publisher, a subscriber and two sessions between them, with lost connections and server crashes wherever
//! chance puts them, held against what MQTT promises.
//!
//! A seed is a whole run; a failure names it, and `SEED=17 cargo test -p sotto-mqtt --test session_model`
//! replays it alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sotto_model::{ClientLimits, Offset, PacketId, QoS};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::delivery::{Delivered, Delivery, Place};
use sotto_mqtt::handshake::{ConnectRequest, Negotiated};
use sotto_mqtt::inflight::InflightMessage;
use sotto_mqtt::packet::{Ack, Connect, Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::{Action, Session};

const RUNS: u64 = 400;
const STEPS: usize = 400;
/// Messages that the publisher has to send in a run.
const MESSAGES: usize = 48;
/// Messages that the server has in flight to the subscriber.
const INFLIGHT_MAX: u16 = 5;
const TOPICS: [&str; 2] = ["some/topic", "other/topic"];
/// Larger than the subscriber takes, bytes.
const LARGE: u16 = 200;

#[test]
fn what_mqtt_promises_holds_whatever_breaks() {
    let seeds = std::env::var("SEED").map_or(0..RUNS, |seed| {
        let seed = seed.parse().expect("SEED is a number");
        seed..seed + 1
    });
    for seed in seeds {
        World::new(seed).run();
    }
}

/// splitmix64: what it yields depends on the seed alone.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % bound as u64).expect("below a usize")
    }
}

/// Topic and QoS follow from the number, so that a payload says all. A few in a row have the same.
#[derive(Clone, Copy)]
struct Message(usize);

impl Message {
    fn topic(self) -> &'static str {
        TOPICS[self.0 / 12 % 2]
    }

    fn qos(self) -> QoS {
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][self.0 / 4 % 3]
    }

    fn payload(self) -> Vec<u8> {
        let mut payload = self.0.to_string().into_bytes();
        if self.is_large() {
            payload.resize(usize::from(LARGE), b' ');
        }
        payload
    }

    fn is_large(self) -> bool {
        self.0 % 11 == 10
    }

    fn of(payload: &[u8]) -> Self {
        let text = std::str::from_utf8(payload).expect("a number");
        Self(text.trim_end().parse().expect("a number"))
    }
}

struct World {
    seed: u64,
    chance: Chance,
    version: Version,
    publisher: Publisher,
    subscriber: Subscriber,
    inbound: Inbound,
    outbound: Outbound,
    /// Durable: the messages in the order of their commit.
    log: Vec<Message>,
}

/// A client that publishes as it should.
struct Publisher {
    unsent: VecDeque<Message>,
    /// In order of sending, with whether PUBREC has come.
    unfinished: Vec<(PacketId, Message, bool)>,
    next_packet_id: PacketId,
    receive_maximum: usize,
    /// On their way.
    to_server: VecDeque<Vec<u8>>,
    from_server: Vec<u8>,
}

/// The server's end of the publisher's connection.
struct Inbound {
    session: Session,
    negotiated: Negotiated,
    /// Handed over, not committed.
    submitted: Vec<(Option<PacketId>, Message)>,
    /// Committed, not yet told to the session; told in any order.
    undecided: Vec<PacketId>,
    /// Durable: QoS 2 packet ids that wait for their PUBREL.
    unreleased: Vec<PacketId>,
}

/// A client that receives as it should.
struct Subscriber {
    /// QoS 2 packet ids between PUBREC and PUBREL.
    received_ids: BTreeMap<PacketId, usize>,
    got: Vec<usize>,
    /// Not yet sent, and sent in any order.
    answers: Vec<Vec<u8>>,
    to_server: VecDeque<Vec<u8>>,
    from_server: Vec<u8>,
    /// Messages of this connection that the client has not answered.
    unanswered: BTreeSet<PacketId>,
    receive_maximum: usize,
}

/// The server's end of the subscriber's connection.
struct Outbound {
    session: Session,
    negotiated: Negotiated,
    /// Being stored.
    storing: VecDeque<(Vec<PacketId>, Stored)>,
    stored: Stored,
}

/// Durable: how far the subscriber is.
#[derive(Clone, Default)]
struct Stored {
    sent: u64,
    inflight: Vec<(PacketId, Offset, QoS, bool)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let version = if chance.below(2) == 0 { Version::V3 } else { Version::V5 };
        let publisher_maximum = 1 + chance.below(5);
        let subscriber_maximum = 1 + chance.below(5);
        let inbound = negotiated(version, 10, publisher_maximum);
        let outbound = negotiated(version, subscriber_maximum, 10);
        Self {
            seed,
            chance,
            version,
            publisher: Publisher {
                unsent: (0..MESSAGES).map(Message).collect(),
                unfinished: Vec::new(),
                next_packet_id: PacketId::FIRST,
                receive_maximum: publisher_maximum,
                to_server: VecDeque::new(),
                from_server: Vec::new(),
            },
            subscriber: Subscriber {
                received_ids: BTreeMap::new(),
                got: Vec::new(),
                answers: Vec::new(),
                to_server: VecDeque::new(),
                from_server: Vec::new(),
                unanswered: BTreeSet::new(),
                receive_maximum: usize::from(outbound.send_maximum),
            },
            inbound: Inbound {
                session: Session::resume(inbound, None, Offset(0), [], vec![]),
                negotiated: inbound,
                submitted: Vec::new(),
                undecided: Vec::new(),
                unreleased: Vec::new(),
            },
            outbound: Outbound {
                session: resumed(outbound, &Stored::default()),
                negotiated: outbound,
                storing: VecDeque::new(),
                stored: Stored::default(),
            },
            log: Vec::new(),
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            let choice = self.chance.below(40);
            self.step(choice);
        }
        // Then nothing breaks any more, and everything has to arrive.
        self.lose_publisher();
        self.lose_subscriber();
        for _ in 0..200 {
            (3..40).for_each(|choice| self.step(choice));
        }
        self.judge();
    }

    fn step(&mut self, choice: usize) {
        match choice {
            0 => self.crash(),
            1 => self.lose_publisher(),
            2 => self.lose_subscriber(),
            3..=8 => self.publish(),
            9..=13 => self.server_reads_publisher(),
            14..=16 => self.commit(),
            17..=19 => self.decide(),
            20..=22 => self.publisher_reads(),
            23..=27 => self.deliver(),
            28..=29 => self.store(),
            30..=33 => self.subscriber_reads(),
            34..=36 => self.subscriber_answers(),
            _ => self.server_reads_subscriber(),
        }
    }

    // ---- the publisher's way ----

    fn publish(&mut self) {
        let publisher = &mut self.publisher;
        let Some(&message) = publisher.unsent.front() else { return };
        let qos = message.qos();
        if qos != QoS::AtMostOnce && publisher.unfinished.len() >= publisher.receive_maximum {
            return;
        }
        publisher.unsent.pop_front();
        let packet_id = (qos != QoS::AtMostOnce).then_some(publisher.next_packet_id);
        if let Some(packet_id) = packet_id {
            publisher.unfinished.push((packet_id, message, false));
            // Few, so that they are soon used again.
            while publisher.unfinished.iter().any(|(id, ..)| *id == publisher.next_packet_id) {
                publisher.next_packet_id =
                    PacketId::new(publisher.next_packet_id.0.get() % 8 + 1).expect("1 to 8");
            }
        }
        self.send_publish(message, packet_id, false);
    }

    fn send_publish(&mut self, message: Message, packet_id: Option<PacketId>, dup: bool) {
        let payload = message.payload();
        let publish = Packet::Publish(Publish {
            dup,
            qos: message.qos(),
            retain: false,
            topic: message.topic(),
            packet_id,
            properties: Properties::EMPTY,
            payload: &payload,
        });
        self.publisher.to_server.push_back(encoded(&publish, self.version));
    }

    fn server_reads_publisher(&mut self) {
        if !self.inbound.session.accepts_packets() {
            return;
        }
        let Some(bytes) = self.publisher.to_server.pop_front() else { return };
        let inbound = &mut self.inbound;
        let (packet, _) = decode(&bytes, self.version, u32::MAX).expect("valid").expect("whole");
        let action = inbound.session.receive(packet, &mut self.publisher.from_server);
        match action.unwrap_or_else(|violation| panic!("seed {}: {violation}", self.seed)) {
            Action::Publish(publish) => {
                inbound.submitted.push((publish.packet_id, Message::of(publish.payload)));
            }
            Action::Release(packet_id) => {
                inbound.unreleased.retain(|it| *it != packet_id);
                inbound.session.released(packet_id, &mut self.publisher.from_server);
            }
            _ => {}
        }
    }

    /// One transaction: the messages, and the packet ids of those with QoS 2.
    fn commit(&mut self) {
        for (packet_id, message) in std::mem::take(&mut self.inbound.submitted) {
            let Some(packet_id) = packet_id else {
                self.pass_on(message);
                continue;
            };
            self.log.push(message);
            if message.qos() == QoS::ExactlyOnce {
                self.inbound.unreleased.push(packet_id);
            }
            self.inbound.undecided.push(packet_id);
        }
    }

    /// QoS 0 is in no log: it reaches a subscriber that is there, or nobody.
    fn pass_on(&mut self, message: Message) {
        let session = &mut self.outbound.session;
        if !session.has_to_resend() {
            let payload = message.payload();
            let delivery = Delivery { place: Place::Unlogged, ..delivery(message, &payload, Offset(0)) };
            session.deliver(&delivery, &mut self.subscriber.from_server);
        }
    }

    fn decide(&mut self) {
        if self.inbound.undecided.is_empty() {
            return;
        }
        let at = self.chance.below(self.inbound.undecided.len());
        let packet_id = self.inbound.undecided.remove(at);
        self.inbound.session.publish_decided(packet_id, ReasonCode::Success, &mut self.publisher.from_server);
    }

    fn publisher_reads(&mut self) {
        let bytes = std::mem::take(&mut self.publisher.from_server);
        for packet in packets(&bytes, self.version) {
            let (packet_id, qos) = match &packet {
                Packet::PubAck(ack) => (ack.packet_id, QoS::AtLeastOnce),
                Packet::PubRec(ack) | Packet::PubComp(ack) => (ack.packet_id, QoS::ExactlyOnce),
                other => panic!("seed {}: {other:?}", self.seed),
            };
            let unfinished = &mut self.publisher.unfinished;
            let at = unfinished.iter().position(|(id, message, _)| *id == packet_id && message.qos() == qos);
            let at = at.unwrap_or_else(|| panic!("seed {}: {packet:?} answers nothing", self.seed));
            if let Packet::PubRec(_) = packet {
                unfinished[at].2 = true;
                let pubrel = encoded(&Packet::PubRel(ack(packet_id)), self.version);
                self.publisher.to_server.push_back(pubrel);
            } else {
                unfinished.remove(at);
            }
        }
    }

    /// The connection breaks, and a new one takes the session up.
    fn lose_publisher(&mut self) {
        // What was handed over is committed before the session is opened again.
        self.commit();
        self.reopen_inbound();
    }

    fn reopen_inbound(&mut self) {
        let inbound = &mut self.inbound;
        inbound.submitted.clear();
        inbound.undecided.clear();
        let unreleased = inbound.unreleased.clone();
        inbound.session = Session::resume(inbound.negotiated, None, Offset(0), [], unreleased);
        self.publisher.to_server.clear();
        self.publisher.from_server.clear();
        // [MQTT-4.4.0-1]
        for (packet_id, message, released) in self.publisher.unfinished.clone() {
            if released {
                let pubrel = encoded(&Packet::PubRel(ack(packet_id)), self.version);
                self.publisher.to_server.push_back(pubrel);
            } else {
                self.send_publish(message, Some(packet_id), true);
            }
        }
    }

    // ---- the subscriber's way ----

    fn deliver(&mut self) {
        let outbound = &mut self.outbound;
        let session = &mut outbound.session;
        let out = &mut self.subscriber.from_server;
        if session.has_to_resend() {
            let Some(next) = session.next_to_resend() else { return };
            let offset = next.offset.expect("all is in the log");
            let message = self.log[index(offset)];
            session.resend(next, Some(&delivery(message, &message.payload(), offset)), out);
            return;
        }
        let offset = Offset(session.sent().0 + 1);
        let Some(&message) = self.log.get(index(offset)) else { return };
        let room = session.has_room();
        let too_large = message.is_large() && self.version == Version::V5;
        let delivered = session.deliver(&delivery(message, &message.payload(), offset), out);
        match delivered {
            Delivered::TooLarge => assert!(too_large, "seed {}", self.seed),
            Delivered::WindowFull => assert!(!room, "seed {}", self.seed),
            Delivered::Sent | Delivered::Held(_) => assert!(!too_large, "seed {}", self.seed),
            Delivered::Known => panic!("seed {}: behind its own cursor", self.seed),
        }
    }

    /// Begins to store what the session wants stored, or ends the oldest.
    fn store(&mut self) {
        let outbound = &mut self.outbound;
        if outbound.session.has_unkept() {
            let stored = outbound.snapshot();
            outbound.storing.push_back((outbound.session.unkept(), stored));
            return;
        }
        let Some((kept, stored)) = outbound.storing.pop_front() else {
            outbound.stored = outbound.snapshot();
            return;
        };
        outbound.stored = stored;
        for packet_id in kept {
            if outbound.session.kept(packet_id, &mut self.subscriber.from_server) {
                let held = outbound.session.inflight().find(|it| it.packet_id == packet_id);
                let offset = held.and_then(|it| it.offset).expect("all is in the log");
                let message = self.log[index(offset)];
                let payload = message.payload();
                let delivery = delivery(message, &payload, offset);
                outbound.session.send_held(packet_id, Some(&delivery), &mut self.subscriber.from_server);
            }
        }
    }

    fn subscriber_reads(&mut self) {
        let bytes = std::mem::take(&mut self.subscriber.from_server);
        let subscriber = &mut self.subscriber;
        for packet in packets(&bytes, self.version) {
            let answer = match packet {
                Packet::Publish(publish) => {
                    let Message(number) = Message::of(publish.payload);
                    let Some(packet_id) = publish.packet_id else {
                        subscriber.got.push(number);
                        continue;
                    };
                    assert!(subscriber.unanswered.insert(packet_id), "seed {}: id in use", self.seed);
                    let window = subscriber.unanswered.len();
                    assert!(window <= subscriber.receive_maximum, "seed {}: {window} at once", self.seed);
                    if publish.qos == QoS::AtLeastOnce {
                        subscriber.got.push(number);
                        Packet::PubAck(ack(packet_id))
                    } else {
                        match subscriber.received_ids.insert(packet_id, number) {
                            None => subscriber.got.push(number),
                            Some(before) => {
                                assert_eq!(before, number, "seed {}: another message", self.seed);
                                assert!(publish.dup, "seed {}: sent again without DUP", self.seed);
                            }
                        }
                        Packet::PubRec(ack(packet_id))
                    }
                }
                Packet::PubRel(pubrel) => {
                    subscriber.received_ids.remove(&pubrel.packet_id);
                    Packet::PubComp(ack(pubrel.packet_id))
                }
                other => panic!("seed {}: {other:?}", self.seed),
            };
            subscriber.answers.push(encoded(&answer, self.version));
        }
    }

    fn subscriber_answers(&mut self) {
        if self.subscriber.answers.is_empty() {
            return;
        }
        let at = self.chance.below(self.subscriber.answers.len());
        let answer = self.subscriber.answers.remove(at);
        self.subscriber.to_server.push_back(answer);
    }

    fn server_reads_subscriber(&mut self) {
        let Some(bytes) = self.subscriber.to_server.pop_front() else { return };
        let (packet, _) = decode(&bytes, self.version, u32::MAX).expect("valid").expect("whole");
        if let Packet::PubAck(ack) | Packet::PubComp(ack) = &packet {
            self.subscriber.unanswered.remove(&ack.packet_id);
        }
        let received = self.outbound.session.receive(packet, &mut self.subscriber.from_server);
        assert!(received.is_ok(), "seed {}: {received:?}", self.seed);
    }

    fn lose_subscriber(&mut self) {
        // An orderly server stores how far it is at the end of each connection.
        self.outbound.stored = self.outbound.snapshot();
        self.reopen_outbound();
    }

    fn reopen_outbound(&mut self) {
        let subscriber = &mut self.subscriber;
        subscriber.answers.clear();
        subscriber.to_server.clear();
        subscriber.from_server.clear();
        subscriber.unanswered.clear();
        // It may come back with another Receive Maximum.
        self.outbound.negotiated = negotiated(self.version, 1 + self.chance.below(5), 10);
        subscriber.receive_maximum = usize::from(self.outbound.negotiated.send_maximum);
        self.outbound.storing.clear();
        self.outbound.session = resumed(self.outbound.negotiated, &self.outbound.stored);
        self.outbound.session.resend_releases(&mut subscriber.from_server);
    }

    /// Only what is durable is left of the server.
    fn crash(&mut self) {
        self.reopen_inbound();
        self.reopen_outbound();
    }

    // ---- the promises ----

    fn judge(&self) {
        let seed = self.seed;
        assert!(self.publisher.unfinished.is_empty(), "seed {seed}: the publisher waits for an answer");
        let log: Vec<usize> = self.log.iter().map(|message| message.0).collect();
        for number in 0..MESSAGES {
            let message = Message(number);
            let committed = log.iter().filter(|it| **it == number).count();
            let got = self.subscriber.got.iter().filter(|it| **it == number).count();
            let (at_least, at_most) = match message.qos() {
                QoS::AtMostOnce => (0, 1),
                QoS::AtLeastOnce => (1, usize::MAX),
                QoS::ExactlyOnce => (1, 1),
            };
            let fine = message.qos() == QoS::AtMostOnce || (at_least..=at_most).contains(&committed);
            assert!(fine, "seed {seed}: {number} committed {committed} times");
            if message.is_large() && self.version == Version::V5 {
                assert_eq!(got, 0, "seed {seed}: {number} is larger than the subscriber takes");
            } else {
                assert!((at_least..=at_most).contains(&got), "seed {seed}: {number} delivered {got} times");
            }
        }
        self.judge_order("log", &log);
        self.judge_order("subscriber", &self.subscriber.got);
    }

    /// What comes for the first time comes in the order of publishing, for each topic and QoS.
    fn judge_order(&self, place: &str, numbers: &[usize]) {
        let mut last = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for &number in numbers {
            let message = Message(number);
            if seen.insert(number) {
                let last = last.insert((message.topic(), message.qos() as u8), number);
                assert!(last < Some(number), "seed {}: {number} after {last:?} in the {place}", self.seed);
            }
        }
    }
}

impl Outbound {
    fn snapshot(&self) -> Stored {
        let inflight =
            self.session.inflight().filter_map(|it| Some((it.packet_id, it.offset?, it.qos, it.released)));
        Stored { sent: self.session.sent().0, inflight: inflight.collect() }
    }
}

fn resumed(negotiated: Negotiated, stored: &Stored) -> Session {
    let left = stored.inflight.iter().map(|&(packet_id, offset, qos, released)| {
        InflightMessage::left(packet_id, offset, qos, false, released)
    });
    let mut session = Session::resume(negotiated, None, Offset(stored.sent), left, vec![]);
    session.keep_exactly_once();
    session
}

fn negotiated(version: Version, client_maximum: usize, server_maximum: usize) -> Negotiated {
    let mut properties = PropertyBuf::new();
    if version == Version::V5 {
        properties.push(Property::ReceiveMaximum(u16::try_from(client_maximum).expect("small")));
        properties.push(Property::MaximumPacketSize(u32::from(LARGE)));
    }
    let connect = Connect {
        version,
        clean_start: false,
        keep_alive: 0,
        client_id: "c",
        will: None,
        username: None,
        password: None,
        properties: properties.as_properties(),
    };
    let receive_maximum = u16::try_from(server_maximum).expect("small");
    let limits = ClientLimits { receive_maximum, inflight_max: INFLIGHT_MAX, ..ClientLimits::DEFAULT };
    ConnectRequest::accept(&connect, &limits).expect("a valid CONNECT").negotiated
}

fn delivery(message: Message, payload: &[u8], offset: Offset) -> Delivery<'_> {
    Delivery {
        topic: message.topic(),
        payload,
        qos: message.qos(),
        retain: false,
        properties: &[],
        expiry_remaining_seconds: None,
        subscription_identifiers: &[],
        place: Place::InOrder(offset),
    }
}

/// Offsets begin with 1.
fn index(offset: Offset) -> usize {
    usize::try_from(offset.0).expect("a short log") - 1
}

fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn packets(bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (packet, len) = decode(rest, version, u32::MAX).expect("valid").expect("whole");
        packets.push(packet);
        rest = &rest[len..];
    }
    packets
}
