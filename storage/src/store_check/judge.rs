//! What of a store's rows cannot be. Pure: it is told rows, and keeps heads and findings.

use std::collections::{BTreeMap, HashSet};

use sotto_model::{SubscriptionOptions, TopicFilter, TopicName, TopicScope};
use uuid::Uuid;

use super::finding::{FindingKind, Findings, Subject};
use super::row::{
    LastBatchRow, LogPlace, MessageRow, OutboxRow, RetainedRow, SessionRow, SubscriptionRow, TenantRow,
    TopicRow, WillRow,
};

/// Holds a line for each tenant, and the findings, which are bounded: nothing that grows with the log.
#[derive(Debug, Default)]
pub struct Judge {
    findings: Findings,
    counts: BTreeMap<&'static str, i64>,
    logs: BTreeMap<Uuid, Log>,
    last_place: Option<LogPlace>,
}

/// A tenant's log, as far as its rows say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub head: i64,
    pub messages: i64,
    pub extent: Option<(i64, i64)>,
}

impl Judge {
    pub fn counted(&mut self, table: &'static str, rows: i64) {
        self.counts.insert(table, rows);
    }

    pub fn found(&mut self, kind: FindingKind, tenant: Option<Uuid>, subject: Subject) {
        self.findings.add(kind, tenant, subject);
    }

    /// To be told before everything that lies in a log.
    pub fn tenant(&mut self, row: &TenantRow) {
        let tenant = Some(row.tenant);
        if !row.known {
            self.found(FindingKind::LogOfNoTenant, tenant, Subject::Count(row.messages));
        } else if row.head.is_none() {
            self.found(FindingKind::TenantWithoutCounter, tenant, Subject::Whole);
        }
        let head = row.head.unwrap_or_default();
        if head < 0 {
            self.found(FindingKind::HeadNegative, tenant, Subject::Offset(head));
        }
        if !(0..=head.max(0)).contains(&row.start) {
            self.found(FindingKind::LogStart, tenant, Subject::Offset(row.start));
        }
        if let Some((_, last)) = row.extent
            && last > head
        {
            self.found(FindingKind::MessageAboveHead, tenant, Subject::Offset(last));
        }
        self.logs.insert(row.tenant, Log { head, messages: row.messages, extent: row.extent });
    }

    pub fn last_batch(&mut self, row: &LastBatchRow) {
        // A message that was committed before takes part in its batch without a place of its own.
        if row.number < 0 || row.placed > row.records || row.counters_ahead > 0 {
            self.found(FindingKind::LastBatch, None, Subject::Count(row.placed));
        }
    }

    pub fn topic(&mut self, row: &TopicRow) {
        let subject = Subject::Topic(row.topic_id);
        if row.tenant.is_none() {
            self.found(FindingKind::TopicOfNoTenant, None, subject);
        }
        let Ok(name) = TopicName::parse(&row.name) else {
            return self.found(FindingKind::TopicName, row.tenant, subject);
        };
        // Who receives is decided by these columns, so they must say what the name says.
        let filed = match name.scope() {
            TopicScope::Conversation(conversation) => (Some(conversation.0), None),
            TopicScope::Inbox(user) => (None, Some(user.0)),
            TopicScope::Other => (None, None),
        };
        if filed != (row.conversation, row.inbox) {
            self.found(FindingKind::TopicMisfiled, row.tenant, subject);
        }
    }

    pub fn session(&mut self, row: &SessionRow) {
        let subject = Subject::Session(row.session_id);
        let Some(tenant) = row.tenant else {
            return self.found(FindingKind::SessionOfNoTenant, None, subject);
        };
        if !row.user_known {
            self.found(FindingKind::SessionOfNoUser, Some(tenant), subject);
        }
        if !row.device_known {
            self.found(FindingKind::SessionOfNoDevice, Some(tenant), subject);
        }
        let head = self.head(tenant);
        if !(0..=head).contains(&row.cursor) {
            self.found(FindingKind::CursorOutOfRange, Some(tenant), subject);
        }
        let Some(inflight) = &row.inflight else {
            return self.found(FindingKind::InflightUnreadable, Some(tenant), subject);
        };
        let in_log = |offset: u64| offset >= 1 && i64::try_from(offset).is_ok_and(|offset| offset <= head);
        if !inflight.iter().all(|entry| in_log(entry.offset.0)) {
            self.found(FindingKind::InflightOutOfRange, Some(tenant), subject);
        }
        let mut packet_ids = HashSet::with_capacity(inflight.len());
        if !inflight.iter().all(|entry| packet_ids.insert(entry.packet_id)) {
            self.found(FindingKind::InflightPacketIdTwice, Some(tenant), subject);
        }
    }

