//! Unwrapped keys, as they live in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{aead, hmac};
use parking_lot::Mutex;
use sotto_model::TenantId;

use crate::commitment::{commitment, commits_to};
use crate::key_scope::{Epoch, KeyId, KeyScope};
use crate::key_store::{WrappedDataKey, WrappedEpochKey};
use crate::kms::PlainKey;
use crate::nonce::NonceSequence;
use crate::wrapping::{WrappingKey, aead_key};

/// A moment of this process, milliseconds since its keyring was made: an [`Instant`] that fits an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn at(now: Instant, start: Instant) -> Self {
        Self(u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }
}

/// A tenant's key of one epoch: it wraps the tenant's data keys.
pub(crate) struct EpochKey {
    pub(crate) tenant: TenantId,
    pub(crate) epoch: Epoch,
    key: WrappingKey,
    commitment: [u8; 32],
    /// When the key service last gave it out.
    verified_at: AtomicU64,
}

impl EpochKey {
    /// `None` where the row commits to another key.
    pub(crate) fn new(row: &WrappedEpochKey, plain: &PlainKey, now: Moment) -> Option<Self> {
        commits_to(&row.commitment, plain).then(|| Self {
            tenant: row.tenant,
            epoch: row.epoch,
            key: WrappingKey::new(plain),
            commitment: row.commitment,
            verified_at: AtomicU64::new(now.0),
        })
    }

    pub(crate) fn verified_at(&self) -> Moment {
        Moment(self.verified_at.load(Ordering::Relaxed))
    }

    /// The key service gave out the same key again: every data key under it holds for longer.
    pub(crate) fn verified_again(&self, other: &Self) -> bool {
        let same = self.commitment == other.commitment;
        if same {
            self.verified_at.fetch_max(other.verified_at().0, Ordering::Relaxed);
        }
        same
    }

    /// A fresh data key, wrapped for keeping.
    pub(crate) fn generate(&self, id: KeyId, scope: KeyScope) -> Result<WrappedDataKey, Unspecified> {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(key.as_mut())?;
        let plain = PlainKey::new(key);
        let wrapped = self.key.wrap(&wrapping_context(self.tenant, id, scope, self.epoch), &plain)?;
        Ok(WrappedDataKey {
            id,
            tenant: self.tenant,
            scope,
            epoch: self.epoch,
            wrapped,
            commitment: commitment(&plain),
        })
    }

    /// `None` where the row was moved or damaged, or commits to another key.
    pub(crate) fn unwrap(&self, row: &WrappedDataKey) -> Option<PlainKey> {
        let context = wrapping_context(row.tenant, row.id, row.scope, row.epoch);
        self.key.unwrap(&context, &row.wrapped).filter(|plain| commits_to(&row.commitment, plain))
    }
}

/// One key that seals and opens.
pub(crate) struct DataKey {
    pub(crate) id: KeyId,
    pub(crate) tenant: TenantId,
    pub(crate) scope: KeyScope,
    pub(crate) epoch_key: Arc<EpochKey>,
    pub(crate) material: Material,
    /// Kept when the key is fetched anew, so that one process counts on. Locked for one step.
    nonces: Arc<Mutex<NonceSequence>>,
    loaded_at: Moment,
    seals: AtomicU32,
    used_at: AtomicU64,
}

/// Cleansed when dropped.
pub(crate) enum Material {
    Aead(aead::LessSafeKey),
    Mac(Box<hmac::Key>),
}

impl DataKey {
    pub(crate) fn new(
        row: &WrappedDataKey,
        plain: &PlainKey,
        epoch_key: Arc<EpochKey>,
        nonces: Arc<Mutex<NonceSequence>>,
        now: Moment,
    ) -> Self {
        let material = match row.scope {
            KeyScope::Lookup => Material::Mac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, plain.as_bytes()))),
            KeyScope::Conversation(_) | KeyScope::Topics | KeyScope::Secrets => {
                Material::Aead(aead_key(plain))
            }
        };
        Self {
            id: row.id,
            tenant: row.tenant,
            scope: row.scope,
            epoch_key,
            material,
            nonces,
            loaded_at: now,
            seals: AtomicU32::new(0),
            used_at: AtomicU64::new(now.0),
        }
    }

    pub(crate) fn nonces(&self) -> &Arc<Mutex<NonceSequence>> {
        &self.nonces
    }

    /// How long ago the key was read from the store, or its epoch key given out by the key service,
    /// whichever is longer.
    pub(crate) fn age(&self, now: Moment) -> Duration {
        self.loaded_at.age(now).max(self.epoch_key.verified_at().age(now))
    }

    pub(crate) fn loaded_at(&self) -> Moment {
        self.loaded_at
    }

    pub(crate) fn seals(&self) -> u32 {
        self.seals.load(Ordering::Relaxed)
    }

    pub(crate) fn count_seal(&self) {
        self.seals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn used_at(&self) -> Moment {
        Moment(self.used_at.load(Ordering::Relaxed))
    }

    pub(crate) fn touch(&self, now: Moment) {
        // Written once a millisecond at most, so that readers on other cores keep the line.
        if self.used_at.load(Ordering::Relaxed) < now.0 {
            self.used_at.store(now.0, Ordering::Relaxed);
        }
    }
}

/// What a wrapped data key is bound to: label 14, tenant 16, key id 16, scope kind 1, scope subject 16,
/// epoch 4 bytes.
fn wrapping_context(tenant: TenantId, id: KeyId, scope: KeyScope, epoch: Epoch) -> Vec<u8> {
    [
        b"sotto data key".as_slice(),
        tenant.0.as_bytes(),
        id.0.as_bytes(),
        &[scope.kind()],
        scope.subject().as_bytes(),
        &epoch.0.to_be_bytes(),
    ]
    .concat()
}
