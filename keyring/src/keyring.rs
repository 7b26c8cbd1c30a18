//! Sealing and opening, without waiting.

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::LessSafeKey;
use parking_lot::RwLock;
use sotto_auth::PublishPermit;
use sotto_model::{MessageId, TenantId};

use crate::cache::KeyCache;
use crate::data_key::{DataKey, EpochKey, Material, Moment};
use crate::frame::{self, Frame};
use crate::key_request::{Failures, KeyRequest, KeyUnavailable};
use crate::key_scope::{Epoch, KeyScope};
use crate::key_store::KeyStore;
use crate::kms::Kms;
use crate::limits::{
    CACHED_KEYS_MAX, FETCHES_MAX, KEY_AGE_MAX, KeyringLimits, PLAINTEXT_BYTES_MAX, SEALS_PER_LOAD_MAX,
};
use crate::sealed::{Place, Sealed};
use crate::single_flight::SingleFlight;

/// The keys of this process. A clone is another handle to the same keys.
#[derive(Clone)]
pub struct Keyring {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Fetch it with [`Keyring::warm`] and seal again, on the permit that came back.
    #[error("key is not at hand")]
    KeyCold(KeyRequest),
    #[error("message is longer than {PLAINTEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("cryptographic library failed")]
    Crypto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Fetch it with [`Keyring::warm`] and open again.
    #[error("key is not at hand")]
    KeyCold(KeyRequest),
    /// Too short, or of a version that this program does not know.
    #[error("not a sealed message")]
    Format,
    /// Damaged, or not sealed for the place where it was found.
    #[error("sealed message does not belong to its place")]
    Misplaced,
}

pub(crate) struct Inner {
    pub(crate) kms: Arc<dyn Kms>,
    pub(crate) store: Arc<dyn KeyStore>,
    /// Locked for a look-up or an insertion; no key is used, fetched or unwrapped under it.
    pub(crate) cache: RwLock<KeyCache>,
    pub(crate) requests: SingleFlight<KeyRequest, Result<(), KeyUnavailable>>,
    pub(crate) epochs: SingleFlight<(TenantId, Option<Epoch>), Result<Arc<EpochKey>, KeyUnavailable>>,
    pub(crate) failures: Failures,
    start: Instant,
}

impl Keyring {
    /// Limits beyond the greatest are lowered to those.
    pub fn new(kms: Arc<dyn Kms>, store: Arc<dyn KeyStore>, limits: KeyringLimits, now: Instant) -> Self {
        let limits = KeyringLimits {
            cached_keys_max: limits.cached_keys_max.clamp(1, CACHED_KEYS_MAX),
            key_age_max: limits.key_age_max.min(KEY_AGE_MAX),
            seals_per_load_max: limits.seals_per_load_max.clamp(1, SEALS_PER_LOAD_MAX),
        };
        Self {
            inner: Arc::new(Inner {
                kms,
                store,
                cache: RwLock::new(KeyCache::new(limits)),
                requests: SingleFlight::new(FETCHES_MAX),
                epochs: SingleFlight::new(FETCHES_MAX),
                failures: Failures::default(),
                start: now,
            }),
        }
    }

    /// Encrypts the parts, one after another, as one message. The permit is used up; on an error it
    /// comes back.
    pub fn seal(
        &self,
        permit: PublishPermit,
        message_id: MessageId,
        parts: &[&[u8]],
        now: Instant,
    ) -> Result<Sealed, (PublishPermit, SealError)> {
        let place =
            Place { tenant: permit.tenant(), topic: permit.topic(), sender: permit.sender(), message_id };
        let scope = permit.conversation().map_or(KeyScope::Topics, KeyScope::Conversation);
        match self.seal_at(&place, scope, parts, now) {
            Ok(bytes) => Ok(Sealed::new(permit, message_id, bytes)),
            Err(error) => Err((permit, error)),
        }
    }

    /// Decrypts what was sealed for this place.
    pub fn open(&self, place: &Place<'_>, bytes: &[u8], now: Instant) -> Result<Vec<u8>, OpenError> {
        let frame = Frame::parse(bytes).ok_or(OpenError::Format)?;
        let now = self.inner.moment(now);
        let key = self.inner.cache.read().data_key(frame.key_id, now).map(Arc::clone);
        let Some(key) = key else {
            return Err(OpenError::KeyCold(KeyRequest::by_id(place.tenant, frame.key_id)));
        };
        key.touch(now);
        let aead = key.message_key().filter(|_| key.tenant == place.tenant).ok_or(OpenError::Misplaced)?;
        frame.open(aead, &place.authenticated_data(&key)).ok_or(OpenError::Misplaced)
    }

    /// Drops every key of a tenant from memory: nothing of it opens or seals until the key service has
    /// been asked again.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.inner.cache.write().forget_tenant(tenant);
    }

    fn seal_at(
        &self,
        place: &Place<'_>,
        scope: KeyScope,
        parts: &[&[u8]],
        now: Instant,
    ) -> Result<Vec<u8>, SealError> {
        if parts.iter().map(|part| part.len()).sum::<usize>() > PLAINTEXT_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        let key = self
            .inner
            .sealing_key(place.tenant, scope, now)
            .ok_or_else(|| SealError::KeyCold(KeyRequest::current(place.tenant, scope)))?;
        let aead = key.message_key().expect("the scope of a permit is one of messages");
        let nonce = key.nonces().lock().next().map_err(|_| SealError::Crypto)?;
        frame::seal(aead, key.id, nonce, &place.authenticated_data(&key), parts)
            .map_err(|_| SealError::Crypto)
    }
}

impl Inner {
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        Moment::at(now, self.start)
    }

    /// The key that seals in a scope, counted as used once more.
    pub(crate) fn sealing_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
        now: Instant,
    ) -> Option<Arc<DataKey>> {
        let now = self.moment(now);
        let key = self.cache.read().current(tenant, scope, now).map(Arc::clone)?;
        key.touch(now);
        key.count_seal();
        Some(key)
    }
}

impl DataKey {
    /// `None` for a key that is not one of messages.
    fn message_key(&self) -> Option<&LessSafeKey> {
        match (self.scope, &self.material) {
            (KeyScope::Conversation(_) | KeyScope::Topics, Material::Aead(key)) => Some(key),
            _ => None,
        }
    }
}
