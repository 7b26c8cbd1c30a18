//! A message as a row: log_id, topic name, sender, message_id, qos, retain, committed_at_ms,
//! expires_at_ms, sealed, in this order.

use sotto_model::{MessageId, QoS, UserId};
use sotto_storage::StoreError;
use sotto_storage::message_log::StoredMessage;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::log_id::LogId;
use crate::number::{millis, narrow};
use crate::topics::stored_topic;

pub(crate) struct MessageRow {
    log_id: i64,
    topic: String,
    sender: Uuid,
    message_id: Uuid,
    qos: i64,
    retain: bool,
    committed_at_ms: i64,
    expires_at_ms: Option<i64>,
    sealed: Vec<u8>,
}

impl FromRow<'_, SqliteRow> for MessageRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            log_id: row.try_get(0)?,
            topic: row.try_get(1)?,
            sender: row.try_get(2)?,
            message_id: row.try_get(3)?,
            qos: row.try_get(4)?,
            retain: row.try_get(5)?,
            committed_at_ms: row.try_get(6)?,
            expires_at_ms: row.try_get(7)?,
            sealed: row.try_get(8)?,
        })
    }
}

impl MessageRow {
    pub(crate) fn into_message(self) -> Result<StoredMessage, StoreError> {
        Ok(StoredMessage {
            offset: LogId::from_row(self.log_id).offset(),
            topic: stored_topic(&self.topic)?,
            sender: UserId(self.sender),
            message_id: MessageId(self.message_id),
            qos: QoS::from_bits(narrow(self.qos, "qos")?).ok_or(StoreError::Inconsistent("qos"))?,
            retain: self.retain,
            committed_at: millis(self.committed_at_ms)?,
            expires_at: self.expires_at_ms.map(millis).transpose()?,
            sealed: self.sealed.into(),
        })
    }
}
