//! One client's MQTT session as a state machine: no socket, no clock, no store.
//!
//! The driver feeds it what happened and does what it says; packets to send are written to `out`.
//!
//! | happened | call | then |
//! |---|---|---|
//! | a packet came | [`receive`](Session::receive) | do the [`Action`] |
//! | a PUBLISH was stored, routed or refused | [`publish_decided`](Session::publish_decided) | – |
//! | the connection ends before a PUBLISH was handed over, or with its refusal | [`publish_abandoned`](Session::publish_abandoned) | – |
//! | a PUBREL was made durable | [`released`](Session::released) | – |
//! | a message was [`Held`](Delivered::Held), or a PUBREC came ([`has_unkept`](Session::has_unkept)) | [`unkept`](Session::unkept); store what is in flight; [`kept`](Session::kept) for each | [`send_held`](Session::send_held) |
//! | filters were granted or refused | [`subscribed`](Session::subscribed), [`unsubscribed`](Session::unsubscribed) | – |
//! | a message is for this client | [`deliver`](Session::deliver) | keep it when the window is full |
//! | the session was taken up again | [`resend_releases`](Session::resend_releases), then [`next_to_resend`](Session::next_to_resend) and [`resend`](Session::resend) until it yields nothing | only then `deliver` |
//! | the log was read further than its last match | [`pass_over`](Session::pass_over) | – |
//!
//! It orders PUBACK and PUBREC itself, so the driver may decide publishes in any order.

use sotto_model::{Offset, PacketId, QoS};

use crate::codec::DecodeError;
use crate::codec::encode::{encode_publish, publish_len};
use crate::codec::properties::{Properties, Property, PropertyBuf};
use crate::delivery::{Delivered, Delivery, Place, own_properties};
use crate::handshake::{Negotiated, Will};
use crate::inflight::{AckError, Inflight, InflightMessage};
use crate::packet::{
    Ack, Auth, Disconnect, Packet, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe, Version,
};
use crate::reason::ReasonCode;
use crate::received::{Answer, Arrival, Received};
use crate::topic_alias::{ReceivedAliases, Sent, SentAliases};

/// What the driver must do about a packet.
#[derive(Debug, PartialEq)]
pub enum Action<'a> {
    None,
    /// Authorize, store and route it; QoS 1 and 2 are answered by `publish_decided`. Its topic is what
    /// [`Session::topic`] says.
    Publish(Publish<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    /// Forget this QoS 2 packet id durably, then call `released`.
    Release(PacketId),
    /// The client has done with the message of this packet id, or refused it: the window may have room again.
    WindowMoved(PacketId),
    /// The client authenticates once more: with `begin` the first of its messages, else the next.
    Authenticate {
        begin: bool,
        data: &'a [u8],
    },
    /// The client says goodbye. [MQTT-3.14.4-1]
    Disconnect {
        publish_will: bool,
    },
}

/// The client broke the protocol: the connection is to be closed, with DISCONNECT in version 5.
/// [MQTT-4.13.1-1]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    pub reason: ReasonCode,
    pub what: &'static str,
}

impl From<DecodeError> for Violation {
    fn from(error: DecodeError) -> Self {
        Self { reason: error.reason, what: error.what }
    }
}

pub struct Session {
    negotiated: Negotiated,
    received: Received,
    inflight: Inflight,
    /// Every message up to here is sent, or not for this client.
    sent: Offset,
    /// The session is stored: what a QoS 2 exchange has come to is made durable before the client is told.
    keeps: bool,
    has_unkept: bool,
    /// Something may be held.
    has_held: bool,
    will: Option<Box<Will>>,
    /// Nothing before the client's first alias.
    received_aliases: Option<Box<ReceivedAliases>>,
    /// Nothing for a client that takes none.
    sent_aliases: Option<Box<SentAliases>>,
}

/// A session with nothing under way, in a fraction of its memory: what most sessions are most of the time.
pub struct Resting {
    negotiated: Negotiated,
    sent: Offset,
    will: Option<Box<Will>>,
    received_aliases: Option<Box<ReceivedAliases>>,
    sent_aliases: Option<Box<SentAliases>>,
    next_packet_id: PacketId,
    keeps: bool,
}

