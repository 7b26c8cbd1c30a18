//! How claimed wakeups end.

use sotto_model::{UnixMillis, Urgency};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::outbox::{ClaimedWakeup, Settlement};
use sqlx::SqliteConnection;

use crate::audit::insert_change;
use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::to_row;
use crate::tenants::TenantNumbers;
use crate::wakes::forget_wake;

const OPERATION: &str = "settle";

pub(crate) async fn settle_many(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    settlements: &[(ClaimedWakeup, Settlement)],
    now: UnixMillis,
) -> Result<(), StoreError> {
    for (wakeup, settlement) in settlements {
        if let Some(tenant) = tenants.number(connection, wakeup.tenant).await? {
            settle(connection, tenant, wakeup, *settlement, now).await?;
        }
    }
    Ok(())
}

async fn settle(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    settlement: Settlement,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (sent, failed, next_attempt) = match settlement {
        Settlement::Sent { at } => (true, 0, at),
        Settlement::RetryAt(at) => (false, 1, at),
        Settlement::Wait(at) => (false, 0, at),
        // Registered anew in the meantime: the new token has not been tried.
        Settlement::TokenInvalid { .. } => (false, 0, now),
        Settlement::Dead { .. } => (false, 1, now),
    };
    // 0 is no claim's number, so every settlement ends the lease.
    let settled = sqlx::query(
        "UPDATE wakes SET sent = ?, attempts = attempts + ?, next_attempt_at_ms = ?, lease = 0
         WHERE tenant_no = ? AND device_id = ? AND lease = ?",
    )
    .bind(sent)
    .bind(failed)
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
        Settlement::Sent { at } if wakeup.urgency == Urgency::Low => {
            note_low(connection, tenant, wakeup, at).await
        }
        Settlement::Sent { .. } | Settlement::RetryAt(_) | Settlement::Wait(_) => Ok(()),
        Settlement::TokenInvalid { since, retry_at } => {
            forget_token(connection, tenant, wakeup, since, retry_at, now).await
        }
        Settlement::Dead { outcome } => bury(connection, tenant, wakeup, outcome, now).await,
    }
}

async fn note_low(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    at: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE push_registrations SET low_sent_at_ms = ? WHERE tenant_no = ? AND device_id = ?")
        .bind(to_row(at.0))
        .bind(tenant.to_row())
        .bind(wakeup.device.0)
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(())
}

/// The registration that the push service has refused goes, and the wakeup with it; unless it is another than the
/// one claimed, or younger than what the service speaks of.
async fn forget_token(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    since: Option<UnixMillis>,
    retry_at: UnixMillis,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let registered_at: Option<i64> = sqlx::query_scalar(
        "SELECT registered_at_ms FROM push_registrations WHERE tenant_no = ? AND device_id = ?",
    )
    .bind(tenant.to_row())
    .bind(wakeup.device.0)
    .fetch_optional(&mut *connection)
    .await
    .during(OPERATION)?;
    if registered_at != Some(to_row(wakeup.registered_at.0)) {
        return Ok(());
    }
    if since.is_some_and(|since| wakeup.registered_at >= since) {
        sqlx::query(
            "UPDATE wakes SET attempts = attempts + 1, next_attempt_at_ms = ?
             WHERE tenant_no = ? AND device_id = ?",
        )
        .bind(to_row(retry_at.0))
        .bind(tenant.to_row())
        .bind(wakeup.device.0)
        .execute(connection)
        .await
        .during(OPERATION)?;
        return Ok(());
    }
    sqlx::query("DELETE FROM push_registrations WHERE tenant_no = ? AND device_id = ?")
        .bind(tenant.to_row())
        .bind(wakeup.device.0)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    insert_change(connection, wakeup.tenant, AuditAction::PushUnregistered, wakeup.device.0, now).await
}

async fn bury(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    wakeup: &ClaimedWakeup,
    outcome: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO dead_letters (tenant_no, device_id, platform, app, urgency, attempts, outcome, died_at_ms)
         SELECT tenant_no, device_id, platform, app, urgency, attempts, ?, ?
         FROM wakes WHERE tenant_no = ? AND device_id = ?",
    )
    .bind(outcome)
    .bind(to_row(now.0))
    .bind(tenant.to_row())
    .bind(wakeup.device.0)
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    forget_wake(connection, tenant, wakeup.device).await
}
