//! After a restore: nothing is given out again that clients have seen.

use async_trait::async_trait;
use sotto_model::{Offset, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::restoration::{RESTORE_GAP, Restoration, Restored};
use sqlx::{Executor, SqliteConnection};

use crate::audit::insert_audit;
use crate::backup::COPY;
use crate::error::During;
use crate::log_id::is_within_log;
use crate::number::{offset, to_row};
use crate::store::SqliteStore;

const OPERATION: &str = "restored";

#[async_trait]
impl Restoration for SqliteStore {
    async fn restored(&self, now: UnixMillis) -> Result<Restored, StoreError> {
        let mut transaction = self.writer.begin(OPERATION).await?;
        let result = restored(transaction.connection(), now).await;
        transaction.finish(result).await
    }
}

impl SqliteStore {
    /// It was made by [`Self::back_up`], and nobody has served from it.
    pub async fn is_copy(&self) -> Result<bool, StoreError> {
        let mark: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&self.readers)
            .await
            .during("read the mark of a copy")?;
        Ok(mark == COPY)
    }
}

async fn restored(connection: &mut SqliteConnection, now: UnixMillis) -> Result<Restored, StoreError> {
    let head_max: i64 = sqlx::query_scalar("SELECT coalesce(max(head), 0) FROM counters")
        .fetch_one(&mut *connection)
        .await
        .during(OPERATION)?;
    if !is_within_log(Offset(offset(head_max)?.0 + RESTORE_GAP)) {
        return Err(StoreError::Refused { operation: OPERATION, code: "log is full".into() });
    }
    let logs = sqlx::query("UPDATE counters SET head = head + ? WHERE head > 0")
        .bind(to_row(RESTORE_GAP))
        .execute(&mut *connection)
        .await
        .during(OPERATION)?
        .rows_affected();
    let packet_ids_forgotten = sqlx::query("DELETE FROM exactly_once_received")
        .execute(&mut *connection)
        .await
        .during(OPERATION)?
        .rows_affected();
    let wakeups_due =
        sqlx::query("UPDATE wakes SET sent = 0, attempts = 0, lease = 0, next_attempt_at_ms = ?")
            .bind(to_row(now.0))
            .execute(&mut *connection)
            .await
            .during(OPERATION)?
            .rows_affected();
    // What was booked may have been long ago, or not be so yet by this clock.
    connection.execute("DELETE FROM wake_quotas").await.during(OPERATION)?;
    // It is no copy any more: what is committed from here on is its own.
    connection.execute("PRAGMA user_version = 0").await.during(OPERATION)?;
    let event = AuditEvent {
        at: now,
        tenant: None,
        actor: None,
        action: AuditAction::StoreRestored,
        resource: None,
        allowed: true,
    };
    insert_audit(connection, &event).await?;
    Ok(Restored { logs, packet_ids_forgotten, wakeups_due })
}
