//! What a live connection sends: what was in flight, retained messages, the log, what comes live.

use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::{Clock, Offset, QoS, TopicPolicy};
use sotto_mqtt::packet::Version;
use sotto_mqtt::session::{Delivered, Delivery as Outgoing, Place};

use crate::connection::backlog::Pace;
use crate::connection::live::{Live, WRITE_BYTES_MAX};
use crate::metrics::{Drop, dropped, message_out};
use crate::record::Record;
use crate::session_entry::Grant;

/// Between a failed read of the log and the next.
const FETCH_RETRY_AFTER: Duration = Duration::from_millis(500);

impl Live {
    /// Sends again what was in flight, then retained messages, then the log. True when the log is to be
    /// looked at again.
    pub(super) fn send_backlog(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> bool {
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
    pub(super) fn send_live(&mut self, out: &mut Vec<u8>) -> bool {
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
}
