//! Push registrations, one a device.

use async_trait::async_trait;
use sotto_model::{DeviceId, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::directory::DirectoryError;
use sotto_storage::push_registry::{PushRegistration, PushRegistry};

use crate::state::RegistrationRow;
use crate::store::MemoryStore;

#[async_trait]
impl PushRegistry for MemoryStore {
    async fn register(
        &self,
        registration: &PushRegistration,
        actor: Option<UserId>,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        let key = (registration.tenant, registration.device);
        if !state.tenants.contains_key(&registration.tenant) {
            return Err(DirectoryError::Missing("tenant"));
        }
        if !state.devices.contains_key(&key) {
            return Err(DirectoryError::Missing("device"));
        }
        let has_token = |row: &RegistrationRow| {
            (row.registration.tenant, row.registration.lookup) == (registration.tenant, registration.lookup)
        };
        let others = state.registrations.iter().filter(|(other, row)| **other != key && has_token(row));
        let formers: Vec<_> = others.map(|(former, _)| *former).collect();
        for former in formers {
            state.registrations.remove(&former);
            state.wakes.remove(&former);
            let (action, at) = (AuditAction::PushUnregistered, registration.registered_at);
            state.audit.push(event(former.0, former.1, actor, action, at));
        }
        let before = state.registrations.get(&key);
        let is_known = before.is_some_and(has_token);
        let low_sent_at = before.filter(|_| is_known).and_then(|row| row.low_sent_at);
        let is_same_lane = before.is_some_and(|row| row.registration.lane() == registration.lane());
        if let Some(wake) = state.wakes.get_mut(&key).filter(|_| !is_known || !is_same_lane) {
            (wake.sent, wake.attempts, wake.lease) = (false, 0, 0);
            wake.next_attempt = registration.registered_at;
        }
        let row = RegistrationRow { registration: registration.clone(), low_sent_at };
        state.registrations.insert(key, row);
        let action = AuditAction::PushRegistered;
        let at = registration.registered_at;
        state.audit.push(event(registration.tenant, registration.device, actor, action, at));
        Ok(())
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.registrations.remove(&(tenant, device)).is_some() {
            state.wakes.remove(&(tenant, device));
            state.audit.push(event(tenant, device, actor, AuditAction::PushUnregistered, now));
        }
        Ok(())
    }

    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError> {
        let state = self.lock();
        let all = state.registrations.values().map(|row| &row.registration);
        let of_tenant = all.filter(|registration| registration.tenant == tenant);
        Ok(of_tenant.cloned().collect())
    }
}

fn event(
    tenant: TenantId,
    device: DeviceId,
    actor: Option<UserId>,
    action: AuditAction,
    at: UnixMillis,
) -> AuditEvent {
    AuditEvent { at, tenant: Some(tenant), actor, action, resource: Some(device.0), allowed: true }
}
