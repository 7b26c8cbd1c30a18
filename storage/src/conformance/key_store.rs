//! Cases of [`KeyStore`](sotto_keyring::KeyStore).

use bytes::Bytes;
use sotto_keyring::{Epoch, KeyId, KeyScope, WrappedDataKey, WrappedEpochKey};
use sotto_model::TenantId;
use uuid::Uuid;

use super::fixture::Fixture;

pub async fn the_first_epoch_key_stands(f: Fixture) {
    let first = epoch_key(f.clinic, 1, 0xaa);
    let second = epoch_key(f.clinic, 1, 0xbb);
    assert!(f.store.epoch_key(f.clinic, Epoch(1)).await.expect("read").is_none());
    assert!(f.store.insert_epoch_key(first.clone()).await.expect("insert") == first);
    assert!(f.store.insert_epoch_key(second).await.expect("insert") == first, "the first writer's");
    assert!(f.store.epoch_key(f.clinic, Epoch(1)).await.expect("read") == Some(first));
    let other = epoch_key(f.lab, 1, 0xcc);
    assert!(f.store.insert_epoch_key(other.clone()).await.expect("insert") == other, "another tenant's");
}

pub async fn the_first_data_key_stands(f: Fixture) {
    for scope in [KeyScope::Conversation(f.ward), KeyScope::Topics, KeyScope::Secrets, KeyScope::Lookup] {
        let first = data_key(f.clinic, scope, 1, 0xaa);
        let second = data_key(f.clinic, scope, 1, 0xbb);
        assert!(f.store.data_key(first.id).await.expect("read").is_none());
        assert!(f.store.insert_data_key(first.clone()).await.expect("insert") == first);
        assert!(f.store.insert_data_key(second.clone()).await.expect("insert") == first);
        assert!(f.store.data_key(first.id).await.expect("read") == Some(first));
        assert!(f.store.data_key(second.id).await.expect("read").is_none());
    }
    let other = data_key(f.lab, KeyScope::Topics, 1, 0xcc);
    assert!(f.store.insert_data_key(other.clone()).await.expect("insert") == other, "another tenant's");
}

pub async fn the_highest_epoch_is_current(f: Fixture) {
    let scope = KeyScope::Conversation(f.ward);
    assert!(f.store.current_epoch_key(f.clinic).await.expect("read").is_none());
    assert!(f.store.current_data_key(f.clinic, scope).await.expect("read").is_none());
    for epoch in [2, u32::MAX, 10] {
        f.store.insert_epoch_key(epoch_key(f.clinic, epoch, 0xaa)).await.expect("insert");
        f.store.insert_data_key(data_key(f.clinic, scope, epoch, 0xaa)).await.expect("insert");
    }
    let epoch = f.store.current_epoch_key(f.clinic).await.expect("read").expect("stored").epoch;
    assert_eq!(epoch, Epoch(u32::MAX));
    let current = f.store.current_data_key(f.clinic, scope).await.expect("read").expect("stored");
    assert_eq!(current.epoch, Epoch(u32::MAX));
    assert!(f.store.current_data_key(f.clinic, KeyScope::Topics).await.expect("read").is_none());
    assert!(f.store.current_data_key(f.lab, scope).await.expect("read").is_none());
}

pub async fn an_epoch_key_is_rewrapped_only_from_what_it_was(f: Fixture) {
    let key = epoch_key(f.clinic, 1, 0xaa);
    f.store.insert_epoch_key(key.clone()).await.expect("insert");
    let rewrap = async |epoch, from: &[u8], to: &'static [u8]| {
        let to = Bytes::from_static(to);
        f.store.rewrap_epoch_key(f.clinic, Epoch(epoch), from, to).await.expect("rewrap")
    };
    assert!(!rewrap(1, b"something else", b"new").await);
    assert!(!rewrap(2, &key.wrapped, b"new").await);
    assert!(rewrap(1, &key.wrapped, b"new").await);
    assert!(!rewrap(1, &key.wrapped, b"newer").await);
    let found = f.store.epoch_key(f.clinic, Epoch(1)).await.expect("read").expect("stored");
    assert_eq!(found.wrapped, Bytes::from_static(b"new"));
    assert_eq!(found.commitment, key.commitment);
}

pub async fn racing_writers_agree(f: Fixture) {
    let inserted = futures::future::join_all(
        (0..16).map(|writer| f.store.insert_data_key(data_key(f.clinic, KeyScope::Topics, 1, writer))),
    )
    .await;
    let standing = f.store.current_data_key(f.clinic, KeyScope::Topics).await.expect("read");
    for key in inserted {
        assert!(Some(key.expect("insert")) == standing);
    }
}

fn epoch_key(tenant: TenantId, epoch: u32, fill: u8) -> WrappedEpochKey {
    let wrapped = Bytes::from(vec![fill; 60]);
    WrappedEpochKey { tenant, epoch: Epoch(epoch), wrapped, commitment: [fill; 32] }
}

fn data_key(tenant: TenantId, scope: KeyScope, epoch: u32, fill: u8) -> WrappedDataKey {
    WrappedDataKey {
        id: KeyId(Uuid::new_v4()),
        tenant,
        scope,
        epoch: Epoch(epoch),
        wrapped: Bytes::from(vec![fill; 60]),
        commitment: [fill; 32],
    }
}
