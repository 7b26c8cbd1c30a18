//! What a live connection sends: what was in flight, retained messages, the log, what comes live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::{Clock, Offset, PacketId, QoS, TopicPolicy};
use sotto_mqtt::delivery::{Delivered, Delivery as Outgoing, Place};
use sotto_mqtt::packet::Version;
use sotto_storage::session_store::{SessionOp, SessionReply};

use crate::connection::backlog::{Held, Pace};
use crate::connection::live::{BoxFuture, Live, WRITE_BYTES_MAX};
use crate::connection::progress::progress;
use crate::connection::subscribing::Fenced;
use crate::metrics::{Drop, dropped, message_out};
use crate::record::Record;
use crate::session_entry::{Delivery, Grant};

/// Between a failed read of the log and the next.
const FETCH_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Between a failed write of what is in flight and the next.
const KEEP_RETRY_AFTER: Duration = Duration::from_millis(500);

impl Live {
    /// Sends again what was in flight, then retained messages, then the log. True when the log is to be
    /// looked at again.
    pub(super) fn send_backlog(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
        while self.session.has_to_resend() && out.len() < WRITE_BYTES_MAX {
            let Some(message) = self.session.next_to_resend() else { return false };
            // One that is retained can be in flight more than once.
            let record = message.offset.and_then(|offset| self.backlog.inflight.get(&offset).cloned());
            self.resend(message, record.as_deref(), out);
        }
        if !self.session.has_to_resend() && !self.backlog.inflight.is_empty() {
            self.backlog.inflight = std::collections::HashMap::new();
        }
        self.send_retained(cx, out);
        if self.backlog.retained.is_some() {
            return false;
        }
        self.send_log(cx, out)
    }

