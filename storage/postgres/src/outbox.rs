//! From a committed message to the devices that sleep.
//!
//! Several processes may relay and claim at once: each takes rows that no other has locked.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::outbox::{ClaimedWakeup, DeadLetter, Outbox, OutboxLag, Relayed, Settlement};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::audit::insert_change;
use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::low_watermark::LowWatermark;
use crate::push_registry::platform;
use crate::store::PostgresStore;
use crate::wake_check;

#[async_trait]
impl Outbox for PostgresStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        let mut held = self.control.hold("relay outbox").await?;
        let result = within(relay(held.connection(), &self.outbox_scan, limit, now)).await;
        held.settle(result)
    }

    async fn claim(
        &self,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        let mut held = self.control.hold("claim wakeups").await?;
        let result = within(claim(held.connection(), &self.wake_scan, limit, now, lease_until)).await;
        held.settle(result)
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        let mut held = self.control.hold("check wakeup").await?;
        let result = within(still_due(held.connection(), wakeup)).await;
        held.settle(result)
    }

    async fn settle(
        &self,
        wakeup: &ClaimedWakeup,
        settlement: Settlement,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut held = self.control.hold("settle wakeup").await?;
        let result = within(settle(held.connection(), wakeup, settlement, now)).await;
        held.settle(result)
    }

    async fn lag(&self) -> Result<OutboxLag, StoreError> {
        let mut held = self.control.hold("read outbox lag").await?;
        let result = within(lag(held.connection())).await;
        held.settle(result)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut held = self.control.hold("read dead letters").await?;
        let result = within(dead_letters(held.connection(), limit)).await;
        held.settle(result)
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut held = self.control.hold("purge dead letters").await?;
        let result = within(async {
            let purged = sqlx::query(
                "DELETE FROM dead_letters WHERE dead_letter_id IN ( \
                     SELECT dead_letter_id FROM dead_letters WHERE died_at_ms < $1 \
                     ORDER BY died_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)",
            )
            .bind(bigint(before.0))
            .bind(column::limit(limit))
            .execute(held.connection())
            .await?;
            Ok(purged.rows_affected())
        })
        .await;
        held.settle(result)
    }
}

async fn relay(
    connection: &mut PgConnection,
    scan: &LowWatermark,
    limit: usize,
    now: UnixMillis,
) -> Result<Relayed, Fault> {
    // Closes whose second step failed are finished here; there are hardly ever any.
    wake_check::finish(connection, now).await?;
    let (rows, messages, reached, wakeups): (i64, i64, Option<i64>, i64) = sqlx::query_as(RELAY)
        .bind(scan.start(now))
        .bind(column::limit(limit))
        .bind(bigint(now.0))
        .fetch_one(connection)
        .await?;
    if let Some(reached) = reached {
        scan.reached(reached);
    }
    Ok(Relayed {
        messages: column::unsigned(messages)?,
        wakeups: column::unsigned(wakeups)?,
        full: rows == column::limit(limit),
    })
}

/// One statement: the outbox rows go in the transaction that makes the wakeups due, and both see the same
/// moment. Of the messages of one sender in one topic only the last matters: who is behind an earlier one
/// is behind the last. Members and sessions are looked up by index, group by group.
const RELAY: &str = "
WITH taken AS (
    DELETE FROM outbox WHERE outbox_id IN (
        SELECT outbox_id FROM outbox WHERE outbox_id > $1 ORDER BY outbox_id LIMIT $2
        FOR UPDATE SKIP LOCKED
    )
    RETURNING outbox_id, base_offset, ordinals, topic_ids, sender_ids, expiries_ms
), last AS (
    SELECT m.topic_id, m.sender_id, max(base_offset + m.ordinal) AS log_offset
    FROM taken CROSS JOIN UNNEST(ordinals, topic_ids, sender_ids, expiries_ms)
        AS m (ordinal, topic_id, sender_id, expires_at_ms)
    WHERE expires_at_ms IS NULL OR expires_at_ms > $3
    GROUP BY topic_id, sender_id
), sleeping AS (
    SELECT s.device_id
    FROM last l
    JOIN topics t USING (topic_id)
    JOIN memberships mb ON mb.conversation_id = t.conversation_id AND mb.tenant_id = t.tenant_id
    JOIN sessions s ON s.user_id = mb.user_id AND s.tenant_id = t.tenant_id
    WHERE mb.user_id <> l.sender_id AND mb.since_offset < l.log_offset AND s.device_id IS NOT NULL
        AND NOT s.connected AND s.cursor_offset < l.log_offset
        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > $3)
    UNION
    SELECT s.device_id
    FROM last l
    JOIN topics t USING (topic_id)
    JOIN sessions s ON s.user_id = t.user_id AND s.tenant_id = t.tenant_id
    WHERE t.user_id <> l.sender_id AND s.device_id IS NOT NULL
        AND NOT s.connected AND s.cursor_offset < l.log_offset
        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > $3)
), due AS (
    INSERT INTO wakes (device_id, tenant_id, due_since_ms, due_at_ms)
    SELECT device_id, tenant_id, $3, $3 FROM push_registrations p
    WHERE device_id IN (SELECT device_id FROM sleeping)
        AND NOT EXISTS (SELECT FROM sessions s WHERE s.device_id = p.device_id AND s.connected)
    ORDER BY device_id
    -- The registration stays until the wakeup is committed.
    FOR KEY SHARE OF p
    ON CONFLICT (device_id) DO NOTHING
    RETURNING 1
)
SELECT count(*), COALESCE(sum(cardinality(ordinals)), 0)::bigint, max(outbox_id), (SELECT count(*) FROM due)
FROM taken
";

