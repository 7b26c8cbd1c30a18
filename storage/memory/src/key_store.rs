//! Wrapped keys. The first writer wins, so what is returned is what stands.

use async_trait::async_trait;
use bytes::Bytes;
use sotto_keyring::{Epoch, KeyId, KeyScope, KeyStore, KeyStoreError, WrappedDataKey, WrappedEpochKey};
use sotto_model::TenantId;

use crate::store::MemoryStore;

#[async_trait]
impl KeyStore for MemoryStore {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        Ok(self.lock().epoch_keys.get(&(tenant, epoch)).cloned())
    }

    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let state = self.lock();
        let of_tenant = state.epoch_keys.range((tenant, Epoch(0))..=(tenant, Epoch(u32::MAX)));
        Ok(of_tenant.last().map(|(_, key)| key.clone()))
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        Ok(self.lock().epoch_keys.entry((key.tenant, key.epoch)).or_insert(key).clone())
    }

    async fn rewrap_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        from: &[u8],
        to: Bytes,
    ) -> Result<bool, KeyStoreError> {
        let mut state = self.lock();
        let key = state.epoch_keys.get_mut(&(tenant, epoch)).filter(|key| key.wrapped == from);
        Ok(key.map(|key| key.wrapped = to).is_some())
    }

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        Ok(self.lock().data_keys.get(&id).cloned())
    }

    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let state = self.lock();
        let of_scope = state.data_keys.values().filter(|key| key.tenant == tenant && key.scope == scope);
        Ok(of_scope.max_by_key(|key| key.epoch).cloned())
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        let mut state = self.lock();
        let is_same = |standing: &&WrappedDataKey| {
            (standing.tenant, standing.scope, standing.epoch) == (key.tenant, key.scope, key.epoch)
        };
        if let Some(standing) = state.data_keys.values().find(is_same) {
            return Ok(standing.clone());
        }
        state.data_keys.insert(key.id, key.clone());
        Ok(key)
    }
}
