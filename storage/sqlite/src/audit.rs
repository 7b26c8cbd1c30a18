//! Audit rows, mostly written in the transaction of what they tell of.

use async_trait::async_trait;
use sotto_model::{TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent, AuditLog};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::number::{count_to_row, millis, to_row};
use crate::store::SqliteStore;

#[async_trait]
impl AuditLog for SqliteStore {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut transaction = self.writer.begin("record audit").await?;
        let mut result = Ok(());
        for event in events {
            result = insert_audit(transaction.connection(), event).await;
            if result.is_err() {
                break;
            }
        }
        transaction.finish(result).await
    }

    async fn recent(&self, tenant: Option<TenantId>, limit: usize) -> Result<Vec<AuditEvent>, StoreError> {
        const OPERATION: &str = "read audit";
        type Row = (i64, Option<Uuid>, Option<Uuid>, String, Option<Uuid>, bool);
        let rows: Vec<Row> = match tenant {
            Some(tenant) => {
                sqlx::query_as(
                    "SELECT at_ms, tenant_id, actor, action, resource, allowed FROM audit
                     WHERE tenant_id = ? ORDER BY audit_id DESC LIMIT ?",
                )
                .bind(tenant.0)
                .bind(count_to_row(limit))
                .fetch_all(&self.readers)
                .await
            }
            None => {
                sqlx::query_as(
                    "SELECT at_ms, tenant_id, actor, action, resource, allowed FROM audit
                     ORDER BY audit_id DESC LIMIT ?",
                )
                .bind(count_to_row(limit))
                .fetch_all(&self.readers)
                .await
            }
        }
        .during(OPERATION)?;
        rows.into_iter()
            .map(|(at_ms, tenant, actor, action, resource, allowed)| {
                Ok(AuditEvent {
                    at: millis(at_ms)?,
                    tenant: tenant.map(TenantId),
                    actor: actor.map(UserId),
                    action: AuditAction::from_name(&action)
                        .ok_or(StoreError::Inconsistent("audit action"))?,
                    resource,
                    allowed,
                })
            })
            .collect()
    }
}

/// A change of something of a tenant's, by an operator or by the store itself.
pub(crate) async fn insert_change(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    action: AuditAction,
    resource: Uuid,
    at: UnixMillis,
) -> Result<(), StoreError> {
    insert_change_by(connection, tenant, None, action, resource, at).await
}

pub(crate) async fn insert_change_by(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    actor: Option<UserId>,
    action: AuditAction,
    resource: Uuid,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let event =
        AuditEvent { at, tenant: Some(tenant), actor, action, resource: Some(resource), allowed: true };
    insert_audit(connection, &event).await
}

pub(crate) async fn insert_audit(
    connection: &mut SqliteConnection,
    event: &AuditEvent,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (at_ms, tenant_id, actor, action, resource, allowed) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(to_row(event.at.0))
    .bind(event.tenant.map(|tenant| tenant.0))
    .bind(event.actor.map(|actor| actor.0))
    .bind(event.action.as_str())
    .bind(event.resource)
    .bind(event.allowed)
    .execute(connection)
    .await
    .during("write audit")?;
    Ok(())
}
