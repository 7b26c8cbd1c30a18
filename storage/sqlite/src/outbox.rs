//! From outbox rows to wakeups, and what becomes of those.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::outbox::{ClaimedWakeup, DeadLetter, Outbox, OutboxLag, Relayed, Settlement};
use sotto_storage::push_registry::Platform;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::audit::insert_audit;
use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::{count_to_row, from_row, millis, narrow, to_row};
use crate::store::SqliteStore;
use crate::wakes::{asleep, forget_wake};

#[async_trait]
impl Outbox for SqliteStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        // Asked of a reader first: polling an empty outbox takes no write lock.
        if self.answers_no("SELECT EXISTS (SELECT 1 FROM outbox)", "relay").await? {
            return Ok(Relayed::default());
        }
        let mut transaction = self.writer.begin("relay").await?;
        let result = relay(transaction.connection(), limit, now).await;
        transaction.finish(result).await
    }

    async fn claim(
        &self,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        if self.answers_no("SELECT EXISTS (SELECT 1 FROM wakes WHERE sent = 0)", "claim").await? {
            return Ok(Vec::new());
        }
        let mut transaction = self.writer.begin("claim").await?;
        let result = claim(transaction.connection(), limit, now, lease_until).await;
        transaction.finish(result).await
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        let (due,): (bool,) = sqlx::query_as(concat!(
            "SELECT EXISTS (SELECT 1 FROM wakes JOIN tenants USING (tenant_no)
                 WHERE tenants.tenant_id = ?2 AND wakes.device_id = ?3
                   AND wakes.lease = ?4 AND wakes.sent = 0 AND ",
            asleep!(),
            ")"
        ))
        // No clock here: a session that expires in this very moment may cost one needless push.
        .bind(0_i64)
        .bind(wakeup.tenant.0)
        .bind(wakeup.device.0)
        .bind(to_row(wakeup.lease))
        .fetch_one(&self.readers)
        .await
        .during("check wakeup")?;
        Ok(due)
    }

    async fn settle(
        &self,
        wakeup: &ClaimedWakeup,
        settlement: Settlement,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin("settle").await?;
        let connection = transaction.connection();
        let result = match self.tenants.number(connection, wakeup.tenant).await {
            Ok(Some(tenant)) => settle(connection, tenant, wakeup, settlement, now).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        transaction.finish(result).await
    }

    async fn lag(&self) -> Result<OutboxLag, StoreError> {
        let (messages, oldest, wakeups_due, dead_letters): (i64, Option<i64>, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM outbox),
                    (SELECT messages.committed_at_ms FROM outbox JOIN messages USING (log_id)
                     ORDER BY outbox.outbox_id LIMIT 1),
                    (SELECT count(*) FROM wakes WHERE sent = 0),
                    (SELECT count(*) FROM dead_letters)",
        )
        .fetch_one(&self.readers)
        .await
        .during("read lag")?;
        Ok(OutboxLag {
            messages: from_row(messages, "count")?,
            oldest: oldest.map(millis).transpose()?,
            wakeups_due: from_row(wakeups_due, "count")?,
            dead_letters: from_row(dead_letters, "count")?,
        })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let rows: Vec<(Uuid, Uuid, i64, String, i64)> = sqlx::query_as(
            "SELECT tenants.tenant_id, dead_letters.device_id, dead_letters.attempts, dead_letters.outcome,
                    dead_letters.died_at_ms
             FROM dead_letters JOIN tenants USING (tenant_no)
             ORDER BY dead_letters.dead_letter_id DESC LIMIT ?",
        )
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("read dead letters")?;
        rows.into_iter()
            .map(|(tenant, device, attempts, outcome, died_at)| {
                Ok(DeadLetter {
                    tenant: TenantId(tenant),
                    device: DeviceId(device),
                    attempts: narrow(attempts, "attempts")?,
                    outcome,
                    died_at: millis(died_at)?,
                })
            })
            .collect()
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        const OPERATION: &str = "purge dead letters";
        let mut transaction = self.writer.begin(OPERATION).await?;
        let result = sqlx::query(
            "DELETE FROM dead_letters WHERE dead_letter_id IN (
                 SELECT dead_letter_id FROM dead_letters WHERE died_at_ms < ? ORDER BY died_at_ms LIMIT ?)",
        )
        .bind(to_row(before.0))
        .bind(count_to_row(limit))
        .execute(transaction.connection())
        .await
        .during(OPERATION);
        Ok(transaction.finish(result).await?.rows_affected())
    }
}

impl SqliteStore {
    async fn answers_no(&self, question: &'static str, operation: &'static str) -> Result<bool, StoreError> {
        let (yes,): (bool,) = sqlx::query_as(question).fetch_one(&self.readers).await.during(operation)?;
        Ok(!yes)
    }
}

