//! Leases on wakeups that are due.

use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::outbox::ClaimedWakeup;
use sotto_storage::push_registry::Lane;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use uuid::Uuid;

use crate::error::During;
use crate::number::{count_to_row, from_row, millis, narrow, platform, to_row, urgency};
use crate::wakes::asleep;

pub(crate) async fn claim(
    connection: &mut SqliteConnection,
    lane: &Lane,
    limit: usize,
    now: UnixMillis,
    lease_until: UnixMillis,
) -> Result<Vec<ClaimedWakeup>, StoreError> {
    const OPERATION: &str = "claim";
    sqlx::query(concat!(
        "DELETE FROM wakes WHERE (tenant_no, device_id) IN (
             SELECT tenant_no, device_id FROM wakes
             WHERE platform = ?2 AND app = ?3 AND sent = 0 AND next_attempt_at_ms <= ?1
             ORDER BY next_attempt_at_ms LIMIT ?4)
         AND NOT ",
        asleep!()
    ))
    .bind(to_row(now.0))
    .bind(lane.platform as u8)
    .bind(&*lane.app)
    .bind(count_to_row(limit))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let (lease,): (i64,) = sqlx::query_as("UPDATE wake_lease SET lease = lease + 1 RETURNING lease")
        .fetch_one(&mut *connection)
        .await
        .during(OPERATION)?;
    sqlx::query(concat!(
        "UPDATE wakes SET lease = ?5, next_attempt_at_ms = ?6
         WHERE (tenant_no, device_id) IN (
             SELECT tenant_no, device_id FROM wakes
             WHERE platform = ?2 AND app = ?3 AND sent = 0 AND next_attempt_at_ms <= ?1 AND ",
        asleep!(),
        "    ORDER BY next_attempt_at_ms LIMIT ?4)"
    ))
    .bind(to_row(now.0))
    .bind(lane.platform as u8)
    .bind(&*lane.app)
    .bind(count_to_row(limit))
    .bind(lease)
    .bind(to_row(lease_until.0))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    // The longest due first.
    let claimed: Vec<Claim> = sqlx::query_as(
        "SELECT tenants.tenant_id, wakes.device_id, wakes.lease, wakes.attempts, wakes.due_since_at_ms,
                wakes.urgency, registration.platform, registration.app, registration.sealed_token,
                registration.registered_at_ms, registration.low_sent_at_ms
         FROM wakes CROSS JOIN tenants USING (tenant_no) CROSS JOIN push_registrations AS registration
              ON (registration.tenant_no, registration.device_id) = (wakes.tenant_no, wakes.device_id)
         WHERE wakes.platform = ?1 AND wakes.app = ?2 AND wakes.sent = 0 AND wakes.next_attempt_at_ms = ?3
           AND wakes.lease = ?4
         ORDER BY wakes.due_since_at_ms",
    )
    .bind(lane.platform as u8)
    .bind(&*lane.app)
    .bind(to_row(lease_until.0))
    .bind(lease)
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    claimed.into_iter().map(Claim::wakeup).collect()
}

struct Claim {
    tenant: Uuid,
    device: Uuid,
    lease: i64,
    attempts: i64,
    due_since_at_ms: i64,
    urgency: i64,
    platform: i64,
    app: String,
    sealed_token: Vec<u8>,
    registered_at_ms: i64,
    low_sent_at_ms: Option<i64>,
}

impl FromRow<'_, SqliteRow> for Claim {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant: row.try_get(0)?,
            device: row.try_get(1)?,
            lease: row.try_get(2)?,
            attempts: row.try_get(3)?,
            due_since_at_ms: row.try_get(4)?,
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
    fn wakeup(self) -> Result<ClaimedWakeup, StoreError> {
        Ok(ClaimedWakeup {
            tenant: TenantId(self.tenant),
            device: DeviceId(self.device),
            lease: from_row(self.lease, "lease")?,
            attempts: narrow(self.attempts, "attempts")?,
            due_since: millis(self.due_since_at_ms)?,
            urgency: urgency(self.urgency)?,
            platform: platform(self.platform)?,
            app: self.app.into(),
            sealed_token: self.sealed_token.into(),
            registered_at: millis(self.registered_at_ms)?,
            last_low_sent_at: self.low_sent_at_ms.map(millis).transpose()?,
        })
    }
}
