//! One client: connects, publishes, subscribes, acknowledges, and is cut off, again and again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions, TopicFilter, TopicName};
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{
    Ack, Connect, Disconnect, Packet, Publish, Subscribe, SubscribeFilters, Unsubscribe, UnsubscribeFilters,
    Version, Will,
};
use sotto_mqtt::reason::ReasonCode;
use tokio::time::{Sleep, sleep};

use crate::simulation::line::{Delivered, Incoming, Line, Next};
use crate::simulation::memory::{Expects, Held, Memory, Outgoing};
use crate::simulation::oracle::{ClientNo, Event, MessageNo, Receiver};
use crate::simulation::plan::{
    CONVERSATIONS, Chance, ClientPlan, Household, USERS, conversation_id, conversation_of, user_id,
};
use crate::simulation::surroundings::{PASSWORD, POISON, Phase, Surroundings};

/// Of its own messages, so many wait for their acknowledgement at most.
const OUTGOING_MAX: usize = 8;
/// Bytes that wait to be written, past which nothing is published.
const UNSENT_BYTES_MAX: usize = 4096;
const KEEP_ALIVE_SECONDS: u16 = 30;

pub(super) struct Client {
    pub(super) no: ClientNo,
    pub(super) plan: ClientPlan,
    /// Locked by the client's own task between two waits, and by the world when it looks.
    pub(super) memory: Mutex<Memory>,
}

/// How a connection ended, from here.
enum End {
    Closed,
    /// The line is left open, and nobody listens.
    Left(Line),
}

/// One connection's own.
struct Connection<'a> {
    client: &'a Client,
    life: &'a dyn Surroundings,
    line: Line,
    /// Acknowledgements owed to the broker.
    owed: Vec<(PacketId, QoS)>,
    /// Subscriptions asked for.
    asked: Vec<(PacketId, String, QoS)>,
    is_open: bool,
    /// What CONNACK must say.
    expects: Expects,
    outlives: bool,
    reads: bool,
    clean: bool,
}

impl Client {
    pub(super) fn new(no: ClientNo, plan: ClientPlan, chance: Chance) -> Self {
        Self { no, plan, memory: Mutex::new(Memory::new(chance)) }
    }

    pub(super) fn user(&self) -> Option<usize> {
        match self.plan.household {
            Household::Clinic(user) => Some(user),
            Household::Lab | Household::LabShare => None,
        }
    }

    /// The one filter of a client that shares.
    pub(super) fn share(&self) -> Option<&'static str> {
        let shares = self.plan.household == Household::LabShare;
        shares.then_some(if self.no.0.is_multiple_of(2) { "$share/g/a/+" } else { "$share/g/a/#" })
    }

    /// Runs until the life ends.
    pub(super) async fn live(self: Arc<Self>, life: Arc<dyn Surroundings>) {
        let mut left: Vec<Line> = Vec::new();
        loop {
            let pause = {
                let mut memory = self.memory.lock();
                let max = if life.is_busy() { self.plan.offline_ms_max } else { 100 };
                if memory.chance.percent(30) {
                    left.clear();
                }
                memory.chance.millis(max)
            };
            sleep(pause).await;
            if self.is_to_sleep(&*life) {
                continue;
            }
            let end = Connection::begin(&self, &*life).run().await;
            self.memory.lock().is_online = false;
            match end {
                End::Closed => {}
                End::Left(line) => left.push(line),
            }
            left.truncate(2);
        }
    }

    fn is_to_sleep(&self, life: &dyn Surroundings) -> bool {
        self.plan.sleeps && self.plan.persistent && matches!(life.phase(), Phase::Sleep | Phase::Hush)
    }
}

