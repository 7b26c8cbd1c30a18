//! How long the log keeps what it holds.

use async_trait::async_trait;
use sotto_model::{Offset, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::DirectoryError;
use sotto_storage::message_log::StoredMessage;
use sotto_storage::retention::{
    Allowance, Retention, RetentionLimits, RetentionPolicy, TenantRetention, Trimmed,
};

use crate::directory::changed;
use crate::state::State;
use crate::store::MemoryStore;

#[async_trait]
impl Retention for MemoryStore {
    async fn retention(&self) -> Result<Vec<TenantRetention>, StoreError> {
        Ok(self.lock().tenants.values().map(|row| row.retention).collect())
    }

    async fn set_retention(
        &self,
        tenant: TenantId,
        limits: RetentionLimits,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        let row = state.tenants.get_mut(&tenant).ok_or(DirectoryError::Missing("tenant"))?;
        row.retention.limits = limits;
        changed(&mut state, tenant, AuditAction::RetentionChanged, tenant.0, now);
        Ok(())
    }

    async fn set_legal_hold(
        &self,
        tenant: TenantId,
        legal_hold: bool,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        let row = state.tenants.get_mut(&tenant).ok_or(DirectoryError::Missing("tenant"))?;
        row.retention.legal_hold = legal_hold;
        let action = if legal_hold { AuditAction::LegalHoldSet } else { AuditAction::LegalHoldLifted };
        changed(&mut state, tenant, action, tenant.0, now);
        Ok(())
    }

    async fn trim(
        &self,
        policy: &RetentionPolicy,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Trimmed, StoreError> {
        let mut state = self.lock();
        let tenants: Vec<TenantRetention> = state.tenants.values().map(|row| row.retention).collect();
        for retention in tenants {
            let Some(allowance) = retention.allowance(policy, now) else { continue };
            let gone = surplus(&state, retention.tenant, &allowance, limit);
            let Some(&start) = gone.last() else { continue };
            for &offset in &gone {
                state.messages.remove(&(retention.tenant, offset));
            }
            let row = state.tenants.get_mut(&retention.tenant).expect("listed above");
            row.retention.start = start;
            return Ok(Trimmed { messages: gone.len() as u64, weeks: 0, goes_on: true });
        }
        Ok(Trimmed::default())
    }
}

/// The first of a tenant's messages, as far as they may go.
fn surplus(state: &State, tenant: TenantId, allowance: &Allowance, limit: usize) -> Vec<Offset> {
    let held = || {
        let all = state.messages.range((tenant, Offset(0))..=(tenant, Offset(u64::MAX)));
        all.map(|(_, row)| &row.message)
    };
    let bytes = |message: &StoredMessage| message.sealed.len() as u64;
    let mut left: u64 = held().map(bytes).sum();
    held()
        .take_while(|message| {
            let too_old = allowance.too_old_before.is_some_and(|before| message.committed_at < before);
            left -= bytes(message);
            let too_much = allowance.bytes_max.is_some_and(|bytes_max| left >= bytes_max);
            too_old || (too_much && message.committed_at < allowance.young_from)
        })
        .map(|message| message.offset)
        .take(limit)
        .collect()
}
