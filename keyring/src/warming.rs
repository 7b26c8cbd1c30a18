//! Fetching keys: from the store, unwrapped by the key service where their epoch is cold.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use parking_lot::Mutex;
use sotto_model::TenantId;
use uuid::Uuid;

use crate::data_key::{DataKey, EpochKey, Moment};
use crate::key_request::{KeyRequest, KeyUnavailable, Wanted};
use crate::key_scope::{Epoch, KeyId, KeyScope};
use crate::key_store::{KeyStoreError, WrappedDataKey, WrappedEpochKey};
use crate::keyring::{Inner, Keyring};
use crate::kms::{KeyContext, KeyPurpose};
use crate::limits::EPOCH_CHECK_AGE_MAX;
use crate::nonce::NonceSequence;

impl Keyring {
    /// Fetches a key. Whoever asks for the same meanwhile waits for the same fetch; one that failed is
    /// not tried again for [`crate::limits::FETCH_RETRY_AFTER`], and gives the same answer till then.
    pub async fn warm(&self, request: KeyRequest, now: Instant) -> Result<(), KeyUnavailable> {
        if let Some(failure) = self.inner.failures.recent(&request, now) {
            return Err(failure);
        }
        let inner = Arc::clone(&self.inner);
        let fetched =
            self.inner.requests.join(request, move || async move { inner.fetch(request, now).await }.boxed());
        let result = fetched.await.map_err(|_| KeyUnavailable::Busy)?;
        if let Err(failure) = &result {
            self.inner.failures.insert(request, failure.clone(), now);
        }
        result
    }

    /// The keys that are in use and soon too old: warm them, a few at a time, before somebody waits for
    /// them. Also drops those that are too old. To be called every few seconds.
    pub fn refresh_due(&self, now: Instant) -> Vec<KeyRequest> {
        self.inner.cache.write().refresh_due(self.inner.moment(now))
    }
}

impl Inner {
    async fn fetch(self: Arc<Self>, request: KeyRequest, now: Instant) -> Result<(), KeyUnavailable> {
        let tenant = request.tenant;
        match request.wanted {
            Wanted::Epoch(epoch) => self.fetch_epoch_key(tenant, epoch, now).await.map(|_| ()),
            Wanted::Current(scope) => self.fetch_current(tenant, scope, now).await,
            Wanted::ById(id) => {
                let row = self.store.data_key(id).await?.ok_or(KeyUnavailable::Missing)?;
                if row.tenant != tenant || row.id != id {
                    return Err(KeyUnavailable::Missing);
                }
                let key = self.unwrap_data_key(&row, now).await?;
                self.cache.write().insert_data_key(key);
                Ok(())
            }
        }
    }

    async fn fetch_current(
        self: &Arc<Self>,
        tenant: TenantId,
        scope: KeyScope,
        now: Instant,
    ) -> Result<(), KeyUnavailable> {
        let (epoch, checked_at) = match scope {
            // Of the first epoch for ever, so that two nodes never hash with two keys.
            KeyScope::Lookup => (Epoch::FIRST, self.moment(now)),
            KeyScope::Conversation(_) | KeyScope::Topics | KeyScope::Secrets => {
                self.current_epoch(tenant, now).await?
            }
        };
        let row = match self.store.current_data_key(tenant, scope).await? {
            Some(row) if row.epoch >= epoch => row,
            _ => {
                let epoch_key = self.epoch_key_or_first(tenant, epoch, now).await?;
                let fresh =
                    epoch_key.generate(KeyId(Uuid::new_v4()), scope).map_err(|_| KeyUnavailable::Crypto)?;
                self.store.insert_data_key(fresh).await?
            }
        };
        if row.tenant != tenant || row.scope != scope {
            return Err(KeyUnavailable::Inconsistent);
        }
        let key = self.unwrap_data_key(&row, now).await?;
        self.cache.write().insert_current(key, checked_at);
        Ok(())
    }

    async fn unwrap_data_key(
        self: &Arc<Self>,
        row: &WrappedDataKey,
        now: Instant,
    ) -> Result<Arc<DataKey>, KeyUnavailable> {
        let epoch_key = self.epoch_key(row.tenant, row.epoch, now).await?;
        let plain = epoch_key.unwrap(row).ok_or(KeyUnavailable::Inconsistent)?;
        let held = self.cache.read().stale_data_key(row.id).map(|key| Arc::clone(key.nonces()));
        let nonces = match held {
            Some(nonces) => nonces,
            None => Arc::new(Mutex::new(NonceSequence::draw().map_err(|_| KeyUnavailable::Crypto)?)),
        };
        Ok(Arc::new(DataKey::new(row, &plain, epoch_key, nonces, self.moment(now))))
    }

