//! A new epoch, and old epochs wrapped anew.

use std::time::Instant;

use sotto_model::TenantId;

use crate::key_request::KeyUnavailable;
use crate::key_scope::Epoch;
use crate::keyring::Keyring;
use crate::warming::context;

impl Keyring {
    /// Begins a new epoch: from then on this node seals under new keys, and others do once they ask the
    /// store again. What was sealed before still opens.
    pub async fn rotate(&self, tenant: TenantId, now: Instant) -> Result<Epoch, KeyUnavailable> {
        let next = match self.inner.store.current_epoch_key(tenant).await? {
            Some(row) => row.epoch.next().ok_or(KeyUnavailable::Inconsistent)?,
            None => Epoch::FIRST,
        };
        let key = self.inner.make_epoch_key(tenant, next, now).await?;
        self.inner.cache.write().forget_current(tenant);
        Ok(key.epoch)
    }

    /// Has the key service wrap every epoch key of a tenant anew, under its latest material. May be
    /// repeated after a crash: a row is replaced at once or not at all.
    pub async fn rewrap(&self, tenant: TenantId) -> Result<u32, KeyUnavailable> {
        let Some(latest) = self.inner.store.current_epoch_key(tenant).await? else { return Ok(0) };
        let mut rewrapped = 0;
        for epoch in (Epoch::FIRST.0..=latest.epoch.0).map(Epoch) {
            let row = self.inner.store.epoch_key(tenant, epoch).await?.ok_or(KeyUnavailable::Missing)?;
            let anew = self.inner.kms.re_encrypt(&context(tenant, epoch), &row.wrapped).await?;
            // False where another node rewrapped it in between: as good.
            rewrapped +=
                u32::from(self.inner.store.rewrap_epoch_key(tenant, epoch, &row.wrapped, anew).await?);
        }
        Ok(rewrapped)
    }
}