impl<'a> Connection<'a> {
    fn begin(client: &'a Client, life: &'a dyn Surroundings) -> Self {
        let line = Line::new(life.dial(), client.plan.version);
        let mut connection = Self {
            client,
            life,
            line,
            owed: Vec::new(),
            asked: Vec::new(),
            is_open: false,
            expects: Expects::Either,
            outlives: false,
            reads: true,
            clean: false,
        };
        connection.connect();
        connection
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.life.note(format_args!("client {} {what}", self.client.no.0));
    }

    fn violation(&self, what: &str) {
        self.note(format_args!("VIOLATION {what}"));
        self.life.oracle().violation(format!("client {} {what}", self.client.no.0));
    }

    fn connect(&mut self) {
        let plan = &self.client.plan;
        let mut memory = self.client.memory.lock();
        self.clean = !plan.persistent
            || memory.must_begin_anew
            || (self.life.is_busy() && plan.restless > 0 && memory.chance.percent(4));
        self.outlives = plan.persistent && !(plan.version == Version::V3 && self.clean);
        self.expects = if self.clean { Expects::Absent } else { memory.expects };
        if self.clean {
            memory.forget();
            memory.must_begin_anew = true;
            memory.expects = Expects::Either;
        } else if memory.expects == Expects::Absent {
            memory.expects = Expects::Either;
        }
        let will = self.will(&mut memory);
        let mut properties = PropertyBuf::new();
        let mut will_properties = PropertyBuf::new();
        if plan.version == Version::V5 {
            properties.push(Property::ReceiveMaximum(plan.receive_maximum));
            if self.outlives {
                properties.push(Property::SessionExpiryInterval(3600));
            }
            will_properties
                .push(Property::WillDelayInterval(u32::try_from(memory.chance.below(4)).expect("few")));
        }
        let username = client_user_name(plan);
        let payload = will.as_ref().map(|(message, _)| self.life.payload(*message)).unwrap_or_default();
        let connect = Connect {
            version: plan.version,
            clean_start: self.clean,
            keep_alive: KEEP_ALIVE_SECONDS,
            client_id: &plan.client_id,
            will: will.as_ref().map(|(_, topic)| Will {
                topic,
                payload: payload.as_bytes(),
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: will_properties.as_properties(),
            }),
            username: username.as_deref(),
            password: username.as_ref().map(|_| PASSWORD.as_bytes()),
            properties: properties.as_properties(),
        };
        self.line.send(&Packet::Connect(connect));
        self.note(format_args!("CONNECT clean {} expects {:?}", self.clean, self.expects));
    }

    fn will(&self, memory: &mut Memory) -> Option<(MessageNo, String)> {
        if !self.client.plan.has_will {
            return None;
        }
        let topic = self.topic(memory)?;
        let oracle = &self.life.oracle();
        Some((oracle.send(self.client.no, &topic, QoS::AtLeastOnce, false, true), topic))
    }

    async fn run(mut self) -> End {
        if self.client.memory.lock().chance.percent(self.client.plan.restless / 2) && self.life.is_busy() {
            let cut = self.client.memory.lock().chance.below(self.line.unsent());
            self.line.cut_output(cut);
            self.note(format_args!("is cut off in CONNECT after {cut} bytes"));
            self.flush().await;
            return End::Closed;
        }
        let mut turn = Box::pin(sleep(self.turn_pause()));
        loop {
            match self.line.next(turn.as_mut(), self.reads).await {
                Next::Closed => {
                    self.note(format_args!("is disconnected"));
                    return End::Closed;
                }
                Next::Packet(packet) => {
                    if !self.receive(packet) {
                        return End::Closed;
                    }
                }
                Next::Turn => {
                    self.reads = true;
                    if let Some(end) = self.turn(&mut turn).await {
                        return end;
                    }
                }
            }
            if !self.client.plan.lazy || !self.life.is_busy() {
                while !self.owed.is_empty() {
                    self.acknowledge(0);
                }
            }
        }
    }