async fn claim(
    connection: &mut PgConnection,
    scan: &LowWatermark,
    limit: usize,
    now: UnixMillis,
    lease_until: UnixMillis,
) -> Result<Vec<ClaimedWakeup>, Fault> {
    let mut change = connection.begin().await?;
    let due: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT device_id, due_at_ms FROM wakes WHERE NOT sent AND due_at_ms >= $1 AND due_at_ms <= $2 \
         ORDER BY due_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED",
    )
    .bind(scan.start(now))
    .bind(bigint(now.0))
    .bind(column::limit(limit))
    .fetch_all(&mut *change)
    .await?;
    if due.len() < limit {
        // The queue is empty up to `now`; what becomes due next may be due before the place reached.
        scan.reset();
    } else if let Some((_, reached)) = due.last() {
        scan.reached(*reached);
    }
    if due.is_empty() {
        change.commit().await?;
        return Ok(Vec::new());
    }
    let devices: Vec<Uuid> = due.into_iter().map(|(device, _)| device).collect();
    // A device is back only while its session is seen connected under a lock: then a close that follows,
    // and whoever sees it closed, comes after the wakeup is gone and can make a new one. Sessions that
    // somebody is changing are passed over, for whoever opens one holds it and waits for its wakeup.
    let returned: Vec<Uuid> = sqlx::query_scalar(
        "SELECT device_id FROM sessions WHERE device_id = ANY($1) AND connected FOR SHARE SKIP LOCKED",
    )
    .bind(&devices)
    .fetch_all(&mut *change)
    .await?;
    sqlx::query(
        "DELETE FROM wakes w WHERE w.device_id = ANY($1) AND (w.device_id = ANY($2) \
             OR NOT EXISTS (SELECT FROM sessions s WHERE s.device_id = w.device_id))",
    )
    .bind(&devices)
    .bind(returned)
    .execute(&mut *change)
    .await?;
    let rows: Vec<ClaimRow> = sqlx::query_as(
        "UPDATE wakes w SET lease = nextval('wake_leases'), due_at_ms = $2 FROM push_registrations p \
         WHERE w.device_id = ANY($1) AND p.device_id = w.device_id \
         RETURNING w.tenant_id, w.device_id, w.lease, w.attempts, w.due_since_ms, p.platform, p.sealed_token, \
             p.registered_at_ms",
    )
    .bind(&devices)
    .bind(bigint(lease_until.0))
    .fetch_all(&mut *change)
    .await?;
    change.commit().await?;
    rows.into_iter().map(claimed).collect()
}

type ClaimRow = (Uuid, Uuid, i64, i32, i64, i16, Vec<u8>, i64);

fn claimed(row: ClaimRow) -> Result<ClaimedWakeup, Fault> {
    let (tenant, device, lease, attempts, due_since, code, sealed_token, registered_at) = row;
    Ok(ClaimedWakeup {
        tenant: TenantId(tenant),
        device: DeviceId(device),
        lease: column::unsigned(lease)?,
        attempts: self::attempts(attempts)?,
        due_since: column::time(due_since)?,
        platform: platform(code)?,
        sealed_token: sealed_token.into(),
        registered_at: column::time(registered_at)?,
    })
}

fn attempts(column: i32) -> Result<u32, Fault> {
    u32::try_from(column).map_err(|_| Fault::Inconsistent("attempts"))
}