async fn relay(
    connection: &mut SqliteConnection,
    limit: usize,
    now: UnixMillis,
) -> Result<Relayed, StoreError> {
    const OPERATION: &str = "relay";
    let (last,): (Option<i64>,) = sqlx::query_as(
        "SELECT max(outbox_id) FROM (SELECT outbox_id FROM outbox ORDER BY outbox_id LIMIT ?)",
    )
    .bind(count_to_row(limit))
    .fetch_one(&mut *connection)
    .await
    .during(OPERATION)?;
    let Some(last) = last else { return Ok(Relayed::default()) };
    // A member is behind if any message of another's is after both bounds, so of each sender's messages
    // to a conversation only the last counts: the join grows with conversations, not with messages.
    let wakes = sqlx::query(
        "WITH last_message (tenant_no, scope_kind, scope_id, sender, log_id) AS MATERIALIZED (
             SELECT topics.tenant_no, topics.scope_kind, topics.scope_id, messages.sender,
                    max(messages.log_id)
             FROM outbox
             CROSS JOIN messages ON messages.log_id = outbox.log_id
             CROSS JOIN topics ON topics.topic_id = messages.topic_id
             WHERE outbox.outbox_id <= ?1 AND topics.scope_kind <> 0
               AND (messages.expires_at_ms IS NULL OR messages.expires_at_ms > ?2)
             GROUP BY 1, 2, 3, 4),
         recipient (tenant_no, user_id, log_id) AS (
             SELECT last_message.tenant_no, memberships.user_id, last_message.log_id
             FROM last_message CROSS JOIN memberships
             ON memberships.tenant_no = last_message.tenant_no
                AND memberships.conversation_id = last_message.scope_id
             WHERE last_message.scope_kind = 1 AND memberships.user_id <> last_message.sender
               AND (memberships.tenant_no << 44) + memberships.since < last_message.log_id
             UNION ALL
             SELECT tenant_no, scope_id, log_id FROM last_message
             WHERE scope_kind = 2 AND scope_id <> sender)
         INSERT INTO wakes (tenant_no, device_id, due_since_at_ms, next_attempt_at_ms)
         SELECT sessions.tenant_no, sessions.device_id, ?2, ?2
         FROM recipient
         CROSS JOIN sessions
             ON sessions.tenant_no = recipient.tenant_no AND sessions.user_id = recipient.user_id
         CROSS JOIN push_registrations
             ON push_registrations.tenant_no = sessions.tenant_no
            AND push_registrations.device_id = sessions.device_id
         WHERE sessions.connected = 0
           AND (sessions.expires_at_ms IS NULL OR sessions.expires_at_ms > ?2)
           AND (sessions.tenant_no << 44) + sessions.cursor < recipient.log_id
           AND NOT EXISTS (SELECT 1 FROM sessions AS live
                   WHERE live.tenant_no = sessions.tenant_no AND live.device_id = sessions.device_id
                     AND live.connected = 1)
         ON CONFLICT DO NOTHING",
    )
    .bind(last)
    .bind(to_row(now.0))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let rows = sqlx::query("DELETE FROM outbox WHERE outbox_id <= ?")
        .bind(last)
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(Relayed {
        messages: rows.rows_affected(),
        wakeups: wakes.rows_affected(),
        full: rows.rows_affected() >= limit as u64,
    })
}

type ClaimedRow = (Uuid, Uuid, i64, i64, i64, Vec<u8>, i64);

