//! Sealing and opening a message. The limit: AES-256-GCM over the same bytes, and nothing else.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures wall time")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use sotto_auth::{Policy, PublishPermit};
use sotto_keyring::{
    Epoch, KeyId, KeyScope, KeyStore, KeyStoreError, Keyring, KeyringLimits, LocalKms, PlainKey, SealError,
    Sealed, WrappedDataKey, WrappedEpochKey,
};
use sotto_model::{
    ClientId, ConversationId, MessageId, Offset, Principal, TenantId, TopicName, TopicPolicy, UserId,
};
use uuid::Uuid;

const SIZES_BYTES: [usize; 2] = [256, 4096];
const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const USER: UserId = UserId(Uuid::from_u128(2));
const CONVERSATION: ConversationId = ConversationId(Uuid::from_u128(3));
const MESSAGE: MessageId = MessageId(Uuid::from_u128(4));

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES_BYTES)]
fn seal(bencher: Bencher<'_, '_>, size_bytes: usize) {
    let (policy, keyring, now) = warm_keyring();
    let plaintext = vec![7; size_bytes];
    bencher
        .counter(BytesCount::new(size_bytes))
        .with_inputs(|| permit(&policy))
        .bench_values(|permit| keyring.seal(permit, MESSAGE, &[&plaintext], now).map_err(|(_, error)| error));
}

#[divan::bench(args = SIZES_BYTES)]
fn seal_raw_aead(bencher: Bencher<'_, '_>, size_bytes: usize) {
    let key = raw_key();
    let plaintext = vec![7; size_bytes];
    let mut counter = 0_u64;
    bencher.counter(BytesCount::new(size_bytes)).bench_local(|| {
        counter += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        let mut bytes = Vec::with_capacity(size_bytes + 16);
        bytes.extend_from_slice(&plaintext);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from([0; 101]), &mut bytes)
            .expect("seal");
        bytes
    });
}

#[divan::bench(args = SIZES_BYTES)]
fn open(bencher: Bencher<'_, '_>, size_bytes: usize) {
    let (policy, keyring, now) = warm_keyring();
    let sealed = seal_one(&policy, &keyring, size_bytes, now);
    bencher
        .counter(BytesCount::new(size_bytes))
        .bench(|| keyring.open(&sealed.place(), sealed.bytes(), now).expect("open"));
}

#[divan::bench(args = SIZES_BYTES)]
fn open_raw_aead(bencher: Bencher<'_, '_>, size_bytes: usize) {
    let key = raw_key();
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut sealed = vec![7; size_bytes];
    key.seal_in_place_append_tag(nonce(), Aad::from([0; 101]), &mut sealed).expect("seal");
    let (ciphertext, tag) = sealed.split_at(size_bytes);
    bencher.counter(BytesCount::new(size_bytes)).bench(|| {
        let mut plaintext = vec![0; size_bytes];
        key.open_separate_gather(nonce(), Aad::from([0; 101]), ciphertext, tag, &mut plaintext)
            .expect("open");
        plaintext
    });
}

/// What stands before every seal.
#[divan::bench]
fn permit_publish(bencher: Bencher<'_, '_>) {
    let (policy, _, _) = warm_keyring();
    let (principal, topic) = (principal(), topic());
    bencher.bench(|| policy.permit_publish(&principal, &topic).is_ok());
}

/// What stands before every delivery.
#[divan::bench]
fn may_receive(bencher: Bencher<'_, '_>) {
    let (policy, _, _) = warm_keyring();
    let (principal, topic) = (principal(), topic());
    bencher.bench(|| policy.may_receive(&principal, &topic, Offset(1)));
}

/// A conversation of 100 members in a policy of 10,000 conversations, its key at hand.
fn warm_keyring() -> (Policy, Keyring, Instant) {
    let policy = Policy::new();
    policy.add_tenant(TENANT, TopicPolicy::Membership);
    policy.add_member(TENANT, CONVERSATION, USER, Offset(0));
    for number in 0..100 {
        policy.add_member(TENANT, CONVERSATION, UserId(Uuid::from_u128(0x1000 + number)), Offset(0));
    }
    for number in 0..10_000 {
        policy.add_member(TENANT, ConversationId(Uuid::from_u128(0x10_0000 + number)), USER, Offset(0));
    }
    let kms = Arc::new(LocalKms::from_root_key(&PlainKey::new([1; 32].into())));
    let now = Instant::now();
    let keyring = Keyring::new(kms, Arc::new(MemoryStore::default()), KeyringLimits::default(), now);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let Err((_, SealError::KeyCold(request))) = keyring.seal(permit(&policy), MESSAGE, &[], now) else {
        panic!("a new keyring holds no key")
    };
    runtime.block_on(keyring.warm(request, now)).expect("warm");
    (policy, keyring, now)
}

fn seal_one(policy: &Policy, keyring: &Keyring, size_bytes: usize, now: Instant) -> Sealed {
    let sealed = keyring.seal(permit(policy), MESSAGE, &[&vec![7; size_bytes]], now);
    sealed.map_err(|(_, error)| error).expect("the key is at hand")
}

fn permit(policy: &Policy) -> PublishPermit {
    policy.permit_publish(&principal(), &topic()).expect("a member")
}

fn principal() -> Principal {
    Principal {
        tenant: TENANT,
        user: USER,
        device: None,
        client_id: ClientId::parse("alice/phone").expect("client id"),
        topics: TopicPolicy::Membership,
    }
}

fn topic() -> TopicName {
    TopicName::parse(&format!("c/{CONVERSATION}/m")).expect("topic")
}

fn raw_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("32 bytes"))
}

/// Keeps the few keys that a benchmark makes.
#[derive(Default)]
struct MemoryStore {
    epochs: Mutex<HashMap<Epoch, WrappedEpochKey>>,
    keys: Mutex<HashMap<KeyId, WrappedDataKey>>,
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn epoch_key(&self, _: TenantId, epoch: Epoch) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        Ok(self.epochs.lock().expect("no panic").get(&epoch).cloned())
    }

    async fn current_epoch_key(&self, _: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let epochs = self.epochs.lock().expect("no panic");
        Ok(epochs.values().max_by_key(|row| row.epoch).cloned())
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        Ok(self.epochs.lock().expect("no panic").entry(key.epoch).or_insert(key).clone())
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
        Ok(self.keys.lock().expect("no panic").get(&id).cloned())
    }

    async fn current_data_key(
        &self,
        _: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let keys = self.keys.lock().expect("no panic");
        Ok(keys.values().filter(|row| row.scope == scope).max_by_key(|row| row.epoch).cloned())
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        Ok(self.keys.lock().expect("no panic").entry(key.id).or_insert(key).clone())
    }
}