async fn still_due(connection: &mut PgConnection, wakeup: &ClaimedWakeup) -> Result<bool, Fault> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM wakes WHERE device_id = $1 AND lease = $2 AND NOT sent) \
             AND NOT EXISTS (SELECT FROM sessions WHERE device_id = $1 AND connected)",
    )
    .bind(wakeup.device.0)
    .bind(bigint(wakeup.lease))
    .fetch_one(connection)
    .await?)
}

async fn settle(
    connection: &mut PgConnection,
    wakeup: &ClaimedWakeup,
    settlement: Settlement,
    now: UnixMillis,
) -> Result<(), Fault> {
    let (device, lease) = (wakeup.device.0, bigint(wakeup.lease));
    match settlement {
        Settlement::Sent => {
            sqlx::query("UPDATE wakes SET sent = true, lease = NULL WHERE device_id = $1 AND lease = $2")
                .bind(device)
                .bind(lease)
                .execute(connection)
                .await?;
        }
        Settlement::RetryAt(at) => {
            sqlx::query(
                "UPDATE wakes SET attempts = attempts + 1, due_at_ms = $3, lease = NULL \
                 WHERE device_id = $1 AND lease = $2",
            )
            .bind(device)
            .bind(lease)
            .bind(bigint(at.0))
            .execute(connection)
            .await?;
        }
        Settlement::TokenInvalid => forget_token(connection, wakeup, now).await?,
        Settlement::Dead { outcome } => {
            sqlx::query(
                "WITH dead AS (DELETE FROM wakes WHERE device_id = $1 AND lease = $2 \
                     RETURNING tenant_id, device_id, attempts) \
                 INSERT INTO dead_letters (tenant_id, device_id, attempts, outcome, died_at_ms) \
                 SELECT tenant_id, device_id, attempts + 1, $3, $4 FROM dead",
            )
            .bind(device)
            .bind(lease)
            .bind(outcome)
            .bind(bigint(now.0))
            .execute(connection)
            .await?;
        }
    }
    Ok(())
}

/// The registration goes, and the wakeup with it by foreign key; but a device that has registered anew
/// since the claim keeps the new one, and its wakeup is due at once.
async fn forget_token(
    connection: &mut PgConnection,
    wakeup: &ClaimedWakeup,
    now: UnixMillis,
) -> Result<(), Fault> {
    let mut change = connection.begin().await?;
    let forgotten = sqlx::query(
        "DELETE FROM push_registrations p WHERE p.device_id = $1 AND p.registered_at_ms = $3 \
             AND EXISTS (SELECT FROM wakes w WHERE w.device_id = p.device_id AND w.lease = $2)",
    )
    .bind(wakeup.device.0)
    .bind(bigint(wakeup.lease))
    .bind(bigint(wakeup.registered_at.0))
    .execute(&mut *change)
    .await?;
    if forgotten.rows_affected() > 0 {
        insert_change(&mut change, wakeup.tenant, AuditAction::PushUnregistered, wakeup.device.0, now)
            .await?;
    } else {
        sqlx::query("UPDATE wakes SET due_at_ms = $3, lease = NULL WHERE device_id = $1 AND lease = $2")
            .bind(wakeup.device.0)
            .bind(bigint(wakeup.lease))
            .bind(bigint(now.0))
            .execute(&mut *change)
            .await?;
    }
    change.commit().await?;
    Ok(())
}

async fn lag(connection: &mut PgConnection) -> Result<OutboxLag, Fault> {
    let (messages, oldest, wakeups_due, dead_letters): (i64, Option<i64>, i64, i64) = sqlx::query_as(
        "SELECT (SELECT COALESCE(sum(cardinality(ordinals)), 0)::bigint FROM outbox), \
             (SELECT min(committed_at_ms) FROM outbox), \
             (SELECT count(*) FROM wakes WHERE NOT sent), (SELECT count(*) FROM dead_letters)",
    )
    .fetch_one(connection)
    .await?;
    Ok(OutboxLag {
        messages: column::unsigned(messages)?,
        oldest: oldest.map(column::time).transpose()?,
        wakeups_due: column::unsigned(wakeups_due)?,
        dead_letters: column::unsigned(dead_letters)?,
    })
}

async fn dead_letters(connection: &mut PgConnection, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
    let rows: Vec<(Uuid, Uuid, i32, String, i64)> = sqlx::query_as(
        "SELECT tenant_id, device_id, attempts, outcome, died_at_ms FROM dead_letters \
         ORDER BY dead_letter_id DESC LIMIT $1",
    )
    .bind(column::limit(limit))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(tenant, device, count, outcome, died_at)| {
            Ok(DeadLetter {
                tenant: TenantId(tenant),
                device: DeviceId(device),
                attempts: attempts(count)?,
                outcome,
                died_at: column::time(died_at)?,
            })
        })
        .collect()
}
