//! Keys that are not at hand, and fetches that failed of late.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use sotto_model::TenantId;

use crate::key_scope::{Epoch, KeyId, KeyScope};
use crate::key_store::KeyStoreError;
use crate::kms::KmsError;
use crate::limits::{FETCH_RETRY_AFTER, FETCHES_MAX};

/// A key that is not at hand; [`crate::Keyring::warm`] fetches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRequest {
    pub(crate) tenant: TenantId,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wanted {
    Epoch(Epoch),
    /// Whichever key seals in that scope; made if there is none.
    Current(KeyScope),
    ById(KeyId),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyUnavailable {
    #[error("key store failed")]
    Store(#[source] Arc<KeyStoreError>),
    #[error("key service refused")]
    Kms(#[from] KmsError),
    /// It was deleted, or what names it was moved here from another tenant.
    #[error("no such key in this tenant")]
    Missing,
    /// A wrapped key was moved, damaged or exchanged.
    #[error("stored key is not the one that its row commits to")]
    Inconsistent,
    #[error("{FETCHES_MAX} keys are being fetched")]
    Busy,
    #[error("cryptographic library failed")]
    Crypto,
}

impl KeyRequest {
    /// A tenant's key of one epoch.
    pub fn epoch(tenant: TenantId, epoch: Epoch) -> Self {
        Self { tenant, wanted: Wanted::Epoch(epoch) }
    }

    pub(crate) fn current(tenant: TenantId, scope: KeyScope) -> Self {
        Self { tenant, wanted: Wanted::Current(scope) }
    }

    /// The data key of that id, where it is this tenant's.
    pub fn by_id(tenant: TenantId, id: KeyId) -> Self {
        Self { tenant, wanted: Wanted::ById(id) }
    }

    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The data key that is wanted, where it is wanted by its id.
    pub fn key_id(&self) -> Option<KeyId> {
        match self.wanted {
            Wanted::ById(id) => Some(id),
            Wanted::Epoch(_) | Wanted::Current(_) => None,
        }
    }
}

/// Fetches that failed a moment ago: asking on would only press a service that is down.
#[derive(Default)]
pub(crate) struct Failures {
    /// Locked for a look-up or an insertion.
    recent: Mutex<HashMap<KeyRequest, (Instant, KeyUnavailable)>>,
}

impl Failures {
    pub(crate) fn recent(&self, request: &KeyRequest, now: Instant) -> Option<KeyUnavailable> {
        let recent = self.recent.lock();
        let (failed_at, failure) = recent.get(request)?;
        is_recent(*failed_at, now).then(|| failure.clone())
    }

    pub(crate) fn insert(&self, request: KeyRequest, failure: KeyUnavailable, now: Instant) {
        let mut recent = self.recent.lock();
        if recent.len() >= FETCHES_MAX {
            recent.retain(|_, (failed_at, _)| is_recent(*failed_at, now));
        }
        if recent.len() < FETCHES_MAX {
            recent.insert(request, (now, failure));
        }
    }
}

fn is_recent(failed_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(failed_at) < FETCH_RETRY_AFTER
}
