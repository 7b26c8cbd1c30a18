//! Audit rows.

use async_trait::async_trait;
use sotto_model::TenantId;
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditEvent, AuditLog};

use crate::store::MemoryStore;

#[async_trait]
impl AuditLog for MemoryStore {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        self.lock().audit.extend(events);
        Ok(())
    }

    async fn recent(&self, tenant: Option<TenantId>, limit: usize) -> Result<Vec<AuditEvent>, StoreError> {
        let state = self.lock();
        let asked = state.audit.iter().rev().filter(|event| tenant.is_none() || event.tenant == tenant);
        Ok(asked.take(limit).copied().collect())
    }
}
