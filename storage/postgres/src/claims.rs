//! Leases on wakeups that are due.

use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::outbox::ClaimedWakeup;
use sotto_storage::push_registry::Lane;
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::low_watermark::LowWatermark;

pub(crate) async fn claim(
    connection: &mut PgConnection,
    scan: &LowWatermark,
    lane: &Lane,
    limit: usize,
    now: UnixMillis,
    lease_until: UnixMillis,
) -> Result<Vec<ClaimedWakeup>, Fault> {
    let mut change = connection.begin().await?;
    let due: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT device_id, due_at_ms FROM wakes \
         WHERE platform = $1 AND app = $2 AND NOT sent AND due_at_ms >= $3 AND due_at_ms <= $4 \
         ORDER BY due_at_ms LIMIT $5 FOR UPDATE SKIP LOCKED",
    )
    .bind(lane.platform as i16)
    .bind(&*lane.app)
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
    let claimed: Vec<Claim> = sqlx::query_as(
        "UPDATE wakes w SET lease = nextval('wake_leases'), due_at_ms = $2 FROM push_registrations p \
         WHERE w.device_id = ANY($1) AND p.device_id = w.device_id \
         RETURNING w.tenant_id, w.device_id, w.lease, w.attempts, w.due_since_ms, w.urgency, p.platform, \
             p.app, p.sealed_token, p.registered_at_ms, p.low_sent_at_ms",
    )
    .bind(&devices)
    .bind(bigint(lease_until.0))
    .fetch_all(&mut *change)
    .await?;
    change.commit().await?;
    claimed.into_iter().map(Claim::wakeup).collect()
}

struct Claim {
    tenant: Uuid,
    device: Uuid,
    lease: i64,
    attempts: i32,
    due_since_ms: i64,
    urgency: i16,
    platform: i16,
    app: String,
    sealed_token: Vec<u8>,
    registered_at_ms: i64,
    low_sent_at_ms: Option<i64>,
}

impl FromRow<'_, PgRow> for Claim {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant: row.try_get(0)?,
            device: row.try_get(1)?,
            lease: row.try_get(2)?,
            attempts: row.try_get(3)?,
            due_since_ms: row.try_get(4)?,
            urgency: row.try_get(5)?,
            platform: row.try_get(6)?,
            app: row.try_get(7)?,
            sealed_token: row.try_get(8)?,
            registered_at_ms: row.try_get(9)?,
            low_sent_at_ms: row.try_get(10)?,
        })
    }
}

impl Claim {
    fn wakeup(self) -> Result<ClaimedWakeup, Fault> {
        Ok(ClaimedWakeup {
            tenant: TenantId(self.tenant),
            device: DeviceId(self.device),
            lease: column::unsigned(self.lease)?,
            attempts: column::attempts(self.attempts)?,
            due_since: column::time(self.due_since_ms)?,
            urgency: column::urgency(self.urgency)?,
            platform: column::platform(self.platform)?,
            app: self.app.into(),
            sealed_token: self.sealed_token.into(),
            registered_at: column::time(self.registered_at_ms)?,
            last_low_sent_at: self.low_sent_at_ms.map(column::time).transpose()?,
        })
    }
}

pub(crate) async fn still_due(connection: &mut PgConnection, wakeup: &ClaimedWakeup) -> Result<bool, Fault> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM wakes WHERE device_id = $1 AND lease = $2 AND NOT sent) \
             AND NOT EXISTS (SELECT FROM sessions WHERE device_id = $1 AND connected)",
    )
    .bind(wakeup.device.0)
    .bind(bigint(wakeup.lease))
    .fetch_one(connection)
    .await?)
}
