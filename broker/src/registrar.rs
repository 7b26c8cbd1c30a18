//! How a device comes to be woken: its token checked, sealed and registered, whether an operator or the device
//! itself asks.

use std::sync::Arc;

use sotto_keyring::Keyring;
use sotto_model::{Clock, DeviceId, TenantId, UserId};
use sotto_storage::Store;
use sotto_storage::directory::DirectoryError;
use sotto_storage::error::StoreError;
use sotto_storage::push_registry::Lane;
use sotto_wakeup::{AddressGuard, Target, TargetError, TargetRequest, TokenVault};

use crate::clock::SystemClock;

pub(crate) struct Registrar {
    store: Arc<dyn Store>,
    vault: TokenVault,
    clock: Arc<SystemClock>,
    reach: PushReach,
}

/// What devices may be registered for.
#[derive(Clone)]
pub(crate) struct PushReach {
    /// Push services, and the apps for which there is a credential.
    pub(crate) lanes: Arc<[Lane]>,
    /// Where push endpoints may lead.
    pub(crate) guard: AddressGuard,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("key service unavailable")]
    Key,
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl Registrar {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        keyring: Keyring,
        clock: Arc<SystemClock>,
        reach: PushReach,
    ) -> Self {
        Self { store, vault: TokenVault::new(keyring, clock.clone()), clock, reach }
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.reach.lanes
    }

    pub(crate) fn target(&self, request: TargetRequest<'_>) -> Result<Target, TargetError> {
        Target::parse(request, &self.reach.lanes, &self.reach.guard)
    }

    /// Replaces what the device had. `actor`: the user whose device asked; `None` for an operator.
    pub(crate) async fn register(
        &self,
        tenant: TenantId,
        device: DeviceId,
        target: &Target,
        actor: Option<UserId>,
    ) -> Result<(), RegisterError> {
        let registration = self.vault.registration(tenant, device, target).await;
        let registration = registration.map_err(|_| RegisterError::Key)?;
        Ok(self.store.register(&registration, actor).await?)
    }

    pub(crate) async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        actor: Option<UserId>,
    ) -> Result<(), StoreError> {
        self.store.unregister(tenant, device, actor, self.clock.unix_now()).await
    }
}
