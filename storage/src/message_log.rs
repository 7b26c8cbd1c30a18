//! The log: every durable message once, in its tenant's log, at an [`Offset`].

use async_trait::async_trait;
use bytes::Bytes;
use sotto_keyring::Sealed;
use sotto_model::{
    MessageId, Offset, PacketId, PublicationId, QoS, SessionId, TenantId, TopicFilter, TopicName, UnixMillis,
    Urgency, UserId,
};

use crate::error::StoreError;

/// A message to commit. It cannot be made without [`Sealed`] bytes, and those not without a permit.
pub struct Append {
    pub sealed: Sealed,
    pub qos: QoS,
    pub retain: RetainChange,
    /// When the message is no longer to be delivered (MQTT 5 Message Expiry Interval).
    pub expires_at: Option<UnixMillis>,
    /// An outbox row is committed with it: sleeping devices are to be woken, as soon as it says. With `None` the
    /// message does not count as something that a device is behind with, either.
    pub wakes: Option<Urgency>,
    /// The publisher's session and packet id of a QoS 2 PUBLISH, remembered in the same transaction
    /// until its PUBREL, so that the message is committed once. [MQTT-4.3.3-10] A session that has ended in
    /// the meantime remembers nothing; the message is committed all the same.
    pub exactly_once: Option<(SessionId, PacketId)>,
    /// Its sender's name for it. What the sender had committed under the same one is not committed again.
    pub publication: Option<PublicationId>,
    /// The kept will that is published with it, and gone in the same transaction.
    pub will: Option<MessageId>,
}

/// What a message does to the retained message of its topic. [MQTT-3.3.1-5] [MQTT-3.3.1-6]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainChange {
    Keep,
    Set,
    Clear,
}

/// A commit: all of it or nothing.
pub struct Batch {
    /// One more than the writer's batch before it. A batch that is appended again under the same
    /// number, after a connection was lost during COMMIT, is committed once. The number of a batch that was
    /// refused may be given to another.
    pub number: u64,
    /// At most `BATCH_RECORDS_MAX`.
    pub appends: Vec<Append>,
    pub committed_at: UnixMillis,
}

/// Where a message of a batch is, in its tenant's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Now(Offset),
    /// It had been committed there before, under the same publication id: nothing of it is stored again, but
    /// for the packet id of a QoS 2 PUBLISH.
    Before(Offset),
}

impl Placed {
    pub fn offset(self) -> Offset {
        match self {
            Self::Now(offset) | Self::Before(offset) => offset,
        }
    }
}

/// A message as the store gives it back: still sealed.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    pub offset: Offset,
    pub topic: TopicName,
    pub sender: UserId,
    pub message_id: MessageId,
    pub qos: QoS,
    /// It was published with RETAIN set.
    pub retain: bool,
    pub committed_at: UnixMillis,
    pub expires_at: Option<UnixMillis>,
    pub sealed: Bytes,
}

/// Messages on the topics that `filter` matches, after `after`.
#[derive(Clone, Debug)]
pub struct Selector {
    pub filter: TopicFilter,
    pub after: Offset,
}

#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    pub records: usize,
    /// Of sealed bytes; the first record is returned whatever its size.
    pub bytes: usize,
}

/// A page of the log. Everything selected at or before `scanned_to` is in it.
#[derive(Debug)]
pub struct Page {
    /// By offset, each once, however many selectors match it.
    pub messages: Vec<StoredMessage>,
    /// The last message's offset when the limit left something out, `up_to` otherwise. A wildcard so wide
    /// that the log itself is read may end a page in between, full or not: go on until this is `up_to`.
    pub scanned_to: Offset,
}

/// A page of retained messages.
#[derive(Debug)]
pub struct RetainedPage {
    /// By topic.
    pub messages: Vec<StoredMessage>,
    /// The next page is after this topic; `None`: nothing follows. A page may end before it is full, or empty,
    /// where many topics had to be looked at that the filter does not match.
    pub next_after: Option<TopicName>,
}

#[async_trait]
pub trait MessageLog: Send + Sync {
    /// Claims the log for this process, as its only writer. Returns the number of the last batch that
    /// this writer committed. Refused while another process holds the claim; the holder may ask again.
    async fn claim_writer(&self) -> Result<u64, StoreError>;

    /// Commits the batch in one transaction, with its outbox rows and its changes to retained messages,
    /// and returns where each is, in the batch's order. A tenant that does not exist is `Refused`; a number
    /// before the last, or the last with another count of messages, is `Inconsistent`.
    async fn append(&self, batch: &Batch) -> Result<Vec<Placed>, StoreError>;

    /// The last offset of every tenant.
    async fn heads(&self) -> Result<Vec<(TenantId, Offset)>, StoreError>;

    /// Messages with an offset in `(after, up_to]` that any selector matches after its own `after`. `up_to`
    /// is at most the tenant's head: what is committed later is not looked for.
    async fn read(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        after: Offset,
        up_to: Offset,
        limit: PageLimit,
    ) -> Result<Page, StoreError>;

    /// The messages at these offsets that the log still holds, by offset.
    async fn get(&self, tenant: TenantId, offsets: &[Offset]) -> Result<Vec<StoredMessage>, StoreError>;

    /// Of the retained messages that `filter` matches and that have not expired at `now`, the first on topics
    /// after `after`, in the order of the topics' bytes.
    async fn retained(
        &self,
        tenant: TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        now: UnixMillis,
        limit: PageLimit,
    ) -> Result<RetainedPage, StoreError>;

    /// Every topic that has a retained message, expired or not; `None` when there are more than `limit`.
    async fn retained_topics(&self, limit: usize) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError>;

    /// Deletes at most `limit` retained messages that expired at or before `now`, and says how many.
    async fn expire_retained(&self, now: UnixMillis, limit: usize) -> Result<usize, StoreError>;

    /// Forgets at most `limit` publication ids of messages committed before `before`, and says how many.
    async fn forget_publications(&self, before: UnixMillis, limit: usize) -> Result<usize, StoreError>;

    /// Answers when the database can be asked.
    async fn ping(&self) -> Result<(), StoreError>;
}