impl Session {
    /// A session as its connection begins; `inflight` and `unreleased` are what an earlier connection left.
    pub fn resume(
        negotiated: Negotiated,
        will: Option<Box<Will>>,
        sent: Offset,
        inflight: impl IntoIterator<Item = InflightMessage>,
        unreleased: Vec<PacketId>,
    ) -> Self {
        let aliases_max = negotiated.topic_aliases_sent_max;
        Self {
            received: Received::resume(negotiated.receive_maximum, unreleased),
            negotiated,
            inflight: Inflight::resume(inflight),
            sent,
            keeps: false,
            has_unkept: false,
            has_held: false,
            will,
            received_aliases: None,
            sent_aliases: (aliases_max > 0).then(|| Box::new(SentAliases::new(aliases_max))),
        }
    }

    /// The session is stored: exactly once is to hold across a crash. Called before anything else.
    pub fn keep_exactly_once(&mut self) {
        self.keeps = true;
    }

    /// Nothing is in flight in either direction, so that the session can [`rest`](Session::rest).
    pub fn is_at_rest(&self) -> bool {
        self.inflight.is_empty() && self.received.is_at_rest() && !self.has_unkept
    }

    /// Only of a session that is at rest.
    pub fn rest(self) -> Resting {
        debug_assert!(self.is_at_rest());
        Resting {
            negotiated: self.negotiated,
            sent: self.sent,
            will: self.will,
            received_aliases: self.received_aliases,
            sent_aliases: self.sent_aliases,
            next_packet_id: self.inflight.next_packet_id(),
            keeps: self.keeps,
        }
    }

    /// The session as it went to rest.
    pub fn wake(resting: Resting) -> Self {
        Self {
            received: Received::resume(resting.negotiated.receive_maximum, Vec::new()),
            negotiated: resting.negotiated,
            inflight: Inflight::beginning_with(resting.next_packet_id),
            sent: resting.sent,
            keeps: resting.keeps,
            has_unkept: false,
            has_held: false,
            will: resting.will,
            received_aliases: resting.received_aliases,
            sent_aliases: resting.sent_aliases,
        }
    }

    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    pub fn version(&self) -> Version {
        self.negotiated.version
    }

    pub fn sent(&self) -> Offset {
        self.sent
    }

    /// What is in flight, in order of sending.
    pub fn inflight(&self) -> impl Iterator<Item = &InflightMessage> {
        self.inflight.iter()
    }

    /// The packet id of the QoS 1 or 2 message that was delivered last, while it is in flight.
    pub fn newest_packet_id(&self) -> Option<PacketId> {
        self.inflight.newest()
    }

    pub fn has_inflight(&self) -> bool {
        !self.inflight.is_empty()
    }

    /// QoS 2 packet ids whose PUBREL has not come.
    pub fn unreleased(&self) -> &[PacketId] {
        self.received.unreleased()
    }

    /// May another packet be read? A 3.1.1 client knows no Receive Maximum, so it is held back while as many
    /// of its PUBLISH packets wait for an answer. What waits for its PUBREL does not hold it back: that is to
    /// be read.
    pub fn accepts_packets(&self) -> bool {
        self.negotiated.version == Version::V5
            || self.received.unanswered() < usize::from(self.negotiated.receive_maximum)
    }

    /// Every PUBLISH received was answered.
    pub fn is_answered(&self) -> bool {
        self.received.is_idle()
    }

    /// Is a QoS 2 PUBLISH received of which nobody has said what becomes of it?
    pub fn is_deciding_exactly_once(&self) -> bool {
        self.received.is_deciding_exactly_once()
    }

    /// PUBLISH packets received whose PUBACK or PUBREC has not left.
    pub fn unanswered(&self) -> usize {
        self.received.unanswered()
    }

    pub fn take_will(&mut self) -> Option<Box<Will>> {
        self.will.take()
    }

    /// Gives back the memory of a burst.
    pub fn shrink(&mut self) {
        self.inflight.shrink();
    }

