//! A connection whose session is open: the one loop that drives the session machine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_model::{Clock, Offset, PacketId, QoS, TopicPolicy, TopicScope};
use sotto_mqtt::codec::decode;
use sotto_mqtt::packet::{Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::{Action, Delivered, Delivery as Outgoing, Place, Session};
use sotto_storage::audit::AuditAction;
use sotto_storage::session_store::{SessionOp, SessionReply};

use crate::connection::Shared;
use crate::connection::backlog::{Backlog, Pace};
use crate::connection::ending::{Ending, Farewell};
use crate::connection::opening::{Opened, Owned};
use crate::connection::progress::progress;
use crate::connection::subscribing::{
    Fenced, SubscribeRequest, Subscribed, UnsubscribeRequest, Unsubscribed, subscribe, unsubscribe,
};
use crate::connection_id::ConnectionId;
use crate::metrics::{Drop, dropped, message_in, message_out};
use crate::publishing::{Publication, Published, Stall};
use crate::record::Record;
use crate::services::Services;
use crate::session_entry::Grant;
use crate::transport::{Transport, TransportError};

/// Bytes of packets gathered for one write.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// A client that takes nothing of what is sent to it for this long is given up.
const WRITE_STALL_SECONDS: u32 = 30;
/// Progress is kept no more often than this; the sweep sees to it that it is kept at all.
const SAVE_AFTER_SECONDS: u32 = 2;
/// Between a failed read of the log and the next.
const FETCH_RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a turn came to.
pub(crate) enum Turn {
    /// Something moved: there may be more to do.
    Again,
    Wait,
    End(Farewell),
}

/// Something that input must wait for.
enum Work {
    Subscribed(Result<Subscribed, Fenced>),
    Unsubscribed(Result<Unsubscribed, Fenced>),
    /// A key was fetched, or could not be.
    Warmed,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) struct Live {
    owned: Owned,
    session: Session,
    connection: ConnectionId,
    services: Arc<Services>,
    work: Option<BoxFuture<Work>>,
    /// PUBREL packets being made durable, and those that came meanwhile.
    release: Option<BoxFuture<Option<Vec<PacketId>>>>,
    to_release: Vec<PacketId>,
    /// A PUBLISH that must wait, with all input behind it.
    stalled: Option<Box<Publication>>,
    backlog: Backlog,
    last_packet_seconds: u32,
    /// Since when the socket has taken nothing of what is kept for it.
    blocked_since_seconds: Option<u32>,
    was_paused: bool,
    last_saved_seconds: u32,
}

impl Live {
    /// Begins with CONNACK in `out`.
    pub(crate) fn begin(
        opened: Opened,
        connection: ConnectionId,
        services: Arc<Services>,
        out: &mut Vec<u8>,
    ) -> Self {
        let Opened { owned, mut session, present, assigned_client_id, inflight } = opened;
        session.negotiated().accepted(present, assigned_client_id.as_deref(), out);
        session.resend_releases(out);
        owned.entry.go_live(present);
        let pace = if present { Pace::Behind } else { Pace::Live };
        let last_packet_seconds = services.clock.seconds();
        Self {
            owned,
            session,
            connection,
            services,
            work: None,
            release: None,
            to_release: Vec::new(),
            stalled: None,
            backlog: Backlog::new(pace, inflight),
            last_packet_seconds,
            blocked_since_seconds: None,
            was_paused: false,
            last_saved_seconds: last_packet_seconds,
        }
    }

    pub(crate) fn turn(
        &mut self,
        transport: &mut Transport,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Turn {
        let unsent_bytes = transport.unsent_bytes();
        let blocked = match transport.poll_flush(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(_)) => return Turn::End(Farewell::Lost),
            Poll::Pending => true,
        };
        if transport.unsent_bytes() < unsent_bytes {
            // Slow is not stalled.
            self.blocked_since_seconds = None;
        }
        let mut output = std::mem::take(&mut shared.output);
        output.clear();
        let turn = self.exchange(transport, input, blocked, cx, shared, &mut output);
        let written =
            if output.is_empty() { Ok(()) } else { transport.write(cx, &mut shared.scratch, &output) };
        shared.output = output;
        if written.is_err() {
            return Turn::End(Farewell::Lost);
        }
        if matches!(turn, Turn::Wait) {
            self.rest();
        }
        self.set_deadline(transport);
        turn
    }

    /// Ends the session's part: what is left is for `Ending` to see through.
    pub(crate) fn end(
        mut self,
        farewell: Farewell,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Ending {
        if let Some(reason) = farewell.disconnect_reason() {
            shared.output.clear();
            self.session.disconnect(reason, &mut shared.output);
            // A peer that is gone misses nothing.
            let _ = transport.write(cx, &mut shared.scratch, &shared.output);
        }
        // Nobody will decide what was not handed over.
        if let Some(packet_id) = self.stalled.take().and_then(|publication| publication.packet_id()) {
            self.session.publish_abandoned(packet_id);
        }
        let will = if farewell.publishes_will() { self.session.take_will() } else { None };
        let caught_up = self.backlog.is_caught_up();
        Ending::new(self.owned, self.session, self.connection, self.services, will, caught_up, transport)
    }

    fn exchange(
        &mut self,
        transport: &mut Transport,
        input: &mut Vec<u8>,
        blocked: bool,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Turn {
        self.owned.entry.register_waker(cx.waker());
        let post = self.owned.entry.take_post();
        let decided =
            post.decided.into_iter().map(|(packet_id, outcome)| self.decide(packet_id, outcome, out));
        // All of them, whatever becomes of one.
        if let Err(farewell) = decided.fold(Ok(()), Result::and) {
            return Turn::End(farewell);
        }
        if let Some(command) = post.command {
            return Turn::End(Farewell::Commanded(command));
        }
        if post.behind {
            // What the mailbox still holds is in no log, and older than what it sent away.
            self.backlog.mailbox_first |= self.backlog.pace == Pace::Live;
            // Also while rejoining: the mailbox ran over again.
            self.backlog.pace = Pace::Behind;
        }
        if let Err(farewell) = self.poll_work(cx, out) {
            return Turn::End(farewell);
        }
        let mut moved = match self.retry_stalled(out) {
            Ok(again) => again,
            Err(farewell) => return Turn::End(farewell),
        };
        self.note_pressure(blocked);
        if !blocked {
            match self.take_input(transport, input, cx, shared, out) {
                Ok(read) => moved |= read,
                Err(farewell) => return Turn::End(farewell),
            }
            moved |= self.send_backlog(cx, out);
            moved |= self.send_live(out);
            // What was cut short is continued, even if neither the socket nor the client has anything to say.
            moved |= out.len() >= WRITE_BYTES_MAX;
        }
        if moved { Turn::Again } else { Turn::Wait }
    }

    // ---- input ----

    fn takes_input(&self) -> bool {
        self.work.is_none() && self.stalled.is_none() && self.session.accepts_packets()
    }

    /// Handles what has been read, and reads once when that is used up. True when something was read.
    fn take_input(
        &mut self,
        transport: &mut Transport,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<bool, Farewell> {
        if !self.takes_input() {
            return Ok(false);
        }
        let mut handled = 0;
        if !input.is_empty() {
            handled = self.handle_packets(input, out)?;
            input.drain(..handled);
        }
        if !self.takes_input() || out.len() >= WRITE_BYTES_MAX {
            return Ok(handled > 0);
        }
        if !input.is_empty() {
            // The rest of a packet: it is put together where the first part is kept.
            let read = poll_read(transport, cx, shared, input)?;
            return Ok(read || handled > 0);
        }
        *input = Vec::new();
        let mut fresh = std::mem::take(&mut shared.input);
        fresh.clear();
        let read = poll_read(transport, cx, shared, &mut fresh);
        let outcome = read.and_then(|read| {
            if read {
                let handled = self.handle_packets(&fresh, out)?;
                input.extend_from_slice(&fresh[handled..]);
            }
            Ok(read || handled > 0)
        });
        shared.input = fresh;
        outcome
    }

    /// Handles whole packets from the front of `input` for as long as the session takes them.
    fn handle_packets(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Farewell> {
        let mut handled = 0;
        while self.takes_input() && handled < input.len() && out.len() < WRITE_BYTES_MAX {
            let decoded = decode(&input[handled..], self.session.version(), PACKET_BYTES_MAX);
            let Some((packet, len)) = decoded.map_err(|error| Farewell::Violation(error.reason))? else {
                break;
            };
            self.handle_packet(packet, out)?;
            handled += len;
        }
        if handled > 0 {
            self.last_packet_seconds = self.services.clock.seconds();
        }
        Ok(handled)
    }

    fn handle_packet(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        let action = self.session.receive(packet, out);
        match action.map_err(|violation| Farewell::Violation(violation.reason))? {
            Action::None => {}
            Action::WindowMoved => self.owned.entry.set_unsaved(true),
            Action::Publish(publish) => return self.publish(&publish, out),
            Action::Subscribe(request) => {
                let request = SubscribeRequest::of(&request, self.session.version());
                let work = subscribe(self.services.clone(), self.owned.entry.clone(), request);
                self.work = Some(Box::pin(async { Work::Subscribed(work.await) }));
            }
            Action::Unsubscribe(request) => {
                let request = UnsubscribeRequest::of(&request);
                let work = unsubscribe(self.services.clone(), self.owned.entry.clone(), request);
                self.work = Some(Box::pin(async { Work::Unsubscribed(work.await) }));
            }
            Action::Release(packet_id) => {
                if self.owned.entry.is_stored() {
                    // A client may repeat its PUBREL as often as it likes.
                    if !self.to_release.contains(&packet_id) {
                        self.to_release.push(packet_id);
                    }
                } else {
                    self.session.released(packet_id, out);
                }
            }
            Action::Disconnect { publish_will } => return Err(Farewell::Goodbye { publish_will }),
        }
        Ok(())
    }

    // ---- publishing ----

    fn publish(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        message_in(publish.qos);
        let now = self.services.clock.unix_now();
        match Publication::of_publish(publish, &self.owned.entry.principal, self.connection, now) {
            Ok(publication) => self.submit(publication, out).map(|_| ()),
            Err(reason) => self.refuse_publish(publish.packet_id, reason, out),
        }
    }

    /// True when it stalled, and is to be looked at again at once.
    fn submit(&mut self, publication: Publication, out: &mut Vec<u8>) -> Result<bool, Farewell> {
        let packet_id = publication.packet_id();
        let conversation = match publication.scope() {
            TopicScope::Conversation(conversation) => Some(conversation.0),
            TopicScope::Inbox(user) => Some(user.0),
            TopicScope::Other => None,
        };
        // This one is among them, if it is to be answered at all.
        let after_uncommitted = self.session.unanswered() > usize::from(packet_id.is_some());
        match self.services.publish(&self.owned.entry, self.connection, publication, after_uncommitted) {
            Published::Decided(outcome) => {
                if let Some(packet_id) = packet_id {
                    self.decide(packet_id, outcome, out)?;
                }
            }
            Published::Submitted => {}
            Published::Stalled(publication, stall) => return Ok(self.stall(publication, stall)),
            Published::Denied => {
                self.services.record_denial(&self.owned.entry, AuditAction::PublishDenied, conversation);
                self.refuse_publish(packet_id, ReasonCode::NotAuthorized, out)?;
            }
            Published::Closed => {
                if let Some(packet_id) = packet_id {
                    self.session.publish_abandoned(packet_id);
                }
                return Err(Farewell::Violation(ReasonCode::ServerShuttingDown));
            }
        }
        Ok(false)
    }

    /// A 3.1.1 PUBACK can only say yes, so a refusal closes the connection. [MQTT-3.3.5-2]
    fn decide(
        &mut self,
        packet_id: PacketId,
        outcome: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), Farewell> {
        if outcome.is_error() && self.session.version() == Version::V3 {
            self.session.publish_abandoned(packet_id);
            return Err(Farewell::Violation(outcome));
        }
        self.session.publish_decided(packet_id, outcome, out);
        Ok(())
    }

    fn refuse_publish(
        &mut self,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), Farewell> {
        match (self.session.version(), packet_id) {
            (_, Some(packet_id)) => self.decide(packet_id, reason, out),
            (Version::V3, None) => Err(Farewell::Violation(reason)),
            (Version::V5, None) => Ok(()),
        }
    }

    /// True when the publication is to be looked at again at once: for room that came before it was waited
    /// for, and because nobody has polled the key's fetch.
    fn stall(&mut self, publication: Box<Publication>, why: Stall) -> bool {
        self.stalled = Some(publication);
        match why {
            Stall::Budget => self.services.commits.wait_for_room(self.connection, &self.owned.entry),
            Stall::Key(request) => {
                let services = self.services.clone();
                self.work = Some(Box::pin(async move {
                    services.warm(request).await;
                    Work::Warmed
                }));
                true
            }
        }
    }

    /// Tries a stalled PUBLISH again, unless its key is still being fetched. True as for `submit`.
    fn retry_stalled(&mut self, out: &mut Vec<u8>) -> Result<bool, Farewell> {
        if self.work.is_some() {
            return Ok(false);
        }
        let Some(publication) = self.stalled.take() else { return Ok(false) };
        self.submit(*publication, out)
    }

    // ---- work in progress ----

    fn poll_work(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(done) = work.as_mut().poll(cx)
        {
            self.work = None;
            match done {
                Work::Subscribed(Ok(Subscribed { packet_id, reasons, retained })) => {
                    self.session.subscribed(packet_id, &reasons, out);
                    self.backlog.retained.extend(retained);
                }
                Work::Unsubscribed(Ok(Unsubscribed { packet_id, reasons })) => {
                    self.session.unsubscribed(packet_id, &reasons, out);
                }
                Work::Subscribed(Err(Fenced)) | Work::Unsubscribed(Err(Fenced)) => {
                    return Err(Farewell::Fenced);
                }
                Work::Warmed => {}
            }
        }
        self.poll_release(cx, out)
    }

    /// Makes PUBRELs durable, those that come meanwhile together.
    fn poll_release(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        loop {
            if self.release.is_none() && !self.to_release.is_empty() {
                let packet_ids = std::mem::take(&mut self.to_release);
                let services = self.services.clone();
                let Some(session) = self.owned.entry.stored() else { return Err(Farewell::Fenced) };
                self.release = Some(Box::pin(async move {
                    match services.sessions.apply(SessionOp::Release(session, packet_ids.clone())).await {
                        Ok(SessionReply::Done) => Some(packet_ids),
                        Ok(_) | Err(_) => None,
                    }
                }));
            }
            let Some(release) = &mut self.release else { return Ok(()) };
            let Poll::Ready(released) = release.as_mut().poll(cx) else { return Ok(()) };
            self.release = None;
            for packet_id in released.ok_or(Farewell::Violation(ReasonCode::ServerUnavailable))? {
                self.session.released(packet_id, out);
            }
        }
    }

    // ---- output ----

    /// Sends again what was in flight, then retained messages, then the log. True when the log is to be
    /// looked at again.
    fn send_backlog(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        while self.session.has_to_resend() && out.len() < WRITE_BYTES_MAX {
            let Some(message) = self.session.next_to_resend() else { return false };
            let record = message.offset.and_then(|offset| self.backlog.inflight.remove(&offset));
            self.resend(message, record.as_deref(), out);
        }
        if !self.session.has_to_resend() && !self.backlog.inflight.is_empty() {
            self.backlog.inflight = std::collections::HashMap::new();
        }
        while self.session.has_room() && out.len() < WRITE_BYTES_MAX {
            let Some(delivery) = self.backlog.retained.pop_front() else {
                self.backlog.retained = std::collections::VecDeque::new();
                break;
            };
            let place = delivery.record.offset().map_or(Place::Unlogged, Place::Retained);
            self.send(&delivery.record, &delivery.grant, place, out);
        }
        self.send_log(cx, out)
    }

    fn send_log(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        if self.backlog.mailbox_first {
            return false;
        }
        if let Some(fetch) = &mut self.backlog.fetch
            && let Poll::Ready(page) = fetch.as_mut().poll(cx)
        {
            self.backlog.fetch = None;
            if let Some(page) = page {
                self.backlog.fetched(page);
            }
        }
        while self.session.has_room() && out.len() < WRITE_BYTES_MAX {
            let Some(record) = self.backlog.page.pop_front() else { break };
            let offset = record.offset().expect("the log's records have offsets");
            match self.owned.entry.grant(&record).filter(|grant| grant.qos != QoS::AtMostOnce) {
                Some(grant) => self.send(&record, &grant, Place::InOrder(offset), out),
                None => self.session.pass_over(offset),
            }
        }
        let mut ended = false;
        if self.backlog.page.is_empty()
            && let Some(scanned_to) = self.backlog.scanned_to.take()
        {
            ended = true;
            self.backlog.page = std::collections::VecDeque::new();
            self.session.pass_over(scanned_to);
            self.owned.entry.set_unsaved(true);
            self.take_pace();
        }
        // At the end of a page the mailbox is looked at anew: it may have overflowed meanwhile.
        self.fetch_if_behind() || ended
    }

    /// At the end of a page: is the session where the log is?
    fn take_pace(&mut self) {
        let log = self.services.tail.log(self.owned.entry.principal.tenant);
        match self.backlog.pace {
            Pace::Behind if self.session.sent() >= log.head() => {
                self.owned.entry.rejoin();
                // What was committed before the mailbox took messages again was not put there.
                let head = log.head();
                self.backlog.pace =
                    if head > self.session.sent() { Pace::Rejoining(head) } else { Pace::Live };
            }
            Pace::Rejoining(head) if self.session.sent() >= head => self.backlog.pace = Pace::Live,
            Pace::Behind | Pace::Rejoining(_) | Pace::Live => {}
        }
    }

    fn fetch_if_behind(&mut self) -> bool {
        let idle = self.backlog.fetch.is_none() && self.backlog.scanned_to.is_none();
        if self.backlog.pace == Pace::Live || !idle || !self.session.has_room() {
            return false;
        }
        let services = self.services.clone();
        let entry = self.owned.entry.clone();
        let after = self.session.sent();
        self.backlog.fetch = Some(Box::pin(async move {
            let page = services.read_page(&entry, after).await.ok();
            if page.is_none() {
                tokio::time::sleep(FETCH_RETRY_AFTER).await;
            }
            page
        }));
        true
    }

    /// What comes live, unless the log has to be sent first. True when there may be more.
    fn send_live(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.backlog.is_caught_up() && !self.backlog.mailbox_first {
            return false;
        }
        while self.session.has_room() {
            if out.len() >= WRITE_BYTES_MAX {
                return true;
            }
            let Some(delivery) = self.owned.entry.next_delivery() else {
                return std::mem::take(&mut self.backlog.mailbox_first);
            };
            // A message of the log that is granted QoS 0 is not waited for when the log is read, so it must
            // not move the session's offset either.
            let place = match delivery.record.offset() {
                Some(offset) if delivery.grant.qos != QoS::AtMostOnce => Place::InOrder(offset),
                _ => Place::Unlogged,
            };
            self.send(&delivery.record, &delivery.grant, place, out);
        }
        false
    }

    fn send(&mut self, record: &Record, grant: &Grant, place: Place, out: &mut Vec<u8>) {
        let remaining = match record.expiry_remaining_seconds(self.services.clock.unix_now()) {
            Ok(remaining) if self.may_receive(record) => remaining,
            not_to_be_sent => {
                if not_to_be_sent.is_err() {
                    dropped(Drop::Expired);
                }
                if let Place::InOrder(offset) = place {
                    self.session.pass_over(offset);
                }
                return;
            }
        };
        let outgoing = Outgoing {
            qos: grant.qos,
            retain: grant.retain,
            subscription_identifiers: &grant.identifiers,
            place,
            ..self.outgoing(record, remaining)
        };
        match self.session.deliver(&outgoing, out) {
            Delivered::Sent => message_out(grant.qos),
            Delivered::TooLarge => dropped(Drop::TooLargeForClient),
            Delivered::Known | Delivered::WindowFull => {}
        }
    }

    fn resend(
        &mut self,
        message: sotto_mqtt::inflight::InflightMessage,
        record: Option<&Record>,
        out: &mut Vec<u8>,
    ) {
        let now = self.services.clock.unix_now();
        let sendable = record
            .filter(|record| self.may_receive(record))
            .and_then(|record| Some((record, record.expiry_remaining_seconds(now).ok()?)));
        let Some((record, remaining)) = sendable else {
            self.session.resend(message, None, out);
            return;
        };
        let grant = self.owned.entry.grant(record);
        let identifiers = grant.map(|grant| grant.identifiers).unwrap_or_default();
        let outgoing =
            Outgoing { subscription_identifiers: &identifiers, ..self.outgoing(record, remaining) };
        self.session.resend(message, Some(&outgoing), out);
        message_out(message.qos);
    }

    fn outgoing<'r>(&self, record: &'r Record, remaining: Option<u32>) -> Outgoing<'r> {
        let properties = match self.session.version() {
            Version::V3 => &[],
            Version::V5 => record.delivered_properties(),
        };
        Outgoing {
            topic: record.message.topic.as_str(),
            payload: &record.message.payload,
            qos: record.message.qos,
            retain: false,
            properties,
            expiry_remaining_seconds: remaining,
            subscription_identifiers: &[],
            place: Place::Unlogged,
        }
    }

    /// Decided again at delivery: a member may have been removed since the message was queued.
    fn may_receive(&self, record: &Record) -> bool {
        let principal = &self.owned.entry.principal;
        if principal.topics == TopicPolicy::Open {
            return true;
        }
        let offset = record.offset().unwrap_or(Offset(u64::MAX));
        self.services.policy.may_receive(principal, &record.message.topic, offset)
    }

    // ---- rest ----

    /// Nothing moves: gives memory back and keeps progress.
    fn rest(&mut self) {
        self.session.shrink();
        let now = self.services.clock.seconds();
        if self.owned.entry.is_unsaved() && now >= self.last_saved_seconds + SAVE_AFTER_SECONDS {
            self.last_saved_seconds = now;
            self.save();
        }
    }

    fn note_pressure(&mut self, blocked: bool) {
        if !blocked {
            self.blocked_since_seconds = None;
        }
        // Time during which the client was not listened to does not count against it.
        let paused = !self.takes_input();
        if self.was_paused && !paused {
            self.last_packet_seconds = self.services.clock.seconds();
        }
        self.was_paused = paused;
    }

    /// The time by which something must move.
    fn set_deadline(&mut self, transport: &Transport) {
        let blocked_since = transport
            .has_unsent()
            .then(|| *self.blocked_since_seconds.get_or_insert_with(|| self.services.clock.seconds()));
        let keep_alive = u32::from(self.session.negotiated().keep_alive);
        let deadline = match blocked_since {
            Some(since) => since + WRITE_STALL_SECONDS,
            None if keep_alive == 0 || !self.takes_input() => 0,
            // One and a half times the Keep Alive, rounded up. [MQTT-3.1.2-22]
            None => self.last_packet_seconds + (keep_alive * 3).div_ceil(2),
        };
        self.owned.entry.set_deadline_seconds(deadline);
    }

    fn save(&self) {
        let entry = &self.owned.entry;
        if let Some(session) = entry.stored() {
            let progress = progress(&self.session, self.session.sent());
            let op = SessionOp::Save(session, Box::new(progress));
            if self.services.sessions.submit(op).is_err() {
                return;
            }
        }
        entry.set_unsaved(false);
    }
}

/// True when something was read.
fn poll_read(
    transport: &mut Transport,
    cx: &mut Context<'_>,
    shared: &mut Shared,
    input: &mut Vec<u8>,
) -> Result<bool, Farewell> {
    match transport.poll_read(cx, &mut shared.scratch, input) {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Pending => Ok(false),
        Poll::Ready(Err(TransportError::Tls(_))) => Err(Farewell::TlsFailure),
        Poll::Ready(Err(TransportError::Closed | TransportError::Io(_))) => Err(Farewell::Lost),
    }
}
