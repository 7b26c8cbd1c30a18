//! A keyring to test with: keys kept in memory, and a key service that fails when it is told to.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sotto_auth::{Policy, PublishPermit};
use sotto_keyring::{
    Epoch, GeneratedKey, KeyContext, KeyId, KeyScope, KeyStore, KeyStoreError, Keyring, KeyringLimits, Kms,
    KmsError, LocalKms, PlainKey, SealError, Sealed, WrappedDataKey, WrappedEpochKey,
};
use sotto_model::{
    ClientId, ConversationId, MessageId, Offset, Principal, TenantId, TopicName, TopicPolicy, UserId,
};
use uuid::Uuid;

pub const ALICE: UserId = UserId(Uuid::from_u128(0xa11ce));
pub const BOB: UserId = UserId(Uuid::from_u128(0xb0b));
pub const TENANT: TenantId = TenantId(Uuid::from_u128(1));
pub const OTHER_TENANT: TenantId = TenantId(Uuid::from_u128(2));

pub struct World {
    pub policy: Policy,
    pub store: Arc<MemoryStore>,
    pub kms: Arc<FaultyKms>,
    pub keyring: Keyring,
    pub start: Instant,
}

impl World {
    pub fn new() -> Self {
        Self::with(KeyringLimits::default())
    }

    pub fn with(limits: KeyringLimits) -> Self {
        let policy = Policy::new();
        for tenant in [TENANT, OTHER_TENANT] {
            policy.add_tenant(tenant, TopicPolicy::Membership);
            for number in 0..100 {
                policy.add_member(tenant, conversation(number), ALICE, Offset(0));
                policy.add_member(tenant, conversation(number), BOB, Offset(0));
            }
        }
        let store = Arc::new(MemoryStore::default());
        let kms = Arc::new(FaultyKms::new());
        #[expect(clippy::disallowed_methods, reason = "where made-up time begins")]
        let start = Instant::now();
        let keyring = Keyring::new(kms.clone(), store.clone(), limits, start);
        Self { policy, store, kms, keyring, start }
    }

    /// The same store and key service, as another process finds them.
    pub fn another_process(&self) -> Keyring {
        Keyring::new(self.kms.clone(), self.store.clone(), KeyringLimits::default(), self.start)
    }

    pub fn permit(&self, tenant: TenantId, sender: UserId, topic: &TopicName) -> PublishPermit {
        let principal = Principal {
            tenant,
            user: sender,
            device: None,
            client_id: ClientId::parse("alice/phone").expect("client id"),
            topics: TopicPolicy::Membership,
        };
        self.policy.permit_publish(&principal, topic).expect("a member")
    }

    /// Seals in a conversation of the tenant, fetching the key where it is cold.
    pub async fn seal(&self, number: u128, plaintext: &[u8], now: Instant) -> Sealed {
        self.seal_with(&self.keyring, number, plaintext, now).await
    }

    pub async fn seal_with(&self, keyring: &Keyring, number: u128, plaintext: &[u8], now: Instant) -> Sealed {
        let message_id = MessageId(Uuid::new_v4());
        let permit = self.permit(TENANT, ALICE, &topic(number));
        match keyring.seal(permit, message_id, &[plaintext], now) {
            Ok(sealed) => sealed,
            Err((permit, SealError::KeyCold(request))) => {
                keyring.warm(request, now).await.expect("warm");
                keyring.seal(permit, message_id, &[plaintext], now).map_err(|(_, error)| error).expect("seal")
            }
            Err((_, error)) => panic!("{error}"),
        }
    }
}

pub fn conversation(number: u128) -> ConversationId {
    ConversationId(Uuid::from_u128(0xc000 + number))
}

pub fn topic(number: u128) -> TopicName {
    TopicName::parse(&format!("c/{}/m", conversation(number))).expect("topic")
}

/// Rows in vectors, searched from the front.
#[derive(Default)]
pub struct MemoryStore {
    pub epoch_keys: Mutex<Vec<WrappedEpochKey>>,
    pub data_keys: Mutex<Vec<WrappedDataKey>>,
    pub reads: AtomicU32,
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let rows = self.epoch_keys.lock();
        Ok(rows.iter().find(|row| row.tenant == tenant && row.epoch == epoch).cloned())
    }

    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let rows = self.epoch_keys.lock();
        Ok(rows.iter().filter(|row| row.tenant == tenant).max_by_key(|row| row.epoch).cloned())
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        let mut rows = self.epoch_keys.lock();
        if let Some(standing) = rows.iter().find(|row| row.tenant == key.tenant && row.epoch == key.epoch) {
            return Ok(standing.clone());
        }
        rows.push(key.clone());
        Ok(key)
    }

    async fn rewrap_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        from: &[u8],
        to: Bytes,
    ) -> Result<bool, KeyStoreError> {
        let mut rows = self.epoch_keys.lock();
        let row = rows.iter_mut().find(|row| row.tenant == tenant && row.epoch == epoch);
        Ok(row.filter(|row| row.wrapped == from).map(|row| row.wrapped = to).is_some())
    }

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(self.data_keys.lock().iter().find(|row| row.id == id).cloned())
    }

    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let rows = self.data_keys.lock();
        let of_scope = rows.iter().filter(|row| row.tenant == tenant && row.scope == scope);
        Ok(of_scope.max_by_key(|row| row.epoch).cloned())
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        let mut rows = self.data_keys.lock();
        let standing = rows
            .iter()
            .find(|row| row.tenant == key.tenant && row.scope == key.scope && row.epoch == key.epoch);
        if let Some(standing) = standing {
            return Ok(standing.clone());
        }
        rows.push(key.clone());
        Ok(key)
    }
}

/// The local provider, with a count of calls and a switch for failures.
pub struct FaultyKms {
    local: LocalKms,
    pub calls: AtomicU32,
    pub fails_with: Mutex<Option<KmsError>>,
}

impl FaultyKms {
    fn new() -> Self {
        Self {
            local: LocalKms::from_root_key(&PlainKey::new([42; 32].into())),
            calls: AtomicU32::new(0),
            fails_with: Mutex::new(None),
        }
    }

    async fn answer(&self) -> Result<(), KmsError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.fails_with.lock().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Kms for FaultyKms {
    async fn generate_data_key(&self, context: &KeyContext) -> Result<GeneratedKey, KmsError> {
        self.answer().await?;
        self.local.generate_data_key(context).await
    }

    async fn decrypt(&self, context: &KeyContext, wrapped: &[u8]) -> Result<PlainKey, KmsError> {
        self.answer().await?;
        self.local.decrypt(context, wrapped).await
    }

    async fn re_encrypt(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Bytes, KmsError> {
        self.answer().await?;
        self.local.re_encrypt(context, wrapped).await
    }
}
