//! What must hold of the session machine whatever a client sends and however its driver answers. The fuzz
//! target checks it too.
//!
//! ```text
//! byte 1      version, what CONNECT and CONNACK negotiate
//! byte 2      whether the session is stored
//! then        steps: one byte that chooses, and what the step takes
//! ```

use std::collections::{HashMap, VecDeque};

use sotto_model::{ClientLimits, Offset, PacketId, QoS};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::delivery::{Delivered, Delivery, Place};
use sotto_mqtt::handshake::{ConnectRequest, Negotiated};
use sotto_mqtt::inflight::InflightMessage;
use sotto_mqtt::packet::{Ack, Connect, Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::{Action, Session};

const TOPICS: [&str; 4] = ["a", "long/enough", "long/as/well", "yet/another/one"];

pub(crate) fn check_input(input: &[u8]) {
    let mut input = Input(input);
    let negotiated = negotiated(input.byte());
    let mut driver = Driver::new(negotiated, input.byte() & 1 != 0);
    while let Some(step) = input.next() {
        driver.step(step, &mut input);
        driver.compare();
    }
}

struct Input<'i>(&'i [u8]);

impl<'i> Input<'i> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// 0 behind the end.
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn bytes(&mut self, len: usize) -> &'i [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }
}

fn negotiated(settings: u8) -> Negotiated {
    let version = if settings & 1 == 0 { Version::V3 } else { Version::V5 };
    let mut properties = PropertyBuf::new();
    if version == Version::V5 {
        properties.push(Property::ReceiveMaximum(1 + u16::from(settings >> 1 & 3)));
        properties.push(Property::TopicAliasMaximum(u16::from(settings >> 3 & 3)));
        if settings & 0x20 != 0 {
            properties.push(Property::MaximumPacketSize(40));
        }
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
    let receive_maximum = 1 + u16::from(settings >> 6);
    let limits =
        ClientLimits { receive_maximum, inflight_max: 6, topic_alias_maximum: 2, ..ClientLimits::DEFAULT };
    ConnectRequest::accept(&connect, &limits).expect("a valid CONNECT").negotiated
}

/// Drives a session as the documentation of [`Session`] demands, beside the simplest account of what it
/// should be doing.
struct Driver {
    negotiated: Negotiated,
    /// What a QoS 2 exchange has come to is made durable first.
    keeps: bool,
    session: Session,
    out: Vec<u8>,
    /// Received and not yet decoded.
    unread: Vec<u8>,
    /// The messages of the log, by offset from 1 on.
    log: Vec<Message>,
    /// PUBLISH packets to be answered, in order of arrival.
    received: VecDeque<Received>,
    unreleased: Vec<PacketId>,
    /// PUBRELs that the driver has yet to make durable.
    releasing: Vec<PacketId>,
    quota: u16,
    /// Of `unreleased`, those that an earlier connection left: they do not count against its quota.
    unreleased_before: usize,
    inflight: Vec<Sent>,
    /// Being stored.
    storing: VecDeque<PacketId>,
    received_aliases: HashMap<u16, String>,
    sent_aliases: HashMap<u16, String>,
}

#[derive(Clone, Copy)]
struct Message {
    topic: &'static str,
    payload_len: usize,
    retain: bool,
}

struct Received {
    packet_id: PacketId,
    exactly_once: bool,
    outcome: Option<ReasonCode>,
}

#[derive(Clone, Copy)]
struct Sent {
    packet_id: PacketId,
    offset: Option<Offset>,
    qos: QoS,
    released: bool,
    held: bool,
    kept: bool,
}

impl Driver {
    fn new(negotiated: Negotiated, keeps: bool) -> Self {
        let mut session = Session::resume(negotiated, None, Offset(0), [], vec![]);
        if keeps {
            session.keep_exactly_once();
        }
        Self {
            negotiated,
            keeps,
            session,
            out: Vec::new(),
            unread: Vec::new(),
            log: Vec::new(),
            received: VecDeque::new(),
            unreleased: Vec::new(),
            releasing: Vec::new(),
            quota: negotiated.receive_maximum,
            unreleased_before: 0,
            inflight: Vec::new(),
            storing: VecDeque::new(),
            received_aliases: HashMap::new(),
            sent_aliases: HashMap::new(),
        }
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        match step % 14 {
            0 | 1 => {
                let len = usize::from(input.byte());
                self.unread.extend(input.bytes(len));
            }
            2 => self.client_publishes(input.byte(), input.byte()),
            3 => self.client_answers(input.byte()),
            4 => {
                let packet_id = PacketId::new(u16::from(input.byte())).unwrap_or(PacketId::FIRST);
                self.write(&Packet::PubRel(ack(packet_id)));
            }
            5 | 6 => self.decide(input.byte(), input.byte()),
            7 => self.make_release_durable(input.byte()),
            8 | 9 => self.deliver(input.byte(), input.byte()),
            10 => {
                self.log.push(Message { topic: "a", payload_len: 0, retain: false });
                self.session.pass_over(self.head());
            }
            11 => self.reconnect(),
            12 => self.storing.extend(self.session.unkept()),
            _ => self.store_one(input.byte()),
        }
        self.read();
    }

    fn head(&self) -> Offset {
        Offset(self.log.len() as u64)
    }

    /// A PUBLISH as a client might send it.
    fn client_publishes(&mut self, choice: u8, alias: u8) {
        let qos = QoS::from_bits(choice & 3).unwrap_or(QoS::ExactlyOnce);
        let mut properties = PropertyBuf::new();
        if self.negotiated.version == Version::V5 && alias & 0x80 != 0 {
            properties.push(Property::TopicAlias(u16::from(alias & 3)));
        }
        let by_alias = alias & 0xc0 == 0xc0 && !properties.as_properties().is_empty();
        self.write(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: if by_alias { "" } else { TOPICS[usize::from(choice >> 2 & 3)] },
            packet_id: (qos != QoS::AtMostOnce).then(|| PacketId::new(1 + u16::from(choice >> 4))).flatten(),
            properties: properties.as_properties(),
            payload: b"p",
        }));
    }

    /// The answer that one of the messages in flight waits for.
    fn client_answers(&mut self, choice: u8) {
        let Some(message) = pick(&self.inflight, choice).copied() else { return };
        let mut answer = ack(message.packet_id);
        if choice & 0x80 != 0 && self.negotiated.version == Version::V5 {
            answer.reason = ReasonCode::QuotaExceeded;
        }
        let packet = match (message.qos, message.released) {
            (QoS::ExactlyOnce, true) => Packet::PubComp(ack(message.packet_id)),
            (QoS::ExactlyOnce, false) => Packet::PubRec(answer),
            _ => Packet::PubAck(answer),
        };
        self.write(&packet);
    }

    fn write(&mut self, packet: &Packet<'_>) {
        packet.encode(self.negotiated.version, &mut self.unread);
    }

    /// Hands the session what came, packet by packet, as long as it takes any.
    fn read(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        while self.session.accepts_packets() {
            match decode(&unread[at..], self.negotiated.version, 4096) {
                Ok(None) => break,
                Ok(Some((packet, len))) => {
                    if !self.receive(packet) {
                        return self.reconnect();
                    }
                    at += len;
                }
                Err(error) => {
                    self.session.disconnect(error.reason, Some(error.what), None, &mut self.out);
                    return self.reconnect();
                }
            }
        }
        // What it does not take waits in the socket.
        self.unread = unread[at..].to_vec();
    }

    /// Whether the connection goes on.
    fn receive(&mut self, packet: Packet<'_>) -> bool {
        let expected = self.expect(&packet);
        let action = match self.session.receive(packet, &mut self.out) {
            Ok(action) => action,
            Err(violation) => {
                assert!(expected.is_none(), "refused: {violation}");
                assert!(self.out.is_empty(), "refused and answered");
                self.session.disconnect(violation.reason, Some(violation.what), None, &mut self.out);
                return false;
            }
        };
        let expected = expected.expect("a violation was let through");
        match action {
            Action::Publish(publish) => {
                let topic = self.session.topic(&publish).to_owned();
                assert!(!topic.is_empty(), "a PUBLISH without a topic");
                if let Some(alias) = publish.properties.topic_alias() {
                    assert_eq!(self.received_aliases.get(&alias), Some(&topic), "alias {alias}");
                }
                if let Some(packet_id) = publish.packet_id {
                    self.quota = self.quota.saturating_sub(1);
                    let exactly_once = publish.qos == QoS::ExactlyOnce;
                    self.received.push_back(Received { packet_id, exactly_once, outcome: None });
                }
            }
            Action::Release(packet_id) => {
                if !self.releasing.contains(&packet_id) {
                    self.unreleased.retain(|it| *it != packet_id);
                    self.releasing.push(packet_id);
                }
            }
            Action::Subscribe(subscribe) => {
                let reasons = vec![0; subscribe.filters.len()];
                self.session.subscribed(subscribe.packet_id, &reasons, &mut self.out);
                self.take_packets(1);
                return true;
            }
            Action::Unsubscribe(unsubscribe) => {
                let reasons = vec![0; unsubscribe.filters.len()];
                self.session.unsubscribed(unsubscribe.packet_id, &reasons, &mut self.out);
                self.take_packets(1);
                return true;
            }
            Action::Disconnect { .. } => return false,
            Action::None | Action::WindowMoved(_) => {}
            Action::Authenticate { .. } => panic!("no method was agreed on"),
        }
        self.take(&expected);
        true
    }

    /// What the packet is to be answered with at once; `None` when it breaks the protocol.
    fn expect(&mut self, packet: &Packet<'_>) -> Option<Vec<String>> {
        let nothing = Some(Vec::new());
        match packet {
            Packet::Publish(publish) => self.expect_of_publish(publish),
            Packet::PubAck(ack) => match self.position(ack.packet_id) {
                None => nothing,
                Some(at) if self.inflight[at].qos == QoS::AtLeastOnce => {
                    self.inflight.remove(at);
                    nothing
                }
                Some(_) => None,
            },
            Packet::PubRec(ack) => match self.position(ack.packet_id) {
                None if ack.reason.is_error() => nothing,
                None => Some(vec![format!("PUBREL {} {}", ack.packet_id.0, self.code(0x92))]),
                Some(at) if self.inflight[at].qos != QoS::ExactlyOnce => None,
                Some(at) if ack.reason.is_error() => {
                    self.inflight.remove(at);
                    nothing
                }
                Some(at) => {
                    let message = &mut self.inflight[at];
                    if !message.released {
                        message.kept = !self.keeps || message.offset.is_none();
                    }
                    message.released = true;
                    let kept = message.kept;
                    Some(kept.then(|| format!("PUBREL {} 0", ack.packet_id.0)).into_iter().collect())
                }
            },
            Packet::PubComp(ack) => match self.position(ack.packet_id) {
                None => nothing,
                Some(at) if self.inflight[at].released => {
                    self.inflight.remove(at);
                    nothing
                }
                Some(_) => None,
            },
            Packet::PubRel(ack) if self.awaits_release(ack.packet_id) => nothing,
            Packet::PubRel(ack) => Some(vec![format!("PUBCOMP {} {}", ack.packet_id.0, self.code(0x92))]),
            Packet::PingReq => Some(vec!["PINGRESP".into()]),
            Packet::Subscribe(_) | Packet::Unsubscribe(_) => nothing,
            Packet::Disconnect(disconnect) => {
                let prolonged = disconnect.properties.session_expiry_interval().unwrap_or(0) != 0;
                let ends = self.session.negotiated().session_expiry_seconds == 0;
                if prolonged && ends { None } else { nothing }
            }
            _ => None,
        }
    }

    fn expect_of_publish(&mut self, publish: &Publish<'_>) -> Option<Vec<String>> {
        match publish.properties.topic_alias() {
            None if publish.topic.is_empty() => return None,
            None => {}
            Some(alias) if alias == 0 || alias > self.negotiated.topic_alias_maximum => return None,
            Some(alias) if publish.topic.is_empty() => {
                self.received_aliases.get(&alias)?;
            }
            Some(alias) => {
                self.received_aliases.insert(alias, publish.topic.to_owned());
            }
        }
        if publish.properties.subscription_identifier().is_some() {
            return None;
        }
        let Some(packet_id) = publish.packet_id else { return Some(Vec::new()) };
        if publish.qos == QoS::ExactlyOnce && self.awaits_release(packet_id) {
            return Some(vec![format!("PUBREC {packet_id} 0", packet_id = packet_id.0)]);
        }
        let limited = self.negotiated.version == Version::V5;
        if limited && self.quota == 0 { None } else { Some(Vec::new()) }
    }

    fn decide(&mut self, choice: u8, outcome: u8) {
        let undecided: Vec<_> =
            self.received.iter().filter(|it| it.outcome.is_none()).map(|it| it.packet_id).collect();
        let Some(&packet_id) = pick(&undecided, choice) else { return };
        let outcome = if outcome & 1 == 0 { ReasonCode::Success } else { ReasonCode::NotAuthorized };
        let first = self.received.iter_mut().find(|it| it.packet_id == packet_id && it.outcome.is_none());
        first.expect("just listed").outcome = Some(outcome);
        let mut expected = Vec::new();
        while let Some(reason) = self.received.front().and_then(|it| it.outcome) {
            let answered = self.received.pop_front().expect("the front is there");
            let name = if answered.exactly_once { "PUBREC" } else { "PUBACK" };
            expected.push(format!("{name} {} {}", answered.packet_id.0, self.code(reason.code())));
            if answered.exactly_once && !reason.is_error() {
                self.unreleased.push(answered.packet_id);
            } else {
                self.give_back();
            }
        }
        self.session.publish_decided(packet_id, outcome, &mut self.out);
        self.take(&expected);
    }

    fn make_release_durable(&mut self, choice: u8) {
        let Some(&packet_id) = pick(&self.releasing, choice) else { return };
        self.releasing.retain(|it| *it != packet_id);
        self.give_back();
        self.session.released(packet_id, &mut self.out);
        self.take(&[format!("PUBCOMP {} 0", packet_id.0)]);
    }

    fn give_back(&mut self) {
        self.quota = (self.quota + 1).min(self.negotiated.receive_maximum);
    }

    fn deliver(&mut self, choice: u8, payload_len: u8) {
        if self.session.has_to_resend() {
            return self.resend_one();
        }
        let qos = QoS::from_bits(choice & 3).unwrap_or(QoS::AtLeastOnce);
        let message = Message {
            topic: TOPICS[usize::from(choice >> 2 & 3)],
            payload_len: payload_len.into(),
            retain: choice & 0x40 != 0,
        };
        self.log.push(message);
        let place = match choice >> 4 & 3 {
            0 => Place::Unlogged,
            1 => Place::OutOfOrder(self.head()),
            _ => Place::InOrder(self.head()),
        };
        let room = self.session.has_room();
        let in_log = place != Place::Unlogged;
        let hold =
            self.keeps && in_log && (qos == QoS::ExactlyOnce || self.inflight.iter().any(|it| it.held));
        let payload = vec![b'p'; message.payload_len];
        let delivered = self.session.deliver(&delivery(message, &payload, qos, place), &mut self.out);
        let packet_id = match delivered {
            Delivered::Sent => self.take_publish(message, qos, false),
            Delivered::Held(packet_id) => Some(packet_id),
            Delivered::TooLarge => {
                assert!(message.payload_len + message.topic.len() + 16 > 40, "it would have fitted");
                assert_ne!(self.negotiated.packet_bytes_max, u32::MAX);
                None
            }
            Delivered::WindowFull => {
                assert!(qos != QoS::AtMostOnce && !room);
                assert_eq!(self.inflight.len(), usize::from(self.negotiated.send_maximum));
                None
            }
            Delivered::Known => unreachable!("its offset is new"),
        };
        self.take(&[]);
        if let Some(packet_id) = packet_id {
            assert_eq!(matches!(delivered, Delivered::Held(_)), hold);
            assert_eq!(self.position(packet_id), None, "packet id {} is in use", packet_id.0);
            let offset = in_log.then(|| self.head());
            self.inflight.push(Sent { packet_id, offset, qos, released: false, held: hold, kept: !hold });
        }
    }

    /// One of the messages in flight is stored as it is.
    fn store_one(&mut self, choice: u8) {
        let Some(packet_id) = self.storing.pop_front() else { return };
        let to_send = self.session.kept(packet_id, &mut self.out);
        let Some(at) = self.position(packet_id) else {
            assert!(!to_send);
            return self.take(&[]);
        };
        self.inflight[at].kept = true;
        let Sent { offset, qos, released, held, .. } = self.inflight[at];
        assert_eq!(to_send, held && !released);
        if released {
            return self.take(&[format!("PUBREL {} 0", packet_id.0)]);
        }
        if !to_send {
            return self.take(&[]);
        }
        if choice & 7 == 7 {
            self.session.send_held(packet_id, None, &mut self.out);
            self.inflight.remove(at);
            return self.take(&[]);
        }
        let offset = offset.expect("only what is in the log is held");
        let message = self.message(offset);
        let payload = vec![b'p'; message.payload_len];
        let delivery = delivery(message, &payload, qos, Place::InOrder(offset));
        self.session.send_held(packet_id, Some(&delivery), &mut self.out);
        self.inflight[at].held = false;
        assert_eq!(self.take_publish(message, qos, false), Some(packet_id));
        self.take(&[]);
    }

    /// The connection ends, and the client comes back to the session that was kept.
    fn reconnect(&mut self) {
        // PUBLISH packets that were not answered are as if they had not come; their PUBACK may have been lost.
        self.received.clear();
        self.releasing.clear();
        self.unread.clear();
        self.out.clear();
        self.received_aliases.clear();
        self.sent_aliases.clear();
        self.storing.clear();
        self.quota = self.negotiated.receive_maximum;
        self.unreleased_before = self.unreleased.len();
        self.inflight.retain(|message| message.offset.is_some());
        for message in &mut self.inflight {
            message.held = false;
            message.kept = true;
        }
        let left: Vec<_> = self
            .session
            .inflight()
            .filter_map(|it| {
                Some(InflightMessage::left(it.packet_id, it.offset?, it.qos, it.retain, it.released))
            })
            .collect();
        let unreleased = self.session.unreleased().to_vec();
        self.session = Session::resume(self.negotiated, None, self.session.sent(), left, unreleased);
        if self.keeps {
            self.session.keep_exactly_once();
        }
        let released: Vec<_> = self.inflight.iter().filter(|message| message.released).collect();
        let expected: Vec<_> = released.iter().map(|it| format!("PUBREL {} 0", it.packet_id.0)).collect();
        self.session.resend_releases(&mut self.out);
        self.take(&expected);
    }

    fn resend_one(&mut self) {
        let Some(next) = self.session.next_to_resend() else { return };
        let offset = next.offset.expect("only what is in the log is resumed");
        let message = self.message(offset);
        // A body may be gone; then the message is given up.
        if message.payload_len % 7 == 6 {
            self.session.resend(next, None, &mut self.out);
            if next.qos != QoS::ExactlyOnce {
                self.inflight.retain(|it| it.packet_id != next.packet_id);
                return self.take(&[]);
            }
            // The client may have it: the packet id is let go of on both sides.
            let at = self.position(next.packet_id).expect("in flight");
            let message = &mut self.inflight[at];
            message.released = true;
            message.kept = !self.keeps;
            let told = message.kept.then(|| format!("PUBREL {} 0", next.packet_id.0));
            return self.take(told.as_slice());
        }
        let payload = vec![b'p'; message.payload_len];
        // QoS and RETAIN stay what they were when it was first sent.
        let mut delivery = delivery(message, &payload, QoS::ExactlyOnce, Place::InOrder(offset));
        delivery.retain = false;
        self.session.resend(next, Some(&delivery), &mut self.out);
        let packet_id = self.take_publish(message, next.qos, true);
        assert_eq!(packet_id, Some(next.packet_id));
        self.take(&[]);
    }

    /// Takes one PUBLISH from what was written.
    fn take_publish(&mut self, message: Message, qos: QoS, dup: bool) -> Option<PacketId> {
        let version = self.negotiated.version;
        let (packet, len) = decode(&self.out, version, self.negotiated.packet_bytes_max)
            .expect("what is written decodes, and is not too large")
            .expect("whole");
        let Packet::Publish(publish) = packet else { panic!("not a PUBLISH: {packet:?}") };
        assert_eq!((publish.qos, publish.dup, publish.retain), (qos, dup, message.retain));
        assert_eq!(publish.payload.len(), message.payload_len);
        if let Some(alias) = publish.properties.topic_alias() {
            assert!((1..=self.negotiated.topic_aliases_sent_max).contains(&alias), "alias {alias}");
            if !publish.topic.is_empty() {
                self.sent_aliases.insert(alias, publish.topic.to_owned());
            }
            assert_eq!(self.sent_aliases[&alias], message.topic);
        } else {
            assert_eq!(publish.topic, message.topic);
        }
        let packet_id = publish.packet_id;
        self.out.drain(..len);
        packet_id
    }

    /// What was written is this and nothing else.
    fn take(&mut self, expected: &[String]) {
        let written = self.take_packets(expected.len());
        assert_eq!(written, expected);
    }

    fn take_packets(&mut self, count: usize) -> Vec<String> {
        let mut written = Vec::new();
        let mut at = 0;
        while at < self.out.len() {
            let (packet, len) =
                decode(&self.out[at..], self.negotiated.version, u32::MAX).expect("valid").expect("whole");
            written.push(match packet {
                Packet::PubAck(ack) => line("PUBACK", &ack),
                Packet::PubRec(ack) => line("PUBREC", &ack),
                Packet::PubRel(ack) => line("PUBREL", &ack),
                Packet::PubComp(ack) => line("PUBCOMP", &ack),
                Packet::PingResp => "PINGRESP".into(),
                other => format!("{other:?}"),
            });
            at += len;
        }
        self.out.clear();
        assert_eq!(written.len(), count, "{written:?}");
        written
    }

    /// The session's account and the simple one are the same.
    fn compare(&self) {
        let inflight: Vec<_> =
            self.session.inflight().map(|it| (it.packet_id, it.offset, it.qos, it.released)).collect();
        let expected = self.inflight.iter().map(|it| (it.packet_id, it.offset, it.qos, it.released));
        assert_eq!(inflight, expected.collect::<Vec<_>>());
        assert!(inflight.len() <= usize::from(self.negotiated.send_maximum), "the window is exceeded");
        let mut unreleased = self.session.unreleased().to_vec();
        let mut expected = self.unreleased.clone();
        unreleased.sort_unstable();
        expected.sort_unstable();
        assert_eq!(unreleased, expected);
        assert_eq!(self.session.unanswered(), self.received.len());
        if self.negotiated.version == Version::V5 {
            // Completing what an earlier connection began gives the client another PUBLISH. (§4.9)
            let more = self.unreleased_before;
            assert!(self.received.len() <= usize::from(self.negotiated.receive_maximum) + more);
        }
        assert!(self.session.sent() <= self.head());
    }

    fn awaits_release(&self, packet_id: PacketId) -> bool {
        self.unreleased.contains(&packet_id) || self.releasing.contains(&packet_id)
    }

    fn message(&self, offset: Offset) -> Message {
        self.log[usize::try_from(offset.0).expect("a short log") - 1]
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        self.inflight.iter().position(|message| message.packet_id == packet_id)
    }

    /// The Reason Code as it arrives: 3.1.1 has none.
    fn code(&self, code: u8) -> u8 {
        if self.negotiated.version == Version::V5 { code } else { 0 }
    }
}

fn delivery(message: Message, payload: &[u8], qos: QoS, place: Place) -> Delivery<'_> {
    Delivery {
        topic: message.topic,
        payload,
        qos,
        retain: message.retain,
        properties: &[],
        expiry_remaining_seconds: None,
        subscription_identifiers: &[],
        place,
    }
}

fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
}

fn line(name: &str, ack: &Ack<'_>) -> String {
    format!("{name} {} {}", ack.packet_id.0, ack.reason.code())
}

fn pick<T>(from: &[T], choice: u8) -> Option<&T> {
    let at = usize::from(choice & 0x7f).checked_rem(from.len())?;
    from.get(at)
}