    /// Writes what there is to write, as far as the broker takes it.
    async fn flush(&mut self) {
        let mut soon = Box::pin(sleep(Duration::from_millis(5)));
        while !matches!(self.line.next(soon.as_mut(), false).await, Next::Turn | Next::Closed) {}
    }

    fn turn_pause(&self) -> Duration {
        let max = if self.life.is_busy() { self.client.plan.turn_ms_max } else { 200 };
        Duration::from_millis(1) + self.client.memory.lock().chance.millis(max)
    }

    // ---- what the client does by itself ----

    async fn turn(&mut self, turn: &mut Pin<Box<Sleep>>) -> Option<End> {
        *turn = Box::pin(sleep(self.turn_pause()));
        if !self.is_open {
            return None;
        }
        if self.client.is_to_sleep(self.life) {
            return Some(self.disconnect().await);
        }
        let plan = &self.client.plan;
        let (die, restless) = {
            let mut memory = self.client.memory.lock();
            (memory.chance.below(100), memory.chance.percent(plan.restless) && self.life.is_busy())
        };
        for _ in 0..self.owed.len().min(die % 4) {
            let which = self.client.memory.lock().chance.below(self.owed.len());
            self.acknowledge(which);
        }
        if restless {
            return self.be_restless(die, turn).await;
        }
        match self.life.phase() {
            Phase::Busy | Phase::Sleep if die < plan.publishes => self.publish(),
            Phase::Last => self.publish_last_word(),
            _ => {}
        }
        let holds_any = !self.client.memory.lock().subscriptions.is_empty();
        match die {
            90.. if self.life.is_busy() && holds_any => self.unsubscribe(),
            70..90 if self.life.is_busy() || !holds_any => self.subscribe(),
            _ if !holds_any && self.asked.is_empty() => self.subscribe(),
            60..70 => self.line.send(&Packet::PingReq),
            _ => {}
        }
        None
    }

    async fn be_restless(&mut self, die: usize, turn: &mut Pin<Box<Sleep>>) -> Option<End> {
        match die % 6 {
            0 => Some(self.disconnect().await),
            1 => {
                self.note(format_args!("is cut off"));
                Some(End::Closed)
            }
            2 => {
                self.publish();
                let cut = self.client.memory.lock().chance.below(self.line.unsent());
                self.line.cut_output(cut);
                self.flush().await;
                self.note(format_args!("is cut off in a packet"));
                Some(End::Closed)
            }
            3 => {
                self.note(format_args!("leaves its connection open"));
                let silent = Line::new(tokio::io::duplex(1).0, self.client.plan.version);
                Some(End::Left(std::mem::replace(&mut self.line, silent)))
            }
            _ => {
                self.note(format_args!("stops reading"));
                self.reads = false;
                *turn = Box::pin(sleep(self.client.memory.lock().chance.millis(3000)));
                None
            }
        }
    }

