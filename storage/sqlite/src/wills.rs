//! Wills of stored sessions.

use async_trait::async_trait;
use serde_json::json;
use sotto_model::{ClientId, MessageId, QoS, SessionId, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::wills::{DueWill, KeptWill, Wills};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use uuid::Uuid;

use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::{count_to_row, narrow, to_row};
use crate::store::SqliteStore;
use crate::topics::stored_topic;

#[async_trait]
impl Wills for SqliteStore {
    async fn due_wills(&self, now: UnixMillis, limit: usize) -> Result<Vec<DueWill>, StoreError> {
        let rows: Vec<WillRow> = sqlx::query_as(
            "SELECT tenants.tenant_id, wills.client_id, wills.topic, wills.sender, wills.message_id, wills.qos,
                    wills.retain, wills.expiry_seconds, wills.sealed
             FROM wills JOIN tenants USING (tenant_no)
             WHERE wills.due_at_ms <= ? ORDER BY wills.due_at_ms LIMIT ?",
        )
        .bind(to_row(now.0))
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("read due wills")?;
        rows.into_iter().map(WillRow::into_will).collect()
    }

    async fn forget_wills(&self, wills: &[MessageId]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin("forget wills").await?;
        let result = remove(transaction.connection(), wills).await;
        transaction.finish(result).await
    }
}

pub(crate) async fn remove(connection: &mut SqliteConnection, wills: &[MessageId]) -> Result<(), StoreError> {
    let wills: Vec<String> = wills.iter().map(|will| will.0.simple().to_string()).collect();
    sqlx::query("DELETE FROM wills WHERE message_id IN (SELECT unhex(value) FROM json_each(?))")
        .bind(json!(wills).to_string())
        .execute(connection)
        .await
        .during("remove wills")?;
    Ok(())
}

/// With a session that is being opened. Kept anew where the opening is repeated.
pub(crate) async fn keep(
    connection: &mut SqliteConnection,
    session: SessionId,
    tenant: TenantNo,
    will: &KeptWill,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO wills (message_id, session_id, tenant_no, client_id, sender, topic, qos, retain,
                                       delay_seconds, expiry_seconds, sealed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(will.sealed.message_id().0)
    .bind(to_row(session.0))
    .bind(tenant.to_row())
    .bind(will.client_id.as_str())
    .bind(will.sealed.sender().0)
    .bind(will.sealed.topic().as_str())
    .bind(will.qos as u8)
    .bind(will.retain)
    .bind(will.delay_seconds)
    .bind(will.message_expiry_seconds)
    .bind(will.sealed.bytes().as_ref())
    .execute(connection)
    .await
    .during("keep will")?;
    Ok(())
}

/// The session is taken up: what is not due goes, but for a will without delay, whose connection has ended.
pub(crate) async fn take_up(
    connection: &mut SqliteConnection,
    session: i64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    const OPERATION: &str = "take up wills";
    // [MQTT-3.1.3-9]
    sqlx::query(
        "DELETE FROM wills
         WHERE session_id = ? AND (due_at_ms > ? OR (due_at_ms IS NULL AND delay_seconds > 0))",
    )
    .bind(session)
    .bind(to_row(now.0))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    sqlx::query("UPDATE wills SET due_at_ms = 0 WHERE session_id = ? AND due_at_ms IS NULL")
        .bind(session)
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(())
}

/// The session has ended: its will is due.
pub(crate) async fn end(connection: &mut SqliteConnection, session: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE wills SET due_at_ms = 0 WHERE session_id = ?")
        .bind(session)
        .execute(connection)
        .await
        .during("end wills")?;
    Ok(())
}

/// The session's connection has ended: the will is due after its delay, and no later than the session ends.
pub(crate) async fn make_due(
    connection: &mut SqliteConnection,
    session: i64,
    expiry_seconds: u32,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE wills SET due_at_ms = ? + min(delay_seconds, ?) * 1000
         WHERE session_id = ? AND due_at_ms IS NULL",
    )
    .bind(to_row(now.0))
    .bind(expiry_seconds)
    .bind(session)
    .execute(connection)
    .await
    .during("make will due")?;
    Ok(())
}

/// The session's connection has ended without a will to publish.
pub(crate) async fn forget(connection: &mut SqliteConnection, session: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM wills WHERE session_id = ? AND due_at_ms IS NULL")
        .bind(session)
        .execute(connection)
        .await
        .during("forget will")?;
    Ok(())
}

struct WillRow {
    tenant: Uuid,
    client_id: String,
    topic: String,
    sender: Uuid,
    message_id: Uuid,
    qos: i64,
    retain: bool,
    expiry_seconds: Option<i64>,
    sealed: Vec<u8>,
}

impl FromRow<'_, SqliteRow> for WillRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant: row.try_get(0)?,
            client_id: row.try_get(1)?,
            topic: row.try_get(2)?,
            sender: row.try_get(3)?,
            message_id: row.try_get(4)?,
            qos: row.try_get(5)?,
            retain: row.try_get(6)?,
            expiry_seconds: row.try_get(7)?,
            sealed: row.try_get(8)?,
        })
    }
}

impl WillRow {
    fn into_will(self) -> Result<DueWill, StoreError> {
        Ok(DueWill {
            tenant: TenantId(self.tenant),
            client_id: ClientId::parse(&self.client_id).map_err(|_| StoreError::Inconsistent("client_id"))?,
            topic: stored_topic(&self.topic)?,
            sender: UserId(self.sender),
            message_id: MessageId(self.message_id),
            qos: QoS::from_bits(narrow(self.qos, "qos")?).ok_or(StoreError::Inconsistent("qos"))?,
            retain: self.retain,
            message_expiry_seconds: self
                .expiry_seconds
                .map(|seconds| narrow(seconds, "expiry_seconds"))
                .transpose()?,
            sealed: self.sealed.into(),
        })
    }
}