    /// The tenant's latest epoch, and when the store said so.
    async fn current_epoch(
        self: &Arc<Self>,
        tenant: TenantId,
        now: Instant,
    ) -> Result<(Epoch, Moment), KeyUnavailable> {
        let moment = self.moment(now);
        if let Some(known) = self.cache.read().current_epoch(tenant, EPOCH_CHECK_AGE_MAX, moment) {
            return Ok(known);
        }
        let key = match self.store.current_epoch_key(tenant).await? {
            Some(row) => row.epoch,
            None => self.epoch_key_or_first(tenant, Epoch::FIRST, now).await?.epoch,
        };
        self.cache.write().set_current_epoch(tenant, key, moment);
        Ok((key, moment))
    }

    /// The tenant's first epoch key comes to be when it is first asked for.
    async fn epoch_key_or_first(
        self: &Arc<Self>,
        tenant: TenantId,
        epoch: Epoch,
        now: Instant,
    ) -> Result<Arc<EpochKey>, KeyUnavailable> {
        match self.epoch_key(tenant, epoch, now).await {
            Err(KeyUnavailable::Missing) if epoch == Epoch::FIRST => {
                let inner = Arc::clone(self);
                let made = move || async move { inner.make_epoch_key(tenant, epoch, now).await }.boxed();
                self.epochs.join((tenant, None), made).await.map_err(|_| KeyUnavailable::Busy)?
            }
            other => other,
        }
    }

    async fn epoch_key(
        self: &Arc<Self>,
        tenant: TenantId,
        epoch: Epoch,
        now: Instant,
    ) -> Result<Arc<EpochKey>, KeyUnavailable> {
        let held = self.cache.read().epoch_key(tenant, epoch, self.moment(now)).map(Arc::clone);
        match held {
            Some(key) => Ok(key),
            None => self.fetch_epoch_key(tenant, epoch, now).await,
        }
    }

    async fn fetch_epoch_key(
        self: &Arc<Self>,
        tenant: TenantId,
        epoch: Epoch,
        now: Instant,
    ) -> Result<Arc<EpochKey>, KeyUnavailable> {
        let inner = Arc::clone(self);
        let fetched = move || {
            async move {
                let row = inner.store.epoch_key(tenant, epoch).await?.ok_or(KeyUnavailable::Missing)?;
                inner.unwrap_epoch_key(&row, now).await
            }
            .boxed()
        };
        self.epochs.join((tenant, Some(epoch)), fetched).await.map_err(|_| KeyUnavailable::Busy)?
    }

    /// Asks the key service for a fresh epoch key; where another node was first, its key is the one.
    pub(crate) async fn make_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        now: Instant,
    ) -> Result<Arc<EpochKey>, KeyUnavailable> {
        let fresh = self.kms.generate_data_key(&context(tenant, epoch)).await?;
        let row = WrappedEpochKey {
            tenant,
            epoch,
            wrapped: fresh.wrapped,
            commitment: crate::commitment::commitment(&fresh.plain),
        };
        let standing = self.store.insert_epoch_key(row.clone()).await?;
        if standing != row {
            return self.unwrap_epoch_key(&standing, now).await;
        }
        let key = EpochKey::new(&row, &fresh.plain, self.moment(now)).ok_or(KeyUnavailable::Inconsistent)?;
        Ok(self.cache.write().insert_epoch_key(key))
    }

    async fn unwrap_epoch_key(
        &self,
        row: &WrappedEpochKey,
        now: Instant,
    ) -> Result<Arc<EpochKey>, KeyUnavailable> {
        let plain = self.kms.decrypt(&context(row.tenant, row.epoch), &row.wrapped).await?;
        let key = EpochKey::new(row, &plain, self.moment(now)).ok_or(KeyUnavailable::Inconsistent)?;
        Ok(self.cache.write().insert_epoch_key(key))
    }
}

pub(crate) fn context(tenant: TenantId, epoch: Epoch) -> KeyContext {
    KeyContext { tenant, purpose: KeyPurpose::Messages, epoch }
}

impl From<KeyStoreError> for KeyUnavailable {
    fn from(error: KeyStoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
