//! Wakeups that were given up.

use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::outbox::{DeadLetter, DeadLetterSelector, Replayed};
use sotto_storage::wakeup_quota::WakeupQuota;
use sqlx::{SqliteConnection, SqlitePool};
use uuid::Uuid;

use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::{count_to_row, millis, narrow, platform, to_row, urgency};
use crate::wakes::{Wanted, asleep, make_due};

type LetterRow = (Uuid, Uuid, i64, String, i64, i64, String, i64);

pub(crate) async fn latest(readers: &SqlitePool, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
    let rows: Vec<LetterRow> = sqlx::query_as(
        "SELECT tenants.tenant_id, letter.device_id, letter.platform, letter.app, letter.urgency,
                letter.attempts, letter.outcome, letter.died_at_ms
         FROM dead_letters AS letter JOIN tenants USING (tenant_no)
         ORDER BY letter.dead_letter_id DESC LIMIT ?",
    )
    .bind(count_to_row(limit))
    .fetch_all(readers)
    .await
    .during("read dead letters")?;
    rows.into_iter()
        .map(|(tenant, device, of, app, how, attempts, outcome, died_at)| {
            Ok(DeadLetter {
                tenant: TenantId(tenant),
                device: DeviceId(device),
                platform: platform(of)?,
                app: app.into(),
                urgency: urgency(how)?,
                attempts: narrow(attempts, "attempts")?,
                outcome,
                died_at: millis(died_at)?,
            })
        })
        .collect()
}

pub(crate) async fn replay(
    connection: &mut SqliteConnection,
    selector: DeadLetterSelector,
    limit: usize,
    quota: WakeupQuota,
    now: UnixMillis,
) -> Result<Replayed, StoreError> {
    const OPERATION: &str = "replay dead letters";
    let (tenant, device) = match selector {
        DeadLetterSelector::All => (None, None),
        DeadLetterSelector::Tenant(tenant) => (Some(tenant.0), None),
        DeadLetterSelector::Device(tenant, device) => (Some(tenant.0), Some(device.0)),
    };
    let letters: Vec<(i64, i64, Uuid, i64)> = sqlx::query_as(
        "DELETE FROM dead_letters WHERE dead_letter_id IN (
             SELECT dead_letter_id FROM dead_letters
             WHERE (?1 IS NULL OR tenant_no = (SELECT tenant_no FROM tenants WHERE tenant_id = ?1))
               AND (?2 IS NULL OR device_id = ?2)
             ORDER BY dead_letter_id LIMIT ?3)
         RETURNING dead_letter_id, tenant_no, device_id, urgency",
    )
    .bind(tenant)
    .bind(device)
    .bind(count_to_row(limit))
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for (_, tenant, device, how) in &letters {
        let (tenant, device, urgency) = (TenantNo::from_row(*tenant)?, DeviceId(*device), urgency(*how)?);
        match wanted.iter_mut().find(|known| (known.tenant, known.device) == (tenant, device)) {
            Some(known) => known.urgency = known.urgency.max(urgency),
            None => wanted.push(Wanted { tenant, device, urgency, due_since: now }),
        }
    }
    let mut replayed = Replayed::default();
    for wanted in wanted {
        let (is_to_be_woken,): (bool,) = sqlx::query_as(concat!(
            "SELECT ",
            asleep!(),
            " AND NOT EXISTS (SELECT 1 FROM wakes AS outstanding
                 WHERE (outstanding.tenant_no, outstanding.device_id) = (wakes.tenant_no, wakes.device_id))
             FROM (SELECT ?2 AS tenant_no, ?3 AS device_id) AS wakes"
        ))
        .bind(to_row(now.0))
        .bind(wanted.tenant.to_row())
        .bind(wanted.device.0)
        .fetch_one(&mut *connection)
        .await
        .during(OPERATION)?;
        if is_to_be_woken && make_due(connection, &wanted, quota, now).await? {
            replayed.due += 1;
        }
    }
    replayed.gone = letters.len() as u64 - replayed.due;
    Ok(replayed)
}

pub(crate) async fn purge(
    connection: &mut SqliteConnection,
    before: UnixMillis,
    limit: usize,
) -> Result<u64, StoreError> {
    let purged = sqlx::query(
        "DELETE FROM dead_letters WHERE dead_letter_id IN (
             SELECT dead_letter_id FROM dead_letters WHERE died_at_ms < ? ORDER BY died_at_ms LIMIT ?)",
    )
    .bind(to_row(before.0))
    .bind(count_to_row(limit))
    .execute(connection)
    .await
    .during("purge dead letters")?;
    Ok(purged.rows_affected())
}