    async fn disconnect(&mut self) -> End {
        let reason = ReasonCode::Success;
        self.line.send(&Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }));
        self.note(format_args!("DISCONNECT"));
        self.flush().await;
        End::Closed
    }

    fn publish(&mut self) {
        let mut memory = self.client.memory.lock();
        if memory.outgoing.len() >= OUTGOING_MAX || self.line.unsent() > UNSENT_BYTES_MAX {
            return;
        }
        let Some(topic) = self.topic(&mut memory) else { return };
        let qos =
            *memory.chance.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let retain = self.client.user().is_none() && memory.chance.percent(6);
        drop(memory);
        self.publish_on(&topic, qos, retain);
    }

    fn publish_last_word(&mut self) {
        let mut memory = self.client.memory.lock();
        if memory.last_words == 0 || memory.outgoing.len() >= OUTGOING_MAX {
            return;
        }
        memory.last_words -= 1;
        let Some(topic) = self.topic(&mut memory) else { return };
        drop(memory);
        self.publish_on(&topic, QoS::AtLeastOnce, false);
    }

    fn publish_on(&mut self, topic: &str, qos: QoS, retain: bool) {
        let life = self.life;
        let message = life.oracle().send(self.client.no, topic, qos, retain, false);
        let packet_id = (qos != QoS::AtMostOnce).then(|| {
            let mut memory = self.client.memory.lock();
            let packet_id = memory.next_packet_id();
            memory.outgoing.push(Outgoing { packet_id, message, qos, is_received: false });
            packet_id
        });
        self.note(format_args!("PUBLISH {} {qos:?} retain {retain} on {topic}", message.0));
        self.send_publish(message, topic, qos, retain, packet_id, false);
    }

    fn send_publish(
        &mut self,
        message: MessageNo,
        topic: &str,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
        dup: bool,
    ) {
        let payload = self.life.payload(message);
        let payload = payload.as_bytes();
        let properties = Properties::EMPTY;
        self.line.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
    }

    /// One that the client may publish on.
    fn topic(&self, memory: &mut Memory) -> Option<String> {
        let life = self.life;
        match self.client.plan.household {
            Household::Lab | Household::LabShare => {
                if self.client.plan.version == Version::V5 && memory.chance.percent(3) {
                    return Some(POISON.to_owned());
                }
                Some(format!("a/{}", memory.chance.below(4)))
            }
            Household::Clinic(user) => {
                let conversation = memory.chance.below(CONVERSATIONS);
                if self.client.plan.version == Version::V5 && memory.chance.percent(10) {
                    return Some(format!("u/{}/in", user_id(memory.chance.below(USERS))));
                }
                // Others are refused: some of the time.
                let is_member = life.oracle().membership(conversation, user).since.is_some();
                if !is_member && (self.client.plan.version == Version::V3 || !memory.chance.percent(20)) {
                    return None;
                }
                let leaf = if memory.chance.percent(70) { "m" } else { "n" };
                Some(format!("c/{}/{leaf}", conversation_id(conversation)))
            }
        }
    }

    fn subscribe(&mut self) {
        if self.asked.len() > 2 {
            return;
        }
        let mut memory = self.client.memory.lock();
        let filter = match self.client.plan.household {
            Household::LabShare => self.client.share().expect("it shares").to_owned(),
            Household::Lab => (*memory.chance.pick(&["a/0", "a/1", "a/+", "a/#", "#"])).to_owned(),
            Household::Clinic(user) => match memory.chance.below(5) {
                0 => format!("c/{}/m", conversation_id(memory.chance.below(CONVERSATIONS))),
                1 => "c/+/m".to_owned(),
                2 => format!("u/{}/#", user_id(user)),
                _ => "c/#".to_owned(),
            },
        };
        let qos = match memory.chance.below(10) {
            0 if self.life.is_busy() && self.client.share().is_none() => QoS::AtMostOnce,
            0..5 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let packet_id = memory.next_packet_id();
        let parsed = TopicFilter::parse(&filter).expect("a filter").unshared();
        let new = Held { filter: parsed, qos, since: None };
        let held = memory.subscriptions.entry(filter.clone()).or_insert(new);
        if qos == QoS::AtMostOnce {
            held.since = None;
        }
        drop(memory);
        self.note(format_args!("SUBSCRIBE {filter} {qos:?}"));
        let retain_handling = RetainHandling::SendAtSubscribe;
        let options =
            SubscriptionOptions { qos, no_local: false, retain_as_published: false, retain_handling };
        let mut raw = Vec::new();
        let filters = SubscribeFilters::encode(&[(&filter, options)], &mut raw);
        self.line.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters }));
        self.asked.push((packet_id, filter, qos));
    }

    fn unsubscribe(&mut self) {
        let mut memory = self.client.memory.lock();
        let filters: Vec<String> = memory.subscriptions.keys().cloned().collect();
        let filter = memory.chance.pick(&filters).clone();
        let packet_id = memory.next_packet_id();
        // From here on nothing is owed for it, whatever is still on its way.
        memory.subscriptions.remove(&filter);
        memory.gave_up = true;
        drop(memory);
        self.asked.retain(|(_, asked, _)| *asked != filter);
        self.note(format_args!("UNSUBSCRIBE {filter}"));
        let mut raw = Vec::new();
        let filters = UnsubscribeFilters::encode(&[&filter], &mut raw);
        let properties = Properties::EMPTY;
        self.line.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }));
    }

    fn acknowledge(&mut self, which: usize) {
        let (packet_id, qos) = self.owed.remove(which);
        let kind = if qos == QoS::ExactlyOnce { Packet::PubRec } else { Packet::PubAck };
        self.answer(kind, packet_id);
    }

    fn answer(&mut self, kind: fn(Ack<'static>) -> Packet<'static>, packet_id: PacketId) {
        self.line.send(&kind(Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }));
    }

    // ---- what the broker says ----

    /// False when the connection is over.
    fn receive(&mut self, packet: Incoming) -> bool {
        match packet {
            Incoming::ConnAck { present, code } => return self.begin_session(present, code),
            Incoming::Publish(delivered) => self.receive_publish(&delivered),
            Incoming::PubAck(packet_id, code) => self.decided(packet_id, code, QoS::AtLeastOnce),
            Incoming::PubRec(packet_id, code) => self.decided(packet_id, code, QoS::ExactlyOnce),
            Incoming::PubRel(packet_id) => {
                self.client.memory.lock().received.remove(&packet_id);
                self.note(format_args!("received PUBREL {}", packet_id.0));
                self.answer(Packet::PubComp, packet_id);
            }
            Incoming::PubComp(packet_id) => {
                self.note(format_args!("received PUBCOMP {}", packet_id.0));
                self.client.memory.lock().done(packet_id);
            }
            Incoming::SubAck(packet_id, reasons) => {
                self.note(format_args!("received SUBACK {reasons:?}"));
                let Some(at) = self.asked.iter().position(|(asked, ..)| *asked == packet_id) else {
                    return true;
                };
                let (_, filter, qos) = self.asked.remove(at);
                let now = self.life.oracle().event();
                let mut memory = self.client.memory.lock();
                if let Some(held) = memory.subscriptions.get_mut(&filter) {
                    if reasons.first().is_some_and(|reason| *reason >= 0x80) {
                        held.since = None;
                    } else {
                        held.qos = qos;
                        held.since = held.since.or(Some(now)).filter(|_| qos != QoS::AtMostOnce);
                    }
                }
            }
            Incoming::UnsubAck => self.note(format_args!("received UNSUBACK")),
            Incoming::PingResp => {}
            Incoming::Disconnect(code) => {
                self.note(format_args!("received DISCONNECT 0x{code:02x}"));
            }
        }
        true
    }

    fn begin_session(&mut self, present: bool, code: u8) -> bool {
        self.note(format_args!("received CONNACK 0x{code:02x} present {present}"));
        if code != 0 {
            return false;
        }
        match self.expects {
            Expects::Absent if present => self.violation("is told of a session that it had ended"),
            Expects::Present if !present => self.violation("is told that its session is lost"),
            _ => {}
        }
        let mut memory = self.client.memory.lock();
        if !present && !self.clean {
            memory.forget();
        }
        memory.must_begin_anew = false;
        memory.expects = if self.outlives { Expects::Present } else { Expects::Either };
        memory.is_online = true;
        self.give_up_refused(&mut memory);
        let outgoing = memory.outgoing.clone();
        drop(memory);
        self.is_open = true;
        // [MQTT-4.4.0-1]
        for Outgoing { packet_id, message, qos, is_received } in outgoing {
            if is_received {
                self.answer(Packet::PubRel, packet_id);
                continue;
            }
            let oracle = &self.life.oracle();
            oracle.sent_again(message);
            let sent = oracle.sent(message);
            self.note(format_args!("PUBLISH {} again", message.0));
            self.send_publish(message, &sent.topic, qos, sent.retain, Some(packet_id), true);
        }
        true
    }

    /// A client of 3.1.1 is cut off for what it may not publish, and would be again.
    fn give_up_refused(&self, memory: &mut Memory) {
        let (Version::V3, Some(user)) = (self.client.plan.version, self.client.user()) else { return };
        let life = self.life;
        for outgoing in &mut memory.outgoing {
            let conversation = conversation_of(&life.oracle().sent(outgoing.message).topic);
            let is_refused = |number| life.oracle().membership(number, user).since.is_none();
            if conversation.is_some_and(is_refused) {
                // With PUBREL its packet id is free, whether it was taken or not.
                outgoing.is_received = true;
            }
        }
        memory.outgoing.retain(|outgoing| !outgoing.is_received || outgoing.qos == QoS::ExactlyOnce);
    }

    fn receive_publish(&mut self, delivered: &Delivered) {
        let Delivered { topic, payload, qos, retain, dup, packet_id } = delivered;
        let number = payload.split('.').next().unwrap_or_default();
        self.note(format_args!(
            "received {number} {qos:?} dup {dup} retain {retain} id {packet_id:?} on {topic}"
        ));
        let mut memory = self.client.memory.lock();
        if let Some(packet_id) = *packet_id {
            // Delivered for the first time now, since the broker sends it again after it was acknowledged.
            self.owed.retain(|(owed, _)| *owed != packet_id);
            self.owed.push((packet_id, *qos));
            if *qos == QoS::ExactlyOnce && !memory.received.insert(packet_id) {
                return;
            }
        }
        let name = TopicName::parse(topic).expect("a topic");
        let receiver = Receiver {
            client: self.client.no,
            session: memory.session,
            user: self.client.user(),
            share: self.client.share(),
            subscribed: memory.subscribed(&name),
        };
        let life = self.life;
        life.oracle().receive(receiver, delivered, conversation_of(topic));
    }

    /// PUBACK or PUBREC has come.
    fn decided(&mut self, packet_id: PacketId, code: u8, qos: QoS) {
        let mut memory = self.client.memory.lock();
        let Some(outgoing) = memory.outgoing(packet_id).filter(|outgoing| outgoing.qos == qos) else {
            drop(memory);
            return self.violation("is told of a message that it did not send");
        };
        let message = outgoing.message;
        let success = code < 0x80;
        outgoing.is_received = true;
        if qos == QoS::AtLeastOnce || !success {
            memory.done(packet_id);
        }
        drop(memory);
        self.note(format_args!(
            "received {} {} 0x{code:02x}",
            if qos == QoS::ExactlyOnce { "PUBREC" } else { "PUBACK" },
            message.0
        ));
        let life = self.life;
        let sent = life.oracle().sent(message);
        if self.counts(&sent.topic, sent.first) || !success {
            life.oracle().acknowledged(message, success);
            if success && let Err(what) = life.is_durable(self.client.user(), &sent.topic) {
                self.violation(&what);
            }
        }
        if success && qos == QoS::ExactlyOnce {
            self.answer(Packet::PubRel, packet_id);
        }
    }

    /// A client of 3.1.1 is not told that it was refused.
    fn counts(&self, topic: &str, first: Event) -> bool {
        match (self.client.plan.version, self.client.user(), conversation_of(topic)) {
            (Version::V3, Some(user), Some(conversation)) => {
                self.life.oracle().membership(conversation, user).since.is_some_and(|since| since < first)
            }
            (Version::V3, Some(_), None) => false,
            _ => true,
        }
    }
}

fn client_user_name(plan: &ClientPlan) -> Option<String> {
    match plan.household {
        Household::Clinic(user) => Some(format!("user{user}@clinic")),
        Household::Lab | Household::LabShare => None,
    }
}
