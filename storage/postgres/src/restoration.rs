//! After a restore: nothing is given out again that clients have seen.

use async_trait::async_trait;
use sotto_model::UnixMillis;
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::message_log::MessageLog;
use sotto_storage::restoration::{RESTORE_GAP, Restoration, Restored};
use sqlx::{Connection, PgConnection};

use crate::audit;
use crate::column::bigint;
use crate::fault::Fault;
use crate::lane::within_time;
use crate::limits::RESTORATION_TIMEOUT;
use crate::store::PostgresStore;

#[async_trait]
impl Restoration for PostgresStore {
    async fn restored(&self, now: UnixMillis) -> Result<Restored, StoreError> {
        // Whoever holds the log serves.
        self.claim_writer().await?;
        let mut held = self.control.hold("restored").await?;
        let result = within_time(RESTORATION_TIMEOUT, restored(held.connection(), now)).await;
        held.settle(result)
    }
}

async fn restored(connection: &mut PgConnection, now: UnixMillis) -> Result<Restored, Fault> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    // The last batch is not repeated: whoever sent it is gone.
    let logs = sqlx::query(
        "UPDATE counters SET head = head + $1, batch_base = head + $1, batch_number = 0 WHERE head > 0",
    )
    .bind(bigint(RESTORE_GAP))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let packet_ids_forgotten =
        sqlx::query("DELETE FROM exactly_once_received").execute(&mut *transaction).await?.rows_affected();
    let wakeups_due =
        sqlx::query("UPDATE wakes SET sent = false, lease = NULL, attempts = 0, due_at_ms = $1")
            .bind(bigint(now.0))
            .execute(&mut *transaction)
            .await?
            .rows_affected();
    // What was booked may have been long ago, or not be so yet by this clock.
    sqlx::query("DELETE FROM wake_quotas").execute(&mut *transaction).await?;
    let event = AuditEvent {
        at: now,
        tenant: None,
        actor: None,
        action: AuditAction::StoreRestored,
        resource: None,
        allowed: true,
    };
    audit::insert(&mut transaction, &[event]).await?;
    transaction.commit().await?;
    Ok(Restored { logs, packet_ids_forgotten, wakeups_due })
}
