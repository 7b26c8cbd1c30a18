//! Numbers as columns hold them: `bigint` is signed, the model's numbers are not.

use sotto_model::{MessageId, Offset, QoS, TopicName, UnixMillis, Urgency, UserId};
use sotto_storage::message_log::StoredMessage;
use sotto_storage::push_registry::Platform;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::fault::Fault;

/// Beyond 2^63 a number is as good as 2^63: no offset, time or count gets there.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(column: i64) -> Result<u64, Fault> {
    u64::try_from(column).map_err(|_| Fault::Inconsistent("a number is negative"))
}

pub(crate) fn offset(column: i64) -> Result<Offset, Fault> {
    unsigned(column).map(Offset)
}

pub(crate) fn time(column: i64) -> Result<UnixMillis, Fault> {
    unsigned(column).map(UnixMillis)
}

pub(crate) fn qos(column: i16) -> Result<QoS, Fault> {
    u8::try_from(column).ok().and_then(QoS::from_bits).ok_or(Fault::Inconsistent("qos is not 0, 1 or 2"))
}

pub(crate) fn urgency(column: i16) -> Result<Urgency, Fault> {
    u8::try_from(column).ok().and_then(Urgency::from_code).ok_or(Fault::Inconsistent("urgency"))
}

pub(crate) fn platform(column: i16) -> Result<Platform, Fault> {
    u8::try_from(column).ok().and_then(Platform::from_code).ok_or(Fault::Inconsistent("platform"))
}

pub(crate) fn attempts(column: i32) -> Result<u32, Fault> {
    u32::try_from(column).map_err(|_| Fault::Inconsistent("attempts"))
}

pub(crate) fn topic(column: &str) -> Result<TopicName, Fault> {
    TopicName::parse(column).map_err(|_| Fault::Inconsistent("a topic is not one"))
}

/// What a message is read from, in this order.
pub(crate) const MESSAGE_COLUMNS: &str = "topic_id, log_offset, committed_at_ms, expires_at_ms, message_id, \
     sender_id, qos, retain, sealed";

/// A message, but for the name of its topic.
pub(crate) struct MessageRow {
    pub(crate) topic_id: i64,
    log_offset: i64,
    committed_at_ms: i64,
    expires_at_ms: Option<i64>,
    message_id: Uuid,
    sender_id: Uuid,
    qos: i16,
    retain: bool,
    sealed: Vec<u8>,
}

impl FromRow<'_, PgRow> for MessageRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            topic_id: row.try_get(0)?,
            log_offset: row.try_get(1)?,
            committed_at_ms: row.try_get(2)?,
            expires_at_ms: row.try_get(3)?,
            message_id: row.try_get(4)?,
            sender_id: row.try_get(5)?,
            qos: row.try_get(6)?,
            retain: row.try_get(7)?,
            sealed: row.try_get(8)?,
        })
    }
}

impl MessageRow {
    pub(crate) fn offset(&self) -> i64 {
        self.log_offset
    }

    pub(crate) fn sealed_bytes(&self) -> usize {
        self.sealed.len()
    }

    pub(crate) fn into_message(self, topic: TopicName) -> Result<StoredMessage, Fault> {
        Ok(StoredMessage {
            offset: offset(self.log_offset)?,
            topic,
            sender: UserId(self.sender_id),
            message_id: MessageId(self.message_id),
            qos: qos(self.qos)?,
            retain: self.retain,
            committed_at: time(self.committed_at_ms)?,
            expires_at: self.expires_at_ms.map(time).transpose()?,
            sealed: self.sealed.into(),
        })
    }
}
