//! Audit rows.

use async_trait::async_trait;
use sotto_model::{TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent, AuditLog};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;

#[async_trait]
impl AuditLog for PostgresStore {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut held = self.control.hold("record audit").await?;
        let result = within(insert(held.connection(), events)).await;
        held.settle(result)
    }

    async fn recent(&self, tenant: Option<TenantId>, limit: usize) -> Result<Vec<AuditEvent>, StoreError> {
        let mut held = self.control.hold("read audit").await?;
        let result = within(recent(held.connection(), tenant, limit)).await;
        held.settle(result)
    }
}

/// An operator's change, done: written in the transaction that makes it.
/// By an operator.
pub(crate) async fn insert_change(
    connection: &mut PgConnection,
    tenant: TenantId,
    action: AuditAction,
    resource: Uuid,
    at: UnixMillis,
) -> Result<(), Fault> {
    insert_change_by(connection, tenant, None, action, resource, at).await
}

pub(crate) async fn insert_change_by(
    connection: &mut PgConnection,
    tenant: TenantId,
    actor: Option<UserId>,
    action: AuditAction,
    resource: Uuid,
    at: UnixMillis,
) -> Result<(), Fault> {
    let event =
        AuditEvent { at, tenant: Some(tenant), actor, action, resource: Some(resource), allowed: true };
    insert(connection, &[event]).await
}

pub(crate) async fn insert(connection: &mut PgConnection, events: &[AuditEvent]) -> Result<(), Fault> {
    let at: Vec<i64> = events.iter().map(|event| bigint(event.at.0)).collect();
    let tenants: Vec<Option<Uuid>> = events.iter().map(|event| event.tenant.map(|id| id.0)).collect();
    let actors: Vec<Option<Uuid>> = events.iter().map(|event| event.actor.map(|id| id.0)).collect();
    let actions: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
    let resources: Vec<Option<Uuid>> = events.iter().map(|event| event.resource).collect();
    let allowed: Vec<bool> = events.iter().map(|event| event.allowed).collect();
    sqlx::query(
        "INSERT INTO audit (at_ms, tenant_id, actor_id, action, resource_id, allowed) \
         SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::boolean[])",
    )
    .bind(at)
    .bind(tenants)
    .bind(actors)
    .bind(actions)
    .bind(resources)
    .bind(allowed)
    .execute(connection)
    .await?;
    Ok(())
}

type AuditRow = (i64, Option<Uuid>, Option<Uuid>, String, Option<Uuid>, bool);

async fn recent(
    connection: &mut PgConnection,
    tenant: Option<TenantId>,
    limit: usize,
) -> Result<Vec<AuditEvent>, Fault> {
    const COLUMNS: &str = "SELECT at_ms, tenant_id, actor_id, action, resource_id, allowed FROM audit";
    let rows: Vec<AuditRow> = match tenant {
        Some(tenant) => {
            sqlx::query_as(&format!("{COLUMNS} WHERE tenant_id = $2 ORDER BY audit_id DESC LIMIT $1"))
                .bind(column::limit(limit))
                .bind(tenant.0)
                .fetch_all(connection)
                .await?
        }
        None => {
            sqlx::query_as(&format!("{COLUMNS} ORDER BY audit_id DESC LIMIT $1"))
                .bind(column::limit(limit))
                .fetch_all(connection)
                .await?
        }
    };
    rows.into_iter()
        .map(|(at, tenant, actor, action, resource, allowed)| {
            Ok(AuditEvent {
                at: column::time(at)?,
                tenant: tenant.map(TenantId),
                actor: actor.map(UserId),
                action: AuditAction::from_name(&action)
                    .ok_or(Fault::Inconsistent("an audit action is unknown"))?,
                resource,
                allowed,
            })
        })
        .collect()
}
