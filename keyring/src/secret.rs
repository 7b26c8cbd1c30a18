//! Small secrets at rest, such as push tokens: sealed for their row, and found by a keyed hash.
//!
//! The bytes are those of a sealed message (see [`crate::sealed`]), under a key of another scope.
//! Authenticated beside the ciphertext, integers big endian:
//!
//! ```text
//! byte  0         1        17        18       34       50      54
//!       ┌─────────┬────────┬─────────┬────────┬────────┬───────┐
//!       │ version │ tenant │ purpose │ row id │ key id │ epoch │
//!       │ 01      │ 16     │ 1       │ 16     │ 16     │ 4     │
//!       └─────────┴────────┴─────────┴────────┴────────┴───────┘
//! ```

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::hmac;
use bytes::Bytes;
use sotto_model::TenantId;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::data_key::{DataKey, Material};
use crate::frame::{self, Frame};
use crate::key_request::{KeyRequest, KeyUnavailable};
use crate::key_scope::KeyScope;
use crate::keyring::Keyring;
use crate::limits::SECRET_BYTES_MAX;

/// What a secret is for; one sealed for one purpose does not open for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SecretPurpose {
    PushToken = 1,
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    Key(#[from] KeyUnavailable),
    #[error("secret is longer than {SECRET_BYTES_MAX} bytes")]
    TooLong,
    /// Damaged, or not sealed for the row where it was found.
    #[error("sealed secret does not belong to its row")]
    Misplaced,
    #[error("cryptographic library failed")]
    Crypto,
}

impl Keyring {
    /// Encrypts a secret for the row of that id.
    pub async fn seal_secret(
        &self,
        tenant: TenantId,
        purpose: SecretPurpose,
        id: Uuid,
        secret: &[u8],
        now: Instant,
    ) -> Result<Bytes, SecretError> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(SecretError::TooLong);
        }
        let key = self.current_key(tenant, KeyScope::Secrets, now).await?;
        let Material::Aead(aead) = &key.material else { return Err(SecretError::Crypto) };
        let nonce = key.nonces().lock().next().map_err(|_| SecretError::Crypto)?;
        let aad = authenticated_data(&key, purpose, id);
        let bytes = frame::seal(aead, key.id, nonce, &aad, &[secret]).map_err(|_| SecretError::Crypto)?;
        Ok(bytes.into())
    }

    /// Decrypts the secret of the row of that id.
    pub async fn open_secret(
        &self,
        tenant: TenantId,
        purpose: SecretPurpose,
        id: Uuid,
        sealed: &[u8],
        now: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let frame = Frame::parse(sealed).ok_or(SecretError::Misplaced)?;
        let moment = self.inner.moment(now);
        let find = || self.inner.cache.read().data_key(frame.key_id, moment).map(Arc::clone);
        let key = if let Some(key) = find() {
            key
        } else {
            self.warm(KeyRequest::by_id(tenant, frame.key_id), now).await?;
            find().ok_or(KeyUnavailable::Busy)?
        };
        key.touch(moment);
        let (KeyScope::Secrets, Material::Aead(aead)) = (key.scope, &key.material) else {
            return Err(SecretError::Misplaced);
        };
        if key.tenant != tenant {
            return Err(SecretError::Misplaced);
        }
        let secret = frame.open(aead, &authenticated_data(&key, purpose, id));
        secret.map(Zeroizing::new).ok_or(SecretError::Misplaced)
    }

    /// A hash by which a secret is found again unopened. The same for good, and another one in another
    /// tenant; without the tenant's key nobody can try secrets against it.
    pub async fn lookup_hash(
        &self,
        tenant: TenantId,
        purpose: SecretPurpose,
        secret: &[u8],
        now: Instant,
    ) -> Result<[u8; 32], KeyUnavailable> {
        let key = self.current_key(tenant, KeyScope::Lookup, now).await?;
        let Material::Mac(mac) = &key.material else { return Err(KeyUnavailable::Crypto) };
        let mut context = hmac::Context::with_key(mac);
        context.update(&[purpose as u8]);
        context.update(secret);
        Ok(context.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes"))
    }

    async fn current_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
        now: Instant,
    ) -> Result<Arc<DataKey>, KeyUnavailable> {
        if let Some(key) = self.inner.sealing_key(tenant, scope, now) {
            return Ok(key);
        }
        self.warm(KeyRequest::current(tenant, scope), now).await?;
        // Cold again at once: others filled the cache beyond its bound.
        self.inner.sealing_key(tenant, scope, now).ok_or(KeyUnavailable::Busy)
    }
}

fn authenticated_data(key: &DataKey, purpose: SecretPurpose, id: Uuid) -> Vec<u8> {
    [
        &[frame::VERSION],
        key.tenant.0.as_bytes().as_slice(),
        &[purpose as u8],
        id.as_bytes(),
        key.id.0.as_bytes(),
        &key.epoch_key.epoch.0.to_be_bytes(),
    ]
    .concat()
}
