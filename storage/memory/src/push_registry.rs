//! Push registrations, one a device.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::directory::DirectoryError;
use sotto_storage::push_registry::{PushRegistration, PushRegistry};

use crate::store::MemoryStore;

#[async_trait]
impl PushRegistry for MemoryStore {
    async fn register(&self, registration: &PushRegistration) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        let key = (registration.tenant, registration.device);
        if !state.tenants.contains_key(&registration.tenant) {
            return Err(DirectoryError::Missing("tenant"));
        }
        if !state.devices.contains_key(&key) {
            return Err(DirectoryError::Missing("device"));
        }
        state.registrations.insert(key, registration.clone());
        let action = AuditAction::PushRegistered;
        state.audit.push(event(registration.tenant, registration.device, action, registration.registered_at));
        Ok(())
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.registrations.remove(&(tenant, device)).is_some() {
            state.wakes.remove(&(tenant, device));
            state.audit.push(event(tenant, device, AuditAction::PushUnregistered, now));
        }
        Ok(())
    }

    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError> {
        let state = self.lock();
        let of_tenant = state.registrations.values().filter(|registration| registration.tenant == tenant);
        Ok(of_tenant.cloned().collect())
    }
}

fn event(tenant: TenantId, device: DeviceId, action: AuditAction, at: UnixMillis) -> AuditEvent {
    AuditEvent { at, tenant: Some(tenant), actor: None, action, resource: Some(device.0), allowed: true }
}
