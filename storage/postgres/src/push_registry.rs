//! Where each device is to be woken.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::DirectoryError;
use sotto_storage::push_registry::{Platform, PushRegistration, PushRegistry};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::audit::insert_change;
use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;

#[async_trait]
impl PushRegistry for PostgresStore {
    async fn register(&self, registration: &PushRegistration) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("register push").await?;
        let result = within(register(held.connection(), registration)).await;
        held.settle(result)?
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut held = self.control.hold("unregister push").await?;
        let result = within(unregister(held.connection(), tenant, device, now)).await;
        held.settle(result)
    }

    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError> {
        let mut held = self.control.hold("read push registrations").await?;
        let result = within(registrations(held.connection(), tenant)).await;
        held.settle(result)
    }
}

async fn register(
    connection: &mut PgConnection,
    registration: &PushRegistration,
) -> Result<Result<(), DirectoryError>, Fault> {
    let mut change = connection.begin().await?;
    // The share lock keeps the device until the registration is committed.
    let device = sqlx::query("SELECT FROM devices WHERE tenant_id = $1 AND device_id = $2 FOR KEY SHARE")
        .bind(registration.tenant.0)
        .bind(registration.device.0)
        .fetch_optional(&mut *change)
        .await?;
    if device.is_none() {
        return Ok(Err(DirectoryError::Missing("device")));
    }
    sqlx::query(
        "INSERT INTO push_registrations (device_id, tenant_id, platform, sealed_token, lookup, registered_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (device_id) DO UPDATE SET platform = excluded.platform, \
             sealed_token = excluded.sealed_token, lookup = excluded.lookup, \
             registered_at_ms = excluded.registered_at_ms",
    )
    .bind(registration.device.0)
    .bind(registration.tenant.0)
    .bind(registration.platform as i16)
    .bind(&registration.sealed_token[..])
    .bind(&registration.lookup[..])
    .bind(bigint(registration.registered_at.0))
    .execute(&mut *change)
    .await?;
    insert_change(
        &mut change,
        registration.tenant,
        AuditAction::PushRegistered,
        registration.device.0,
        registration.registered_at,
    )
    .await?;
    change.commit().await?;
    Ok(Ok(()))
}

/// The outstanding wakeup goes by foreign key.
async fn unregister(
    connection: &mut PgConnection,
    tenant: TenantId,
    device: DeviceId,
    now: UnixMillis,
) -> Result<(), Fault> {
    let mut change = connection.begin().await?;
    let deleted = sqlx::query("DELETE FROM push_registrations WHERE tenant_id = $1 AND device_id = $2")
        .bind(tenant.0)
        .bind(device.0)
        .execute(&mut *change)
        .await?;
    if deleted.rows_affected() > 0 {
        insert_change(&mut change, tenant, AuditAction::PushUnregistered, device.0, now).await?;
    }
    change.commit().await?;
    Ok(())
}

type RegistrationRow = (Uuid, i16, Vec<u8>, Vec<u8>, i64);

async fn registrations(
    connection: &mut PgConnection,
    tenant: TenantId,
) -> Result<Vec<PushRegistration>, Fault> {
    let rows: Vec<RegistrationRow> = sqlx::query_as(
        "SELECT device_id, platform, sealed_token, lookup, registered_at_ms FROM push_registrations \
         WHERE tenant_id = $1 ORDER BY device_id",
    )
    .bind(tenant.0)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(device, code, sealed_token, lookup, registered_at)| {
            Ok(PushRegistration {
                tenant,
                device: DeviceId(device),
                platform: platform(code)?,
                sealed_token: sealed_token.into(),
                lookup: lookup.try_into().map_err(|_| Fault::Inconsistent("lookup"))?,
                registered_at: column::time(registered_at)?,
            })
        })
        .collect()
}

pub(crate) fn platform(code: i16) -> Result<Platform, Fault> {
    u8::try_from(code).ok().and_then(Platform::from_code).ok_or(Fault::Inconsistent("platform"))
}
