//! Messages sealed by the real keyring, its keys kept in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sotto_auth::Policy;
use sotto_keyring::{
    Epoch, KeyId, KeyScope, KeyStore, KeyStoreError, Keyring, KeyringLimits, LocalKms, PlainKey, SealError,
    WrappedDataKey, WrappedEpochKey,
};
use sotto_model::{ClientId, Clock, MessageId, Principal, QoS, TenantId, TopicName, TopicPolicy, UserId};
use sotto_storage::message_log::{Append, RetainChange};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::clock::FixedClock;

pub(crate) struct Sealer {
    policy: Policy,
    keyring: Keyring,
    clock: Arc<FixedClock>,
}

impl Sealer {
    pub(crate) fn new() -> Self {
        let clock = FixedClock::new();
        let kms = Arc::new(LocalKms::from_root_key(&PlainKey::new(Zeroizing::new([7; 32]))));
        let keyring = Keyring::new(kms, Arc::<Keys>::default(), KeyringLimits::default(), clock.now());
        Self { policy: Policy::new(), keyring, clock }
    }

    /// A message to commit; its id is the number given.
    pub(crate) async fn append(&self, tenant: TenantId, message: u128) -> Append {
        self.policy.add_tenant(tenant, TopicPolicy::Open);
        let principal = Principal {
            tenant,
            user: UserId(Uuid::nil()),
            device: None,
            client_id: ClientId::parse("test").expect("client id"),
            topics: TopicPolicy::Open,
        };
        let topic = TopicName::parse("a/b").expect("topic");
        let mut permit = self.policy.permit_publish(&principal, &topic).expect("an open tenant permits all");
        let sealed = loop {
            match self.keyring.seal(permit, MessageId(Uuid::from_u128(message)), &[b"x"], self.clock.now()) {
                Ok(sealed) => break sealed,
                Err((given_back, SealError::KeyCold(request))) => {
                    self.keyring.warm(request, self.clock.now()).await.expect("keys are in memory");
                    permit = given_back;
                }
                Err((_, error)) => panic!("{error}"),
            }
        };
        Append {
            sealed,
            qos: QoS::AtLeastOnce,
            retain: RetainChange::Keep,
            expires_at: None,
            wakes: None,
            exactly_once: None,
            publication: None,
            will: None,
        }
    }
}

#[derive(Default)]
struct Keys {
    epochs: Mutex<Vec<WrappedEpochKey>>,
    data: Mutex<Vec<WrappedDataKey>>,
}

#[async_trait]
impl KeyStore for Keys {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let epochs = self.epochs.lock();
        Ok(epochs.iter().find(|key| key.tenant == tenant && key.epoch == epoch).cloned())
    }

    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let epochs = self.epochs.lock();
        Ok(epochs.iter().filter(|key| key.tenant == tenant).max_by_key(|key| key.epoch).cloned())
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        self.epochs.lock().push(key.clone());
        Ok(key)
    }

    async fn rewrap_epoch_key(
        &self,
        _: TenantId,
        _: Epoch,
        _: &[u8],
        _: Bytes,
    ) -> Result<bool, KeyStoreError> {
        Ok(false)
    }

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        Ok(self.data.lock().iter().find(|key| key.id == id).cloned())
    }

    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let data = self.data.lock();
        Ok(data
            .iter()
            .filter(|key| key.tenant == tenant && key.scope == scope)
            .max_by_key(|key| key.epoch)
            .cloned())
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        self.data.lock().push(key.clone());
        Ok(key)
    }
}
