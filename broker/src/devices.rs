//! Device ids by user and device name: asked of the store once, made where there is none.

use std::sync::Arc;

use dashmap::DashMap;
use sotto_model::{DeviceId, TenantId, UnixMillis, UserId};
use sotto_storage::Store;
use sotto_storage::directory::{Device, DirectoryError};

type Key = (TenantId, UserId, Box<str>);

/// As many entries as the directory holds devices: `DEVICES_PER_USER_MAX` a user.
pub(crate) struct Devices {
    store: Arc<dyn Store>,
    ids: DashMap<Key, DeviceId>,
}

impl Devices {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, ids: DashMap::new() }
    }

    pub(crate) fn replace(&self, devices: &[Device]) {
        self.ids.retain(|_, id| devices.iter().any(|device| device.id == *id));
        for device in devices {
            self.ids.insert((device.tenant, device.user, device.name.as_str().into()), device.id);
        }
    }

    pub(crate) fn forget(&self, tenant: TenantId, user: UserId, name: &str) {
        self.ids.remove(&(tenant, user, name.into()));
    }

    pub(crate) async fn ensure(
        &self,
        tenant: TenantId,
        user: UserId,
        name: &str,
        now: UnixMillis,
    ) -> Result<DeviceId, DirectoryError> {
        let key: Key = (tenant, user, name.into());
        if let Some(id) = self.ids.get(&key) {
            return Ok(*id);
        }
        let id = self.store.ensure_device(tenant, user, name, now).await?;
        self.ids.insert(key, id);
        Ok(id)
    }
}
