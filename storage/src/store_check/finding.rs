//! What is wrong: a kind, a tenant, and the number or id of a row. Never a name or a content.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

/// Findings of one kind that are named one by one; of the others the number is told.
pub const FINDINGS_NAMED_MAX: usize = 20;

macro_rules! finding_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal),+ $(,)?) => {
        /// What can be wrong with a row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FindingKind {
            $($(#[$doc])* $kind,)+
        }

        impl FindingKind {
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

finding_kinds! {
    /// The database says that its own files are damaged.
    DatabaseDamaged = "database-damaged",
    /// A row refers to one that is not there, although the schema forbids it.
    ForeignKey = "foreign-key-broken",
    TenantWithoutCounter = "tenant-without-counter",
    HeadNegative = "head-negative",
    LogStart = "log-start-out-of-range",
    LastBatch = "last-batch-inconsistent",
    LogOfNoTenant = "log-of-no-tenant",
    MessageAboveHead = "message-above-head",
    OffsetTwice = "offset-given-twice",
    OffsetUnordered = "offset-out-of-order",
    OffsetBelowOne = "offset-below-one",
    MessageQos = "message-qos-unknown",
    MessageOfNoTopic = "message-of-no-topic",
    MessageOfForeignTopic = "message-of-another-tenants-topic",
    /// Damaged, or sealed for another tenant, topic, sender or message id.
    MessageMisplaced = "message-does-not-open",
    /// Its key is not there, or does not open.
    MessageWithoutKey = "message-without-key",
    TopicOfNoTenant = "topic-of-no-tenant",
    TopicName = "topic-name-invalid",
    /// It is filed under another conversation or inbox than its name says.
    TopicMisfiled = "topic-misfiled",
    SessionOfNoTenant = "session-of-no-tenant",
    SessionOfNoUser = "session-of-no-user",
    SessionOfNoDevice = "session-of-no-device",
    CursorOutOfRange = "cursor-out-of-range",
    InflightUnreadable = "inflight-unreadable",
    InflightOutOfRange = "inflight-out-of-range",
    InflightPacketIdTwice = "inflight-packet-id-twice",
    SubscriptionUnreadable = "subscription-unreadable",
    SubscriptionOutOfRange = "subscription-since-out-of-range",
    SubscriptionOfNoSession = "subscription-of-no-session",
    ReceivedOfNoSession = "received-packet-id-of-no-session",
    ReceivedPacketId = "received-packet-id-out-of-range",
    MembershipOutOfRange = "membership-since-out-of-range",
    MembershipDangling = "membership-of-no-user-or-conversation",
    OutboxOfNoTopic = "outbox-row-of-no-topic",
    OutboxOfNoMessage = "outbox-row-of-no-message",
    OutboxMismatch = "outbox-row-of-another-topic",
    OutboxOutOfRange = "outbox-row-out-of-range",
    RetainedOfNoTopic = "retained-of-no-topic",
    RetainedMisnamed = "retained-of-another-name-or-tenant",
    RetainedDiffers = "retained-is-not-the-logged-message",
    RetainedOutOfRange = "retained-out-of-range",
    RetainedMisplaced = "retained-does-not-open",
    RetainedWithoutKey = "retained-without-key",
    WillOfNoTenant = "will-of-no-tenant",
    WillOfNoSession = "will-of-no-session",
    WillMisplaced = "will-does-not-open",
    WillWithoutKey = "will-without-key",
    RegistrationDangling = "push-registration-of-no-device-or-another-tenant",
    PushTokenMisplaced = "push-token-does-not-open",
    PushTokenWithoutKey = "push-token-without-key",
    WakeDangling = "wakeup-of-no-registration-or-another-tenant",
    WakeMisfiled = "wakeup-in-another-lane-than-its-registration",
    /// Not one epoch key opens: this is the root key of another store.
    WrongRootKey = "root-key-is-not-of-this-store",
    EpochKeyOfNoTenant = "epoch-key-of-no-tenant",
    EpochKeyDamaged = "epoch-key-does-not-open",
    EpochKeyDisabled = "epoch-key-disabled-in-key-service",
    DataKeyOfNoEpochKey = "data-key-of-no-epoch-key",
    DataKeyDamaged = "data-key-does-not-open",
}

/// The row that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Whole,
    Offset(i64),
    Message { offset: i64, message_id: Uuid },
    Topic(i64),
    Session(i64),
    OutboxRow(i64),
    Will(Uuid),
    Device(Uuid),
    User(Uuid),
    Epoch(u32),
    Key(Uuid),
    Count(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub tenant: Option<Uuid>,
    pub subject: Subject,
}

/// All that was found: every one is counted, the first of each kind are named.
#[derive(Debug, Default)]
pub struct Findings {
    by_kind: BTreeMap<FindingKind, (u64, Vec<Finding>)>,
}

impl Findings {
    pub(crate) fn add(&mut self, kind: FindingKind, tenant: Option<Uuid>, subject: Subject) {
        let (count, named) = self.by_kind.entry(kind).or_default();
        *count += 1;
        if named.len() < FINDINGS_NAMED_MAX {
            named.push(Finding { kind, tenant, subject });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    pub fn total(&self) -> u64 {
        self.by_kind.values().map(|(count, _)| count).sum()
    }

    /// Each kind with its number and the first of its findings.
    pub fn iter(&self) -> impl Iterator<Item = (FindingKind, u64, &[Finding])> {
        self.by_kind.iter().map(|(kind, (count, named))| (*kind, *count, named.as_slice()))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(tenant) = self.tenant {
            write!(f, " tenant={tenant}")?;
        }
        match self.subject {
            Subject::Whole => Ok(()),
            Subject::Offset(offset) => write!(f, " offset={offset}"),
            Subject::Message { offset, message_id } => write!(f, " offset={offset} message={message_id}"),
            Subject::Topic(topic) => write!(f, " topic={topic}"),
            Subject::Session(session) => write!(f, " session={session}"),
            Subject::OutboxRow(row) => write!(f, " row={row}"),
            Subject::Will(message_id) => write!(f, " message={message_id}"),
            Subject::Device(device) => write!(f, " device={device}"),
            Subject::User(user) => write!(f, " user={user}"),
            Subject::Epoch(epoch) => write!(f, " epoch={epoch}"),
            Subject::Key(key) => write!(f, " key={key}"),
            Subject::Count(count) => write!(f, " count={count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_counted_and_the_first_are_named() {
        let mut findings = Findings::default();
        for offset in 0..100 {
            findings.add(FindingKind::MessageAboveHead, Some(Uuid::nil()), Subject::Offset(offset));
        }
        let (kind, count, named) = findings.iter().next().expect("one kind");
        assert_eq!((kind, count, named.len()), (FindingKind::MessageAboveHead, 100, FINDINGS_NAMED_MAX));
        assert_eq!(findings.total(), 100);
        assert_eq!(
            named[7].to_string(),
            "message-above-head tenant=00000000-0000-0000-0000-000000000000 offset=7"
        );
    }
}
