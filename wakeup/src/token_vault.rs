//! Push tokens at rest: sealed for the device whose they are.

use std::sync::Arc;

use sotto_keyring::{Keyring, SecretError, SecretPurpose};
use sotto_model::{Clock, DeviceId, TenantId};
use sotto_storage::outbox::ClaimedWakeup;
use sotto_storage::push_registry::{Platform, PushRegistration};

use crate::endpoint::Endpoint;
use crate::limits::OPEN_TOKEN_TIMEOUT;
use crate::pusher::PushToken;

#[derive(Clone)]
pub struct TokenVault {
    keyring: Keyring,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenTokenError {
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

    /// What is stored of a device's endpoint.
    pub async fn registration(
        &self,
        tenant: TenantId,
        device: DeviceId,
        endpoint: &Endpoint,
    ) -> Result<PushRegistration, SecretError> {
        let token = endpoint.reveal().as_bytes();
        let now = self.clock.now();
        Ok(PushRegistration {
            tenant,
            device,
            platform: Platform::UnifiedPush,
            app: "".into(),
            sealed_token: self
                .keyring
                .seal_secret(tenant, SecretPurpose::PushToken, device.0, token, now)
                .await?,
            lookup: self.keyring.lookup_hash(tenant, SecretPurpose::PushToken, token, now).await?,
            registered_at: self.clock.unix_now(),
        })
    }

    pub(crate) async fn open(&self, wakeup: &ClaimedWakeup) -> Result<PushToken, OpenTokenError> {
        let opening = self.keyring.open_secret(
            wakeup.tenant,
            SecretPurpose::PushToken,
            wakeup.device.0,
            &wakeup.sealed_token,
            self.clock.now(),
        );
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