    pub fn subscription(&mut self, row: &SubscriptionRow) {
        let subject = Subject::Session(row.session_id);
        let Some(tenant) = row.tenant else {
            return self.found(FindingKind::SubscriptionOfNoSession, None, subject);
        };
        let options = u8::try_from(row.options).ok().and_then(SubscriptionOptions::from_bits);
        let identified = row.identifier.is_none_or(|identifier| (1..=268_435_455).contains(&identifier));
        if TopicFilter::parse(&row.filter).is_err() || options.is_none() || !identified {
            self.found(FindingKind::SubscriptionUnreadable, Some(tenant), subject);
        }
        if !(0..=self.head(tenant)).contains(&row.since) {
            self.found(FindingKind::SubscriptionOutOfRange, Some(tenant), subject);
        }
    }

    pub fn membership(&mut self, tenant: Uuid, user: Uuid, since: i64) {
        if !(0..=self.head(tenant)).contains(&since) {
            self.found(FindingKind::MembershipOutOfRange, Some(tenant), Subject::User(user));
        }
    }

    pub fn outbox(&mut self, row: &OutboxRow) {
        let subject = Subject::OutboxRow(row.outbox_id);
        let Some(tenant) = row.tenant else {
            return self.found(FindingKind::OutboxOfNoTopic, None, subject);
        };
        if !(1..=self.head(tenant)).contains(&row.offset) {
            return self.found(FindingKind::OutboxOutOfRange, Some(tenant), subject);
        }
        match row.fits_message {
            Some(true) => {}
            Some(false) => self.found(FindingKind::OutboxMismatch, Some(tenant), subject),
            // The log forgets from its beginning: before its first message nothing can be expected.
            None if self.is_forgotten(tenant, row.offset) => {}
            None => self.found(FindingKind::OutboxOfNoMessage, Some(tenant), subject),
        }
    }

    /// Rows of a log must come in the order in which the store gives them: one after the other by offset.
    pub fn message(&mut self, row: &MessageRow) {
        let LogPlace { tenant, offset, message_id } = row.place;
        let subject = Subject::Message { offset, message_id };
        let found = |judge: &mut Self, kind| judge.found(kind, Some(tenant), subject);
        if offset < 1 {
            found(self, FindingKind::OffsetBelowOne);
        }
        if let Some(last) = self.last_place
            && last.tenant == tenant
        {
            if last.offset == offset {
                found(self, FindingKind::OffsetTwice);
            } else if last.offset > offset {
                found(self, FindingKind::OffsetUnordered);
            }
        }
        self.last_place = Some(row.place);
        if !matches!(row.qos, 0..=2) {
            found(self, FindingKind::MessageQos);
        }
        match &row.topic {
            None => found(self, FindingKind::MessageOfNoTopic),
            Some((owner, _)) if *owner != tenant => found(self, FindingKind::MessageOfForeignTopic),
            Some(_) => {}
        }
    }

    pub fn retained(&mut self, row: &RetainedRow) {
        let subject = Subject::Message { offset: row.offset, message_id: row.message_id };
        let found = |judge: &mut Self, kind| judge.found(kind, Some(row.tenant), subject);
        match &row.topic {
            None => found(self, FindingKind::RetainedOfNoTopic),
            Some((tenant, name)) if (*tenant, name) != (row.tenant, &row.name) => {
                found(self, FindingKind::RetainedMisnamed);
            }
            Some(_) => {}
        }
        if row.logged.is_some_and(|logged| logged != row.message_id) {
            found(self, FindingKind::RetainedDiffers);
        }
        if row.offset < 1 {
            found(self, FindingKind::RetainedOutOfRange);
        }
    }

    pub fn will(&mut self, row: &WillRow) {
        let subject = Subject::Will(row.message_id);
        if row.tenant.is_none() {
            self.found(FindingKind::WillOfNoTenant, None, subject);
        }
        // A will outlives its session once it is due, and not before.
        if !row.due && !row.session_known {
            self.found(FindingKind::WillOfNoSession, row.tenant, subject);
        }
    }

    pub fn logs(&self) -> impl Iterator<Item = (Uuid, Log)> {
        self.logs.iter().map(|(tenant, log)| (*tenant, *log))
    }

    pub fn counts(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.counts.iter().map(|(table, rows)| (*table, *rows))
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    pub(super) fn into_findings(self) -> Findings {
        self.findings
    }

    fn head(&self, tenant: Uuid) -> i64 {
        self.logs.get(&tenant).map_or(0, |log| log.head)
    }

    fn is_forgotten(&self, tenant: Uuid, offset: i64) -> bool {
        let extent = self.logs.get(&tenant).and_then(|log| log.extent);
        extent.is_none_or(|(first, _)| offset < first)
    }
}
