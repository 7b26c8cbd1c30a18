//! How claimed wakeups end.

use sotto_model::{UnixMillis, Urgency};
use sotto_storage::audit::AuditAction;
use sotto_storage::outbox::{ClaimedWakeup, Settlement};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::audit::insert_change;
use crate::column::bigint;
use crate::fault::Fault;

/// All in one transaction, but for tokens that are dead: those are rare, and take a registration along, which is
/// locked before its wakeup.
pub(crate) async fn settle_many(
    connection: &mut PgConnection,
    settlements: &[(ClaimedWakeup, Settlement)],
    now: UnixMillis,
) -> Result<(), Fault> {
    let mut columns = Columns::default();
    for (wakeup, settlement) in settlements {
        match *settlement {
            Settlement::Sent { at } => columns.push(wakeup, Ended { sent: true, ..Ended::at(at) }),
            Settlement::RetryAt(at) => columns.push(wakeup, Ended { failed: 1, ..Ended::at(at) }),
            Settlement::Wait(at) => columns.push(wakeup, Ended::at(at)),
            Settlement::Dead { outcome } => {
                columns.push(wakeup, Ended { outcome: Some(outcome), failed: 1, ..Ended::at(now) });
            }
            Settlement::TokenInvalid { since, retry_at } => {
                forget_token(connection, wakeup, since, retry_at, now).await?;
            }
        }
    }
    if columns.devices.is_empty() {
        return Ok(());
    }
    let mut change = connection.begin().await?;
    if !columns.low_devices.is_empty() {
        sqlx::query(NOTE_LOW)
            .bind(&columns.low_devices)
            .bind(&columns.low_leases)
            .bind(&columns.low_sent_at_ms)
            .execute(&mut *change)
            .await?;
    }
    sqlx::query(SETTLE)
        .bind(&columns.devices)
        .bind(&columns.leases)
        .bind(&columns.sent)
        .bind(&columns.failed)
        .bind(&columns.at_ms)
        .bind(&columns.outcomes)
        .execute(&mut *change)
        .await?;
    change.commit().await?;
    Ok(())
}

/// Before the wakeups: whoever holds a registration and its wakeup locked the registration first.
const NOTE_LOW: &str = "
WITH held AS (
    SELECT p.device_id, n.sent_at_ms
    FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[]) AS n (device_id, lease, sent_at_ms)
    JOIN wakes w ON w.device_id = n.device_id AND w.lease = n.lease
    JOIN push_registrations p ON p.device_id = n.device_id
    ORDER BY p.device_id
    FOR NO KEY UPDATE OF p
)
UPDATE push_registrations p SET low_sent_at_ms = held.sent_at_ms FROM held WHERE p.device_id = held.device_id
";

const SETTLE: &str = "
WITH held AS (
    SELECT w.device_id, n.sent, n.failed, n.at_ms, n.outcome
    FROM UNNEST($1::uuid[], $2::bigint[], $3::boolean[], $4::integer[], $5::bigint[], $6::text[])
        AS n (device_id, lease, sent, failed, at_ms, outcome)
    JOIN wakes w ON w.device_id = n.device_id AND w.lease = n.lease
    ORDER BY w.device_id
    FOR UPDATE OF w
), dead AS (
    DELETE FROM wakes w USING held h WHERE w.device_id = h.device_id AND h.outcome IS NOT NULL
    RETURNING w.tenant_id, w.device_id, w.platform, w.app, w.urgency, w.attempts + h.failed AS attempts, h.outcome,
        h.at_ms
), buried AS (
    INSERT INTO dead_letters (tenant_id, device_id, platform, app, urgency, attempts, outcome, died_at_ms)
    SELECT tenant_id, device_id, platform, app, urgency, attempts, outcome, at_ms FROM dead ORDER BY device_id
)
UPDATE wakes w SET sent = h.sent, attempts = w.attempts + h.failed, due_at_ms = h.at_ms, lease = NULL
FROM held h WHERE w.device_id = h.device_id AND h.outcome IS NULL
";

#[derive(Clone, Copy)]
struct Ended {
    sent: bool,
    failed: i32,
    at: UnixMillis,
    outcome: Option<&'static str>,
}

impl Ended {
    fn at(at: UnixMillis) -> Self {
        Self { sent: false, failed: 0, at, outcome: None }
    }
}

#[derive(Default)]
struct Columns {
    devices: Vec<Uuid>,
    leases: Vec<i64>,
    sent: Vec<bool>,
    failed: Vec<i32>,
    at_ms: Vec<i64>,
    outcomes: Vec<Option<&'static str>>,
    /// Those that were sent and are not urgent.
    low_devices: Vec<Uuid>,
    low_leases: Vec<i64>,
    low_sent_at_ms: Vec<i64>,
}

impl Columns {
    fn push(&mut self, wakeup: &ClaimedWakeup, ended: Ended) {
        let at_ms = bigint(ended.at.0);
        self.devices.push(wakeup.device.0);
        self.leases.push(bigint(wakeup.lease));
        self.sent.push(ended.sent);
        self.failed.push(ended.failed);
        self.at_ms.push(at_ms);
        self.outcomes.push(ended.outcome);
        if ended.sent && wakeup.urgency == Urgency::Low {
            self.low_devices.push(wakeup.device.0);
            self.low_leases.push(bigint(wakeup.lease));
            self.low_sent_at_ms.push(at_ms);
        }
    }
}

/// The registration goes, and the wakeup with it by foreign key; but a device that has registered anew since the
/// claim keeps the new one, and its wakeup is due at once; and one that registered after the token is said to have
/// died is tried again.
async fn forget_token(
    connection: &mut PgConnection,
    wakeup: &ClaimedWakeup,
    since: Option<UnixMillis>,
    retry_at: UnixMillis,
    now: UnixMillis,
) -> Result<(), Fault> {
    let mut change = connection.begin().await?;
    let registered_at: Option<i64> = sqlx::query_scalar(
        "SELECT registered_at_ms FROM push_registrations p WHERE p.device_id = $1 \
             AND EXISTS (SELECT FROM wakes w WHERE w.device_id = p.device_id AND w.lease = $2) FOR UPDATE OF p",
    )
    .bind(wakeup.device.0)
    .bind(bigint(wakeup.lease))
    .fetch_optional(&mut *change)
    .await?;
    let Some(registered_at) = registered_at else { return Ok(()) };
    let is_as_claimed = registered_at == bigint(wakeup.registered_at.0);
    if is_as_claimed && since.is_none_or(|since| wakeup.registered_at < since) {
        sqlx::query("DELETE FROM push_registrations WHERE device_id = $1")
            .bind(wakeup.device.0)
            .execute(&mut *change)
            .await?;
        insert_change(&mut change, wakeup.tenant, AuditAction::PushUnregistered, wakeup.device.0, now)
            .await?;
    } else {
        let (failed, due_at) = if is_as_claimed { (1, retry_at) } else { (0, now) };
        sqlx::query(
            "UPDATE wakes SET due_at_ms = $3, attempts = attempts + $4, lease = NULL \
             WHERE device_id = $1 AND lease = $2",
        )
        .bind(wakeup.device.0)
        .bind(bigint(wakeup.lease))
        .bind(bigint(due_at.0))
        .bind(failed)
        .execute(&mut *change)
        .await?;
    }
    change.commit().await?;
    Ok(())
}
