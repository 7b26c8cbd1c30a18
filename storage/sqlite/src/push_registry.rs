//! Push registrations, one a device.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::DirectoryError;
use sotto_storage::push_registry::{PushRegistration, PushRegistry};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::audit::insert_change_by;
use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::{millis, platform, to_row};
use crate::store::SqliteStore;
use crate::tenants::TenantNumbers;

#[async_trait]
impl PushRegistry for SqliteStore {
    async fn register(
        &self,
        registration: &PushRegistration,
        actor: Option<UserId>,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("register push").await?;
        let result = register(transaction.connection(), &self.tenants, registration, actor).await;
        transaction.finish(result).await
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin("unregister push").await?;
        let result = unregister(transaction.connection(), &self.tenants, tenant, device, actor, now).await;
        transaction.finish(result).await
    }

    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError> {
        let rows: Vec<(Uuid, i64, String, Vec<u8>, Vec<u8>, i64)> = sqlx::query_as(
            "SELECT device_id, platform, app, sealed_token, lookup, registered_at_ms
             FROM push_registrations JOIN tenants USING (tenant_no)
             WHERE tenants.tenant_id = ? ORDER BY device_id",
        )
        .bind(tenant.0)
        .fetch_all(&self.readers)
        .await
        .during("read registrations")?;
        rows.into_iter()
            .map(|(device, of, app, sealed_token, lookup, registered_at)| {
                Ok(PushRegistration {
                    tenant,
                    device: DeviceId(device),
                    platform: platform(of)?,
                    app: app.into(),
                    sealed_token: sealed_token.into(),
                    lookup: lookup.try_into().map_err(|_| StoreError::Inconsistent("lookup"))?,
                    registered_at: millis(registered_at)?,
                })
            })
            .collect()
    }
}

async fn register(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    registration: &PushRegistration,
    actor: Option<UserId>,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "register push";
    let tenant =
        tenants.number(connection, registration.tenant).await?.ok_or(DirectoryError::Missing("tenant"))?;
    let device: Option<(i64,)> =
        sqlx::query_as("SELECT 1 FROM devices WHERE tenant_no = ? AND device_id = ?")
            .bind(tenant.to_row())
            .bind(registration.device.0)
            .fetch_optional(&mut *connection)
            .await
            .during(OPERATION)?;
    if device.is_none() {
        return Err(DirectoryError::Missing("device"));
    }
    claim_token(connection, tenant, registration, actor).await?;
    move_wakeup(connection, tenant, registration).await?;
    // Not REPLACE, which deletes the row first and the outstanding wakeup with it.
    sqlx::query(
        "INSERT INTO push_registrations (tenant_no, device_id, platform, app, sealed_token, lookup,
                                         registered_at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET platform = excluded.platform, app = excluded.app,
             sealed_token = excluded.sealed_token, lookup = excluded.lookup,
             registered_at_ms = excluded.registered_at_ms,
             low_sent_at_ms = CASE WHEN lookup = excluded.lookup THEN low_sent_at_ms END",
    )
    .bind(tenant.to_row())
    .bind(registration.device.0)
    .bind(registration.platform as u8)
    .bind(&*registration.app)
    .bind(registration.sealed_token.as_ref())
    .bind(registration.lookup.as_slice())
    .bind(to_row(registration.registered_at.0))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let (device, at) = (registration.device.0, registration.registered_at);
    insert_change_by(connection, registration.tenant, actor, AuditAction::PushRegistered, device, at).await?;
    Ok(())
}

/// Takes the token from whoever else of the tenant had it.
async fn claim_token(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    registration: &PushRegistration,
    actor: Option<UserId>,
) -> Result<(), StoreError> {
    let formers: Vec<Uuid> = sqlx::query_scalar(
        "DELETE FROM push_registrations WHERE tenant_no = ? AND lookup = ? AND device_id <> ?
         RETURNING device_id",
    )
    .bind(tenant.to_row())
    .bind(registration.lookup.as_slice())
    .bind(registration.device.0)
    .fetch_all(&mut *connection)
    .await
    .during("claim push token")?;
    for former in formers {
        let (action, at) = (AuditAction::PushUnregistered, registration.registered_at);
        insert_change_by(connection, registration.tenant, actor, action, former, at).await?;
    }
    Ok(())
}

/// A wakeup on its way to another token is on its way no longer, and one that is sent may have gone nowhere.
async fn move_wakeup(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    registration: &PushRegistration,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE wakes SET platform = ?3, app = ?4, sent = 0, attempts = 0, lease = 0, next_attempt_at_ms = ?6
         WHERE tenant_no = ?1 AND device_id = ?2 AND EXISTS (
             SELECT 1 FROM push_registrations AS before
             WHERE before.tenant_no = ?1 AND before.device_id = ?2
               AND (before.platform, before.app, before.lookup) <> (?3, ?4, ?5))",
    )
    .bind(tenant.to_row())
    .bind(registration.device.0)
    .bind(registration.platform as u8)
    .bind(&*registration.app)
    .bind(registration.lookup.as_slice())
    .bind(to_row(registration.registered_at.0))
    .execute(connection)
    .await
    .during("move wakeup to another token")?;
    Ok(())
}

async fn unregister(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    device: DeviceId,
    actor: Option<UserId>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Some(tenant_no) = tenants.number(connection, tenant).await? else { return Ok(()) };
    // The wakeup goes with it, by its foreign key.
    let deleted = sqlx::query("DELETE FROM push_registrations WHERE tenant_no = ? AND device_id = ?")
        .bind(tenant_no.to_row())
        .bind(device.0)
        .execute(&mut *connection)
        .await
        .during("unregister push")?;
    if deleted.rows_affected() == 0 {
        return Ok(());
    }
    insert_change_by(connection, tenant, actor, AuditAction::PushUnregistered, device.0, now).await
}