    pub fn receive<'a>(&mut self, packet: Packet<'a>, out: &mut Vec<u8>) -> Result<Action<'a>, Violation> {
        match packet {
            Packet::Publish(publish) => self.receive_publish(publish, out),
            Packet::PubAck(ack) => match self.inflight.acknowledge(ack.packet_id) {
                // It may answer a message that was given up since.
                Ok(_) | Err(AckError::NotFound) => Ok(Action::WindowMoved(ack.packet_id)),
                Err(error) => Err(unexpected(error)),
            },
            Packet::PubRec(ack) => self.receive_pubrec(&ack, out),
            Packet::PubComp(ack) => match self.inflight.complete(ack.packet_id) {
                // The client may answer a PUBREL that an earlier connection completed.
                Ok(_) | Err(AckError::NotFound) => Ok(Action::WindowMoved(ack.packet_id)),
                Err(error) => Err(unexpected(error)),
            },
            Packet::PubRel(ack) => {
                if self.received.release(ack.packet_id) {
                    return Ok(Action::Release(ack.packet_id));
                }
                self.acknowledge_with(
                    Packet::PubComp,
                    ack.packet_id,
                    ReasonCode::PacketIdentifierNotFound,
                    out,
                );
                Ok(Action::None)
            }
            Packet::Subscribe(subscribe) => Ok(Action::Subscribe(subscribe)),
            Packet::Unsubscribe(unsubscribe) => Ok(Action::Unsubscribe(unsubscribe)),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                Packet::PingResp.encode(self.version(), out);
                Ok(Action::None)
            }
            Packet::Disconnect(disconnect) => self.receive_disconnect(&disconnect),
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => Err(violation("a second CONNECT")),
            Packet::Auth(auth) => self.receive_auth(&auth),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(violation("a packet that only a server sends"))
            }
        }
    }

    /// The topic of a PUBLISH that was just received, which may stand there as its alias alone.
    pub fn topic<'s>(&'s self, publish: &Publish<'s>) -> &'s str {
        match (publish.properties.topic_alias(), &self.received_aliases) {
            (Some(alias), Some(aliases)) if publish.topic.is_empty() => {
                aliases.topic(alias).unwrap_or_default()
            }
            _ => publish.topic,
        }
    }

    /// A PUBLISH of QoS 1 or 2 was stored, routed or refused. Answers leave in order of arrival.
    pub fn publish_decided(&mut self, packet_id: PacketId, outcome: ReasonCode, out: &mut Vec<u8>) {
        self.received.decided(packet_id, outcome);
        while let Some(answer) = self.received.next_answer() {
            match answer {
                Answer::PubAck(id, reason) => self.acknowledge_with(Packet::PubAck, id, reason, out),
                // It is told where PUBACK ends the exchange.
                Answer::PubRec(id, ReasonCode::NoMatchingSubscribers) => {
                    self.acknowledge_with(Packet::PubRec, id, ReasonCode::Success, out);
                }
                Answer::PubRec(id, reason) => self.acknowledge_with(Packet::PubRec, id, reason, out),
            }
        }
    }

    /// A PUBLISH of QoS 1 or 2 will never be decided: it is as if it had not come. The connection is to end.
    pub fn publish_abandoned(&mut self, packet_id: PacketId) {
        self.received.abandon(packet_id);
    }

    /// The packet id of a PUBREL is free again, durably. [MQTT-4.3.3-11]
    pub fn released(&mut self, packet_id: PacketId, out: &mut Vec<u8>) {
        self.received.released(packet_id);
        self.acknowledge_with(Packet::PubComp, packet_id, ReasonCode::Success, out);
    }

    /// One reason a filter, in the SUBSCRIBE's order. [MQTT-3.8.4-6]
    pub fn subscribed(&mut self, packet_id: PacketId, reasons: &[u8], out: &mut Vec<u8>) {
        Packet::SubAck(SubAck { packet_id, properties: Properties::EMPTY, reasons })
            .encode(self.version(), out);
    }

    /// One reason a filter, in the UNSUBSCRIBE's order. [MQTT-3.10.4-5]
    pub fn unsubscribed(&mut self, packet_id: PacketId, reasons: &[u8], out: &mut Vec<u8>) {
        Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::EMPTY, reasons })
            .encode(self.version(), out);
    }

    pub fn deliver(&mut self, delivery: &Delivery<'_>, out: &mut Vec<u8>) -> Delivered {
        if matches!(delivery.place, Place::InOrder(offset) if offset <= self.sent) {
            return Delivered::Known;
        }
        let own = own_properties(delivery);
        let delivered = if self.is_too_large(delivery, &own) {
            Delivered::TooLarge
        } else if delivery.qos == QoS::AtMostOnce {
            self.write_publish(delivery, own, None, false, out);
            Delivered::Sent
        } else if self.inflight.len() >= usize::from(self.negotiated.send_maximum) {
            return Delivered::WindowFull;
        } else {
            let offset = delivery.place.offset();
            let held = offset.is_some() && self.is_to_hold(delivery.qos);
            let packet_id = self.inflight.push(offset, delivery.qos, delivery.retain, held);
            if held {
                self.has_unkept = true;
                self.has_held = true;
                Delivered::Held(packet_id)
            } else {
                self.write_publish(delivery, own, Some(packet_id), false, out);
                Delivered::Sent
            }
        };
        if let Place::InOrder(offset) = delivery.place {
            self.sent = offset;
        }
        delivered
    }

    /// Is there something to be stored before the client is told?
    pub fn has_unkept(&self) -> bool {
        self.has_unkept
    }

    /// What is to be stored: all that is in flight as it is at this moment.
    pub fn unkept(&mut self) -> Vec<PacketId> {
        self.has_unkept = false;
        self.inflight.unkept().collect()
    }

    /// One that `unkept` told of is stored. True for a message that is to be sent with `send_held`; the
    /// PUBREL of a released one is sent.
    pub fn kept(&mut self, packet_id: PacketId, out: &mut Vec<u8>) -> bool {
        match self.inflight.keep(packet_id) {
            Some(message) if message.released => {
                self.acknowledge_with(Packet::PubRel, packet_id, ReasonCode::Success, out);
                false
            }
            message => message.is_some_and(|message| message.held),
        }
    }

    /// Sends a message that was held, for the first time; `None` gives it up.
    pub fn send_held(&mut self, packet_id: PacketId, delivery: Option<&Delivery<'_>>, out: &mut Vec<u8>) {
        match delivery {
            Some(delivery) => {
                let own = own_properties(delivery);
                self.inflight.sent(packet_id);
                self.write_publish(delivery, own, Some(packet_id), false, out);
            }
            None => self.inflight.forget(packet_id),
        }
    }

    /// Nothing at or before `offset` that was not delivered is for this client.
    pub fn pass_over(&mut self, offset: Offset) {
        self.sent = self.sent.max(offset);
    }

    /// May a QoS 1 or 2 message be delivered?
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many QoS 1 and 2 messages may be delivered.
    pub fn room(&self) -> usize {
        if self.inflight.has_to_resend() {
            return 0;
        }
        usize::from(self.negotiated.send_maximum).saturating_sub(self.inflight.len())
    }

    /// Sends PUBREL again for every message that an earlier connection released. [MQTT-4.4.0-1]
    pub fn resend_releases(&mut self, out: &mut Vec<u8>) {
        let released: Vec<PacketId> = self
            .inflight
            .iter()
            .filter(|message| message.released)
            .map(|message| message.packet_id)
            .collect();
        for packet_id in released {
            self.inflight.resent(packet_id);
            self.acknowledge_with(Packet::PubRel, packet_id, ReasonCode::Success, out);
        }
    }

    /// The message to send again next, unless the window is full.
    pub fn next_to_resend(&self) -> Option<InflightMessage> {
        if self.inflight.outstanding() >= usize::from(self.negotiated.send_maximum) {
            return None;
        }
        self.inflight.next_to_resend()
    }

    pub fn has_to_resend(&self) -> bool {
        self.inflight.has_to_resend()
    }

    /// Sends the message again, with DUP and its packet id; `None` gives it up, since there is nothing to send
    /// any more. [MQTT-4.4.0-1]
    pub fn resend(&mut self, message: InflightMessage, delivery: Option<&Delivery<'_>>, out: &mut Vec<u8>) {
        if let Some(delivery) = delivery {
            let own = own_properties(delivery);
            if !self.is_too_large(delivery, &own) {
                // What was sent is sent again. [MQTT-3.3.1-8]
                let delivery = Delivery { qos: message.qos, retain: message.retain, ..*delivery };
                self.inflight.resent(message.packet_id);
                self.write_publish(&delivery, own, Some(message.packet_id), true, out);
                return;
            }
        }
        if message.qos == QoS::ExactlyOnce {
            // The client may hold it under this packet id, and would take another message for it. PUBREL lets go of
            // the id on both sides, whether it does or not.
            match self.inflight.release(message.packet_id, self.keeps) {
                Ok(true) => {
                    self.acknowledge_with(Packet::PubRel, message.packet_id, ReasonCode::Success, out);
                }
                Ok(false) => self.has_unkept = true,
                Err(_) => self.inflight.forget(message.packet_id),
            }
            return;
        }
        self.inflight.forget(message.packet_id);
    }

    /// DISCONNECT from the server, saying why to who asked; 3.1.1 has none. `server_reference` is for the
    /// reasons that lead elsewhere. [MQTT-3.14.0-1]
    pub fn disconnect(
        &self,
        reason: ReasonCode,
        why: Option<&'static str>,
        server_reference: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if self.version() != Version::V5 {
            return;
        }
        let mut properties = PropertyBuf::new();
        if let Some(server) = server_reference {
            properties.push(Property::ServerReference(server));
        }
        if let Some(why) = why.filter(|_| self.negotiated.wants_reasons) {
            properties.push(Property::ReasonString(why));
        }
        let explained = Packet::Disconnect(Disconnect { reason, properties: properties.as_properties() });
        if explained.encoded_len(Version::V5) <= self.packet_bytes_max() {
            explained.encode(Version::V5, out);
        } else {
            // [MQTT-3.14.2-3]
            Packet::Disconnect(Disconnect { reason, properties: Properties::EMPTY }).encode(Version::V5, out);
        }
    }

    /// A QoS 2 message of a stored session, and what must not overtake one.
    fn is_to_hold(&mut self, qos: QoS) -> bool {
        self.has_held = self.has_held && self.inflight.has_held();
        self.keeps && (qos == QoS::ExactlyOnce || self.has_held)
    }

    fn receive_publish<'a>(
        &mut self,
        publish: Publish<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Action<'a>, Violation> {
        self.receive_alias(&publish)?;
        if publish.properties.subscription_identifier().is_some() {
            // [MQTT-3.3.4-6]
            return Err(violation("Subscription Identifier from a client"));
        }
        let Some(packet_id) = publish.packet_id else {
            return Ok(Action::Publish(publish));
        };
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        let over = self.negotiated.version == Version::V5 && self.received.quota() == 0;
        if over && !(exactly_once && self.received.awaits_release(packet_id)) {
            // [MQTT-3.3.4-7]
            return Err(Violation {
                reason: ReasonCode::ReceiveMaximumExceeded,
                what: "more PUBLISH packets than Receive Maximum",
            });
        }
        match self.received.arrived(packet_id, exactly_once) {
            Arrival::New => Ok(Action::Publish(publish)),
            Arrival::Pending => Ok(Action::None),
            Arrival::Answered => {
                self.acknowledge_with(Packet::PubRec, packet_id, ReasonCode::Success, out);
                Ok(Action::None)
            }
        }
    }

    /// Remembers an alias that comes with a topic; one that comes alone must be known.
    fn receive_alias(&mut self, publish: &Publish<'_>) -> Result<(), Violation> {
        let Some(alias) = publish.properties.topic_alias() else {
            return if publish.topic.is_empty() { Err(violation("PUBLISH without a topic")) } else { Ok(()) };
        };
        if !ReceivedAliases::is_valid(alias, self.negotiated.topic_alias_maximum) {
            // [MQTT-3.2.2-17] [MQTT-3.3.2-9]
            let what = "Topic Alias above the Topic Alias Maximum";
            return Err(Violation { reason: ReasonCode::TopicAliasInvalid, what });
        }
        if publish.topic.is_empty() {
            let known = self.received_aliases.as_ref().and_then(|aliases| aliases.topic(alias));
            return if known.is_some() { Ok(()) } else { Err(violation("a Topic Alias that was not set")) };
        }
        self.received_aliases.get_or_insert_default().set(alias, publish.topic);
        Ok(())
    }

    fn receive_pubrec<'a>(&mut self, ack: &Ack<'_>, out: &mut Vec<u8>) -> Result<Action<'a>, Violation> {
        if ack.reason.is_error() {
            return match self.inflight.reject(ack.packet_id) {
                Ok(_) | Err(AckError::NotFound) => Ok(Action::WindowMoved(ack.packet_id)),
                Err(error) => Err(unexpected(error)),
            };
        }
        match self.inflight.release(ack.packet_id, self.keeps) {
            Ok(true) => {
                self.acknowledge_with(Packet::PubRel, ack.packet_id, ReasonCode::Success, out);
                Ok(Action::None)
            }
            // PUBREL is not to leave before it is certain that the message will not come again.
            Ok(false) => {
                self.has_unkept = true;
                Ok(Action::None)
            }
            // The client remembers a message that this session does not: let it finish.
            Err(AckError::NotFound) => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.acknowledge_with(Packet::PubRel, ack.packet_id, reason, out);
                Ok(Action::None)
            }
            Err(error) => Err(unexpected(error)),
        }
    }

    fn receive_auth<'a>(&self, auth: &Auth<'a>) -> Result<Action<'a>, Violation> {
        let Some(method) = self.negotiated.authentication_method else {
            // [MQTT-4.12.0-7]
            return Err(violation("AUTH without an authentication method"));
        };
        // [MQTT-4.12.1-1]
        if auth.properties.authentication_method() != Some(method) {
            return Err(violation("AUTH of another authentication method"));
        }
        let data = auth.properties.authentication_data().unwrap_or_default();
        match auth.reason {
            ReasonCode::ReAuthenticate => Ok(Action::Authenticate { begin: true, data }),
            ReasonCode::ContinueAuthentication => Ok(Action::Authenticate { begin: false, data }),
            _ => Err(violation("an AUTH that only a server sends")),
        }
    }

    fn receive_disconnect<'a>(&mut self, disconnect: &Disconnect<'_>) -> Result<Action<'a>, Violation> {
        if let Some(seconds) = disconnect.properties.session_expiry_interval() {
            // [MQTT-3.14.2-2]
            if self.negotiated.session_expiry_seconds == 0 && seconds != 0 {
                return Err(violation("a session that ends with its connection cannot be prolonged"));
            }
            self.negotiated.session_expiry_seconds = seconds.min(self.negotiated.session_expiry_seconds_max);
        }
        let publish_will = disconnect.reason != ReasonCode::Success;
        if !publish_will {
            // [MQTT-3.1.2-10]
            self.will = None;
        }
        Ok(Action::Disconnect { publish_will })
    }

    fn acknowledge_with<'p>(
        &self,
        kind: fn(Ack<'p>) -> Packet<'p>,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) {
        kind(Ack { packet_id, reason, properties: Properties::EMPTY }).encode(self.version(), out);
    }

    fn write_publish(
        &mut self,
        delivery: &Delivery<'_>,
        mut own: PropertyBuf,
        packet_id: Option<PacketId>,
        dup: bool,
        out: &mut Vec<u8>,
    ) {
        let mut topic = delivery.topic;
        if self.sent_aliases.is_some() {
            // The property must not make the packet larger than the client takes.
            let room = self.len_of(delivery, &own) + ALIAS_PROPERTY_BYTES <= self.packet_bytes_max();
            let sent = self.sent_aliases.as_mut().filter(|_| room).map(|aliases| aliases.send(topic));
            match sent {
                None | Some(Sent::Whole) => {}
                Some(Sent::Introduced(alias)) => {
                    own.push(Property::TopicAlias(alias));
                }
                Some(Sent::Aliased(alias)) => {
                    own.push(Property::TopicAlias(alias));
                    topic = "";
                }
            }
        }
        encode_publish(
            self.version(),
            dup,
            delivery.qos,
            delivery.retain,
            topic,
            packet_id,
            &[own.as_properties().as_bytes(), delivery.properties],
            delivery.payload,
            out,
        );
    }

    fn is_too_large(&self, delivery: &Delivery<'_>, own: &PropertyBuf) -> bool {
        self.len_of(delivery, own) > self.packet_bytes_max()
    }

    fn len_of(&self, delivery: &Delivery<'_>, own: &PropertyBuf) -> usize {
        let properties_len = own.as_properties().as_bytes().len() + delivery.properties.len();
        publish_len(
            self.version(),
            delivery.qos,
            delivery.topic.len(),
            properties_len,
            delivery.payload.len(),
        )
    }

    fn packet_bytes_max(&self) -> usize {
        self.negotiated.packet_bytes_max as usize
    }
}

/// A Topic Alias, and what it may add to the lengths before it.
const ALIAS_PROPERTY_BYTES: usize = 3 + 2;

fn violation(what: &'static str) -> Violation {
    Violation { reason: ReasonCode::ProtocolError, what }
}

fn unexpected(_: AckError) -> Violation {
    violation("acknowledgement of the wrong kind")
}
