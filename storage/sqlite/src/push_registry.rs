//! Push registrations, one a device.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::directory::DirectoryError;
use sotto_storage::push_registry::{Platform, PushRegistration, PushRegistry};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::audit::insert_audit;
use crate::error::During;
use crate::number::{millis, narrow, to_row};
use crate::store::SqliteStore;
use crate::tenants::TenantNumbers;

#[async_trait]
impl PushRegistry for SqliteStore {
    async fn register(&self, registration: &PushRegistration) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("register push").await?;
        let result = register(transaction.connection(), &self.tenants, registration).await;
        transaction.finish(result).await
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin("unregister push").await?;
        let result = unregister(transaction.connection(), &self.tenants, tenant, device, now).await;
        transaction.finish(result).await
    }

    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError> {
        let rows: Vec<(Uuid, i64, Vec<u8>, Vec<u8>, i64)> = sqlx::query_as(
            "SELECT device_id, platform, sealed_token, lookup, registered_at_ms
             FROM push_registrations JOIN tenants USING (tenant_no)
             WHERE tenants.tenant_id = ? ORDER BY device_id",
        )
        .bind(tenant.0)
        .fetch_all(&self.readers)
        .await
        .during("read registrations")?;
        rows.into_iter()
            .map(|(device, platform, sealed_token, lookup, registered_at)| {
                Ok(PushRegistration {
                    tenant,
                    device: DeviceId(device),
                    platform: Platform::from_code(narrow(platform, "platform")?)
                        .ok_or(StoreError::Inconsistent("platform"))?,
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
    // Not REPLACE, which deletes the row first and the outstanding wakeup with it.
    sqlx::query(
        "INSERT INTO push_registrations (tenant_no, device_id, platform, sealed_token, lookup,
                                         registered_at_ms)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET platform = excluded.platform, sealed_token = excluded.sealed_token,
             lookup = excluded.lookup, registered_at_ms = excluded.registered_at_ms",
    )
    .bind(tenant.to_row())
    .bind(registration.device.0)
    .bind(registration.platform as u8)
    .bind(registration.sealed_token.as_ref())
    .bind(registration.lookup.as_slice())
    .bind(to_row(registration.registered_at.0))
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let event = AuditEvent {
        at: registration.registered_at,
        tenant: Some(registration.tenant),
        actor: None,
        action: AuditAction::PushRegistered,
        resource: Some(registration.device.0),
        allowed: true,
    };
    Ok(insert_audit(connection, &event).await?)
}

async fn unregister(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    device: DeviceId,
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
    let event = AuditEvent {
        at: now,
        tenant: Some(tenant),
        actor: None,
        action: AuditAction::PushUnregistered,
        resource: Some(device.0),
        allowed: true,
    };
    insert_audit(connection, &event).await
}