    fn send_retained(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        while self.session.has_room() && out.len() < WRITE_BYTES_MAX {
            let Some(retained) = &mut self.backlog.retained else { return };
            match retained.poll_next(&self.services, &self.owned.entry, cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.backlog.retained = None,
                Poll::Ready(Some(delivery)) => {
                    let place = delivery.record.offset().map_or(Place::Unlogged, Place::OutOfOrder);
                    self.send(&delivery.record, &delivery.grant, place, out);
                }
            }
        }
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
                Some(grant) => {
                    self.send(&record, &grant, Place::InOrder(offset), out);
                }
                None => self.session.pass_over(offset),
            }
        }
        let mut ended = false;
        if self.backlog.page.is_empty()
            && let Some(scanned_to) = self.backlog.scanned_to.take()
        {
            ended = true;
            self.backlog.page = VecDeque::new();
            self.session.pass_over(scanned_to);
            self.services.unsaved.add(&self.owned.entry);
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

    /// What comes live, unless retained messages or the log have to be sent first. True when there may be more.
    pub(super) fn send_live(&mut self, out: &mut Vec<u8>) -> bool {
        if self.backlog.retained.is_some() {
            return false;
        }
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

    /// Sends what waited until it was durable, and makes durable what is to be sent next. True when something
    /// was sent.
    pub(super) fn send_kept(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<bool, Fenced> {
        let mut sent = false;
        loop {
            if self.keeping.is_none() && self.session.has_unkept() {
                self.keeping = Some(self.keep());
            }
            let Some(keeping) = &mut self.keeping else { return Ok(sent) };
            let Poll::Ready(kept) = keeping.as_mut().poll(cx) else { return Ok(sent) };
            self.keeping = None;
            for packet_id in kept? {
                self.own_lent(packet_id);
                let held = self.session.kept(packet_id, out);
                self.send_held(packet_id, held, out);
                sent = true;
            }
            if self.backlog.held.is_empty() {
                self.backlog.held = VecDeque::new();
            }
        }
    }

    /// Stores what is in flight, for as long as it takes: the client is not told of more than is stored.
    fn keep(&mut self) -> BoxFuture<Result<Vec<PacketId>, Fenced>> {
        let packet_ids = self.session.unkept();
        let progress = Box::new(progress(&self.session, self.session.sent()));
        let services = self.services.clone();
        let session = self.owned.entry.stored();
        Box::pin(async move {
            let session = session.ok_or(Fenced)?;
            loop {
                match services.sessions.apply(SessionOp::Save(session, progress.clone())).await {
                    Ok(SessionReply::Done) => return Ok(packet_ids),
                    Ok(SessionReply::Fenced | SessionReply::Opened(_)) => return Err(Fenced),
                    Err(_) => tokio::time::sleep(KEEP_RETRY_AFTER).await,
                }
            }
        })
    }

    /// Those held before it were acknowledged unsent, by a client that is not to be helped.
    fn send_held(&mut self, packet_id: PacketId, is_held: bool, out: &mut Vec<u8>) {
        if !is_held {
            return;
        }
        while let Some(Held { packet_id: next, delivery }) = self.backlog.held.pop_front() {
            if next != packet_id {
                continue;
            }
            let Delivery { record, grant } = delivery;
            let remaining = record.expiry_remaining_seconds(|| self.services.clock.unix_now());
            let Some(remaining) = remaining.ok().filter(|_| self.may_receive(&record)) else {
                return self.session.send_held(packet_id, None, out);
            };
            let outgoing = self.granted(&record, &grant, Place::Unlogged, remaining);
            self.session.send_held(packet_id, Some(&outgoing), out);
            return message_out(grant.qos);
        }
        self.session.send_held(packet_id, None, out);
    }

    /// `None` for a message that is not to be sent any more.
    pub(super) fn send(
        &mut self,
        record: &Arc<Record>,
        grant: &Grant,
        place: Place,
        out: &mut Vec<u8>,
    ) -> Option<Delivered> {
        let remaining = match record.expiry_remaining_seconds(|| self.services.clock.unix_now()) {
            Ok(remaining) if self.may_receive(record) => remaining,
            not_to_be_sent => {
                if not_to_be_sent.is_err() {
                    dropped(Drop::Expired);
                }
                if let Place::InOrder(offset) = place {
                    self.session.pass_over(offset);
                }
                return None;
            }
        };
        let outgoing = self.granted(record, grant, place, remaining);
        let delivered = self.session.deliver(&outgoing, out);
        match delivered {
            Delivered::Sent => message_out(grant.qos),
            Delivered::Held(packet_id) => {
                let delivery = Delivery { record: record.clone(), grant: grant.clone() };
                self.backlog.held.push_back(Held { packet_id, delivery });
            }
            Delivered::TooLarge => dropped(Drop::TooLargeForClient),
            Delivered::Known | Delivered::WindowFull => {}
        }
        Some(delivered)
    }

    fn resend(
        &mut self,
        message: sotto_mqtt::inflight::InflightMessage,
        record: Option<&Record>,
        out: &mut Vec<u8>,
    ) {
        let now = || self.services.clock.unix_now();
        let sendable = record
            .filter(|record| self.may_receive(record))
            .and_then(|record| Some((record, record.expiry_remaining_seconds(now).ok()?)));
        let Some((record, remaining)) = sendable else {
            self.session.resend(message, None, out);
            return;
        };
        let entry = &self.owned.entry;
        let grant = entry.grant(record).or_else(|| entry.grant_shared(record));
        let identifiers = grant.map(|grant| grant.identifiers).unwrap_or_default();
        let outgoing =
            Outgoing { subscription_identifiers: &identifiers, ..self.outgoing(record, remaining) };
        self.session.resend(message, Some(&outgoing), out);
        message_out(message.qos);
    }

    fn granted<'r>(
        &self,
        record: &'r Record,
        grant: &'r Grant,
        place: Place,
        remaining: Option<u32>,
    ) -> Outgoing<'r> {
        Outgoing {
            qos: grant.qos,
            retain: grant.retain,
            subscription_identifiers: &grant.identifiers,
            place,
            ..self.outgoing(record, remaining)
        }
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
        if principal.topics == TopicPolicy::Open && !self.services.policy.has_acl_rules() {
            return true;
        }
        let offset = record.offset().unwrap_or(Offset(u64::MAX));
        self.services.policy.may_receive(principal, &record.message.topic, offset)
    }
}
