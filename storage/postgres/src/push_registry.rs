//! Where each device is to be woken.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::DirectoryError;
use sotto_storage::push_registry::{PushRegistration, PushRegistry};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::audit::insert_change_by;
use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;

#[async_trait]
impl PushRegistry for PostgresStore {
    async fn register(
        &self,
        registration: &PushRegistration,
        actor: Option<UserId>,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("register push").await?;
        let result = within(register(held.connection(), registration, actor)).await;
        held.settle(result)?
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut held = self.control.hold("unregister push").await?;
        let result = within(unregister(held.connection(), tenant, device, actor, now)).await;
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
    actor: Option<UserId>,
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
    for former in claim_token(&mut change, registration).await? {
        let at = registration.registered_at;
        insert_change_by(&mut change, registration.tenant, actor, AuditAction::PushUnregistered, former, at)
            .await?;
    }
    // A wakeup on its way to another token is on its way no longer, and one that is sent may have gone nowhere.
    sqlx::query(
        "UPDATE wakes w SET platform = $2, app = $3, sent = false, attempts = 0, lease = NULL, due_at_ms = $5 \
         FROM push_registrations p WHERE w.device_id = $1 AND p.device_id = w.device_id \
             AND (p.platform, p.app, p.lookup) <> ($2, $3, $4)",
    )
    .bind(registration.device.0)
    .bind(registration.platform as i16)
    .bind(&*registration.app)
    .bind(&registration.lookup[..])
    .bind(bigint(registration.registered_at.0))
    .execute(&mut *change)
    .await?;
    sqlx::query(
        "INSERT INTO push_registrations AS p (device_id, tenant_id, platform, app, sealed_token, lookup, registered_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (device_id) DO UPDATE SET platform = excluded.platform, app = excluded.app, \
             sealed_token = excluded.sealed_token, lookup = excluded.lookup, \
             registered_at_ms = excluded.registered_at_ms, \
             low_sent_at_ms = CASE WHEN p.lookup = excluded.lookup THEN p.low_sent_at_ms END",

    )
    .bind(registration.device.0)
    .bind(registration.tenant.0)
    .bind(registration.platform as i16)
    .bind(&*registration.app)
    .bind(&registration.sealed_token[..])
    .bind(&registration.lookup[..])
    .bind(bigint(registration.registered_at.0))
    .execute(&mut *change)
    .await?;
    insert_change_by(
        &mut change,
        registration.tenant,
        actor,
        AuditAction::PushRegistered,
        registration.device.0,
        registration.registered_at,
    )
    .await?;
    change.commit().await?;
    Ok(Ok(()))
}

/// Takes the token from whoever else of the tenant had it, and says who. Two devices that register the same token
/// at once do it one after the other; and all that is held from here on was locked in the order of the devices, each
/// registration before its wakeup.
async fn claim_token(
    connection: &mut PgConnection,
    registration: &PushRegistration,
) -> Result<Vec<Uuid>, Fault> {
    let number = registration.lookup.first_chunk().expect("32 bytes");
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(i64::from_be_bytes(*number))
        .execute(&mut *connection)
        .await?;
    let held: Vec<Uuid> = sqlx::query_scalar(
        "SELECT device_id FROM push_registrations \
         WHERE device_id IN (SELECT device_id FROM push_registrations WHERE tenant_id = $1 AND lookup = $2 \
             UNION SELECT $3) \
         ORDER BY device_id FOR UPDATE",
    )
    .bind(registration.tenant.0)
    .bind(&registration.lookup[..])
    .bind(registration.device.0)
    .fetch_all(&mut *connection)
    .await?;
    let others: Vec<Uuid> = held.into_iter().filter(|device| *device != registration.device.0).collect();
    if others.is_empty() {
        return Ok(others);
    }
    // One that has registered another token meanwhile keeps it.
    Ok(sqlx::query_scalar(
        "DELETE FROM push_registrations WHERE device_id = ANY($1) AND lookup = $2 RETURNING device_id",
    )
    .bind(others)
    .bind(&registration.lookup[..])
    .fetch_all(connection)
    .await?)
}

/// The outstanding wakeup goes by foreign key.
async fn unregister(
    connection: &mut PgConnection,
    tenant: TenantId,
    device: DeviceId,
    actor: Option<UserId>,
    now: UnixMillis,
) -> Result<(), Fault> {
    let mut change = connection.begin().await?;
    let deleted = sqlx::query("DELETE FROM push_registrations WHERE tenant_id = $1 AND device_id = $2")
        .bind(tenant.0)
        .bind(device.0)
        .execute(&mut *change)
        .await?;
    if deleted.rows_affected() > 0 {
        insert_change_by(&mut change, tenant, actor, AuditAction::PushUnregistered, device.0, now).await?;
    }
    change.commit().await?;
    Ok(())
}

type RegistrationRow = (Uuid, i16, String, Vec<u8>, Vec<u8>, i64);

async fn registrations(
    connection: &mut PgConnection,
    tenant: TenantId,
) -> Result<Vec<PushRegistration>, Fault> {
    let rows: Vec<RegistrationRow> = sqlx::query_as(
        "SELECT device_id, platform, app, sealed_token, lookup, registered_at_ms FROM push_registrations \
         WHERE tenant_id = $1 ORDER BY device_id",
    )
    .bind(tenant.0)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(device, platform, app, sealed_token, lookup, registered_at)| {
            Ok(PushRegistration {
                tenant,
                device: DeviceId(device),
                platform: column::platform(platform)?,
                app: app.into(),
                sealed_token: sealed_token.into(),
                lookup: lookup.try_into().map_err(|_| Fault::Inconsistent("lookup"))?,
                registered_at: column::time(registered_at)?,
            })
        })
        .collect()
}
