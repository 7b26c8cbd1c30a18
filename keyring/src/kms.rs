//! The key service that wraps epoch keys: a trait, since there is a local one and those of clouds.

use async_trait::async_trait;
use bytes::Bytes;
use sotto_model::TenantId;
use zeroize::Zeroizing;

use crate::key_scope::Epoch;

/// What a wrapped key is bound to: it is unwrapped for exactly this context or not at all. Cloud key
/// services log it in clear, so it holds opaque identifiers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyContext {
    pub tenant: TenantId,
    pub purpose: KeyPurpose,
    pub epoch: Epoch,
}

/// Which class of data a key protects; each class may have a key of its own in the key service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPurpose {
    Messages,
}

/// 256 bits of key, zeroized when dropped.
pub struct PlainKey(Zeroizing<[u8; 32]>);

/// A fresh key, in clear for use and wrapped for keeping.
pub struct GeneratedKey {
    pub plain: PlainKey,
    pub wrapped: Bytes,
}

/// Wraps keys under a key that never leaves the service.
#[async_trait]
pub trait Kms: Send + Sync + 'static {
    async fn generate_data_key(&self, context: &KeyContext) -> Result<GeneratedKey, KmsError>;

    async fn decrypt(&self, context: &KeyContext, wrapped: &[u8]) -> Result<PlainKey, KmsError>;

    /// Wraps the same key anew, under the service's latest material.
    async fn re_encrypt(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Bytes, KmsError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// Too many requests; asking later helps.
    #[error("key service throttles requests")]
    Throttled,
    /// The tenant's key is disabled or awaits deletion: its data is out of reach until that is undone.
    #[error("key is disabled in the key service")]
    Disabled,
    /// The wrapped key is not of this context, or not of this service, or damaged.
    #[error("wrapped key does not belong to its context")]
    WrongContext,
    /// No answer; asking again may help.
    #[error("key service is unavailable")]
    Unavailable,
}

impl KeyPurpose {
    /// As it stands in an encryption context.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
        }
    }
}

impl PlainKey {
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
