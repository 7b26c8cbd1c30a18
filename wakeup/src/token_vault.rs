//! Push tokens at rest: sealed for the device whose they are.

use std::sync::Arc;

use sotto_keyring::{Keyring, SecretError, SecretPurpose};
use sotto_model::{Clock, DeviceId, TenantId};
use sotto_storage::push_registry::PushRegistration;

use crate::limits::OPEN_TOKEN_TIMEOUT;
use crate::pusher::PushToken;
use crate::target::Target;

#[derive(Clone)]
pub struct TokenVault {
    keyring: Keyring,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenTokenError {
    /// The key cannot be had at the moment.
    #[error("key of the push token is unavailable")]
    KeyUnavailable,
    /// It was sealed for another place, or damaged.
    #[error("push token cannot be opened")]
    Unreadable,
}

impl TokenVault {
    pub fn new(keyring: Keyring, clock: Arc<dyn Clock>) -> Self {
        Self { keyring, clock }
    }

    /// What is stored of where a device is to be woken.
    pub async fn registration(
        &self,
        tenant: TenantId,
        device: DeviceId,
        target: &Target,
    ) -> Result<PushRegistration, SecretError> {
        let token = target.reveal().as_bytes();
        let now = self.clock.now();
        Ok(PushRegistration {
            tenant,
            device,
            platform: target.lane().platform,
            app: target.lane().app.clone(),
            sealed_token: self
                .keyring
                .seal_secret(tenant, SecretPurpose::PushToken, device.0, token, now)
                .await?,
            lookup: self.keyring.lookup_hash(tenant, SecretPurpose::PushToken, token, now).await?,
            registered_at: self.clock.unix_now(),
        })
    }

    pub(crate) async fn open(
        &self,
        tenant: TenantId,
        device: DeviceId,
        sealed: &[u8],
    ) -> Result<PushToken, OpenTokenError> {
        let purpose = SecretPurpose::PushToken;
        let opening = self.keyring.open_secret(tenant, purpose, device.0, sealed, self.clock.now());
        match tokio::time::timeout(OPEN_TOKEN_TIMEOUT, opening).await {
            Ok(Ok(token)) => {
                let token = std::str::from_utf8(&token).map_err(|_| OpenTokenError::Unreadable)?;
                Ok(PushToken::new(token.to_owned()))
            }
            Ok(Err(SecretError::Key(_) | SecretError::Crypto)) | Err(_) => {
                Err(OpenTokenError::KeyUnavailable)
            }
            Ok(Err(SecretError::Misplaced | SecretError::TooLong)) => Err(OpenTokenError::Unreadable),
        }
    }
}