async fn claim(
    connection: &mut SqliteConnection,
    limit: usize,
    now: UnixMillis,
    lease_until: UnixMillis,
) -> Result<Vec<ClaimedWakeup>, StoreError> {
    const OPERATION: &str = "claim";
    sqlx::query(concat!(
        "DELETE FROM wakes WHERE (tenant_no, device_id) IN (
             SELECT tenant_no, device_id FROM wakes
             WHERE sent = 0 AND next_attempt_at_ms <= ?1 AND lease_until_at_ms <= ?1
             ORDER BY next_attempt_at_ms LIMIT ?2)
         AND NOT ",
        asleep!()
    ))
    .bind(to_row(now.0))
    .bind(count_to_row(limit))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let (lease,): (i64,) = sqlx::query_as("UPDATE wake_lease SET lease = lease + 1 RETURNING lease")
        .fetch_one(&mut *connection)
        .await
        .during(OPERATION)?;
    let mut rows: Vec<ClaimedRow> = sqlx::query_as(concat!(
        "UPDATE wakes SET lease = ?3, lease_until_at_ms = ?4
         WHERE (tenant_no, device_id) IN (
             SELECT tenant_no, device_id FROM wakes
             WHERE sent = 0 AND next_attempt_at_ms <= ?1 AND lease_until_at_ms <= ?1 AND ",
        asleep!(),
        "    ORDER BY next_attempt_at_ms LIMIT ?2)
         RETURNING (SELECT tenant_id FROM tenants WHERE tenants.tenant_no = wakes.tenant_no), device_id,
             attempts, due_since_at_ms,
             (SELECT platform FROM push_registrations AS registration
              WHERE (registration.tenant_no, registration.device_id) = (wakes.tenant_no, wakes.device_id)),
             (SELECT sealed_token FROM push_registrations AS registration
              WHERE (registration.tenant_no, registration.device_id) = (wakes.tenant_no, wakes.device_id)),
             (SELECT registered_at_ms FROM push_registrations AS registration
              WHERE (registration.tenant_no, registration.device_id) = (wakes.tenant_no, wakes.device_id))"
    ))
    .bind(to_row(now.0))
    .bind(count_to_row(limit))
    .bind(lease)
    .bind(to_row(lease_until.0))
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    // The longest due first.
    rows.sort_unstable_by_key(|row| row.3);
    rows.into_iter()
        .map(|(tenant, device, attempts, due_since, platform, sealed_token, registered_at)| {
            Ok(ClaimedWakeup {
                tenant: TenantId(tenant),
                device: DeviceId(device),
                lease: from_row(lease, "lease")?,
                attempts: narrow(attempts, "attempts")?,
                due_since: millis(due_since)?,
                platform: Platform::from_code(narrow(platform, "platform")?)
                    .ok_or(StoreError::Inconsistent("platform"))?,
                sealed_token: sealed_token.into(),
                registered_at: millis(registered_at)?,
            })
        })
        .collect()
}

async fn settle(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    settlement: Settlement,
    now: UnixMillis,
) -> Result<(), StoreError> {
    const OPERATION: &str = "settle";
    // 0 is no claim's number, so every settlement ends the lease.
    let (sent, attempts, next_attempt) = match settlement {
        Settlement::Sent => (true, wakeup.attempts, now),
        Settlement::RetryAt(at) => (false, wakeup.attempts.saturating_add(1), at),
        // Registered anew in the meantime: the new token has not been tried.
        Settlement::TokenInvalid => (false, 0, now),
        Settlement::Dead { .. } => (false, wakeup.attempts.saturating_add(1), now),
    };
    let settled = sqlx::query(
        "UPDATE wakes SET sent = ?, attempts = ?, next_attempt_at_ms = ?, lease = 0, lease_until_at_ms = 0
         WHERE tenant_no = ? AND device_id = ? AND lease = ?",
    )
    .bind(sent)
    .bind(attempts)
    .bind(to_row(next_attempt.0))
    .bind(tenant.to_row())
    .bind(wakeup.device.0)
    .bind(to_row(wakeup.lease))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    if settled.rows_affected() == 0 {
        return Ok(());
    }
    match settlement {
        Settlement::Sent | Settlement::RetryAt(_) => Ok(()),
        Settlement::TokenInvalid => drop_registration(connection, tenant, wakeup, now).await,
        Settlement::Dead { outcome } => bury(connection, tenant, wakeup, attempts, outcome, now).await,
    }
}

/// The registration that the push service has refused goes, and the wakeup with it.
async fn drop_registration(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let dropped = sqlx::query(
        "DELETE FROM push_registrations
         WHERE tenant_no = ? AND device_id = ? AND registered_at_ms = ? AND sealed_token = ?",
    )
    .bind(tenant.to_row())
    .bind(wakeup.device.0)
    .bind(to_row(wakeup.registered_at.0))
    .bind(wakeup.sealed_token.as_ref())
    .execute(&mut *connection)
    .await
    .during("drop registration")?;
    if dropped.rows_affected() == 0 {
        return Ok(());
    }
    let event = AuditEvent {
        at: now,
        tenant: Some(wakeup.tenant),
        actor: None,
        action: AuditAction::PushUnregistered,
        resource: Some(wakeup.device.0),
        allowed: true,
    };
    insert_audit(connection, &event).await
}

async fn bury(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    attempts: u32,
    outcome: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    const OPERATION: &str = "bury wakeup";
    sqlx::query(
        "INSERT INTO dead_letters (tenant_no, device_id, attempts, outcome, died_at_ms)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(tenant.to_row())
    .bind(wakeup.device.0)
    .bind(attempts)
    .bind(outcome)
    .bind(to_row(now.0))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    forget_wake(connection, tenant, wakeup.device).await
}
