//! How keys come, go and change.

mod common;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{ALICE, OTHER_TENANT, TENANT, World, conversation, topic};
use sotto_keyring::limits::{FETCH_RETRY_AFTER, KEY_AGE_MAX};
use sotto_keyring::{
    Epoch, KeyRequest, KeyStore, KeyUnavailable, Keyring, KeyringLimits, KmsError, OpenError, SealError,
    Sealed, SecretError, SecretPurpose,
};
use sotto_model::MessageId;
use uuid::Uuid;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn cold(world: &World, keyring: &Keyring, number: u128, now: Instant) -> Option<KeyRequest> {
    let permit = world.permit(TENANT, ALICE, &topic(number));
    match keyring.seal(permit, MessageId(Uuid::new_v4()), &[b"x"], now) {
        Ok(_) => None,
        Err((_, SealError::KeyCold(request))) => Some(request),
        Err((_, error)) => panic!("{error}"),
    }
}

fn cold_to_open(keyring: &Keyring, sealed: &Sealed, now: Instant) -> KeyRequest {
    match keyring.open(&sealed.place(), sealed.bytes(), now) {
        Err(OpenError::KeyCold(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_process_opens_what_was_sealed_once_it_has_fetched_the_key() {
    let world = World::new();
    let sealed = world.seal(1, b"diagnosis", world.start).await;
    let other = world.another_process();
    let request = cold_to_open(&other, &sealed, world.start);
    other.warm(request, world.start).await.expect("warm");
    let opened = other.open(&sealed.place(), sealed.bytes(), world.start);
    assert_eq!(opened.as_deref(), Ok(b"diagnosis".as_slice()));
}

#[tokio::test]
async fn each_conversation_has_a_key_of_its_own_and_a_tenant_one_epoch_key() {
    let world = World::new();
    for number in 0..20 {
        world.seal(number, b"x", world.start).await;
    }
    assert_eq!(world.store.data_keys.lock().len(), 20);
    assert_eq!(world.store.epoch_keys.lock().len(), 1);
    assert_eq!(world.kms.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_asks_for_one_key_together_waits_for_one_fetch() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    let other = world.another_process();
    let request = cold_to_open(&other, &sealed, world.start);
    world.kms.calls.store(0, Ordering::SeqCst);
    let start = world.start;
    let waiters = (0..100).map(|_| {
        let keyring = other.clone();
        tokio::spawn(async move { keyring.warm(request, start).await })
    });
    for waiter in futures::future::join_all(waiters).await {
        waiter.expect("no panic").expect("warm");
    }
    assert_eq!(world.kms.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn many_cold_conversations_of_a_tenant_ask_the_key_service_once() {
    let world = World::new();
    let mut requests = Vec::new();
    for number in 0..50 {
        requests.push(cold(&world, &world.keyring, number, world.start).expect("cold"));
    }
    let fetches = requests.into_iter().map(|request| world.keyring.warm(request, world.start));
    for fetched in futures::future::join_all(fetches).await {
        fetched.expect("warm");
    }
    assert_eq!(world.kms.calls.load(Ordering::SeqCst), 1);
    assert_eq!(world.store.data_keys.lock().len(), 50);
}

#[tokio::test]
async fn two_processes_that_make_a_key_at_once_agree_on_the_first() {
    let world = World::new();
    let other = world.another_process();
    let (one, two) = (
        cold(&world, &world.keyring, 1, world.start).expect("cold"),
        cold(&world, &other, 1, world.start).expect("cold"),
    );
    let (one, two) =
        futures::future::join(world.keyring.warm(one, world.start), other.warm(two, world.start)).await;
    one.expect("warm");
    two.expect("warm");
    assert_eq!((world.store.epoch_keys.lock().len(), world.store.data_keys.lock().len()), (1, 1));
    let sealed = world.seal_with(&other, 1, b"x", world.start).await;
    assert!(world.keyring.open(&sealed.place(), sealed.bytes(), world.start).is_ok());
}

#[tokio::test]
async fn a_disabled_key_opens_nothing_once_the_greatest_age_is_past() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    *world.kms.fails_with.lock() = Some(KmsError::Disabled);
    // A data key fetched late rests on the same answer of the key service, so it gains no time.
    let late = world.start + seconds(200);
    world.seal(2, b"x", late).await;
    let last = world.start + KEY_AGE_MAX;
    assert!(world.keyring.open(&sealed.place(), sealed.bytes(), last).is_ok());
    assert!(cold(&world, &world.keyring, 2, last).is_none());

    let after = last + seconds(1);
    let request = cold_to_open(&world.keyring, &sealed, after);
    assert!(matches!(world.keyring.warm(request, after).await, Err(KeyUnavailable::Kms(KmsError::Disabled))));
    assert!(cold(&world, &world.keyring, 2, after).is_some());
}

#[tokio::test]
async fn a_forgotten_tenant_opens_nothing_at_once() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    *world.kms.fails_with.lock() = Some(KmsError::Disabled);
    world.keyring.forget_tenant(OTHER_TENANT);
    assert!(world.keyring.open(&sealed.place(), sealed.bytes(), world.start).is_ok());
    world.keyring.forget_tenant(TENANT);
    let request = cold_to_open(&world.keyring, &sealed, world.start);
    assert!(world.keyring.warm(request, world.start).await.is_err());
    assert!(cold(&world, &world.keyring, 1, world.start).is_some());
}

#[tokio::test]
async fn what_is_in_use_is_refreshed_before_anybody_waits() {
    let world = World::new();
    world.seal(1, b"x", world.start).await;
    world.seal(2, b"x", world.start).await;
    assert!(cold(&world, &world.keyring, 1, world.start + seconds(100)).is_none());
    assert!(world.keyring.refresh_due(world.start + seconds(239)).is_empty());

    let due_at = world.start + seconds(240);
    let due = world.keyring.refresh_due(due_at);
    // The epoch key and the key of conversation 1; that of conversation 2 is not in use.
    assert_eq!(due.len(), 2);
    for request in due {
        world.keyring.warm(request, due_at).await.expect("warm");
    }
    assert!(world.keyring.refresh_due(due_at).is_empty());
    let later = world.start + KEY_AGE_MAX + seconds(1);
    assert!(cold(&world, &world.keyring, 1, later).is_none());
    assert!(cold(&world, &world.keyring, 2, later).is_some());
    assert_eq!(world.kms.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_key_service_that_is_down_during_refresh_costs_nothing_until_the_greatest_age() {
    let world = World::new();
    world.seal(1, b"x", world.start).await;
    assert!(cold(&world, &world.keyring, 1, world.start + seconds(1)).is_none());
    *world.kms.fails_with.lock() = Some(KmsError::Unavailable);
    let due_at = world.start + seconds(240);
    let mut refused = 0;
    for request in world.keyring.refresh_due(due_at) {
        refused += u32::from(world.keyring.warm(request, due_at).await.is_err());
    }
    assert_eq!(refused, 1);
    assert!(cold(&world, &world.keyring, 1, world.start + KEY_AGE_MAX).is_none());
    assert!(cold(&world, &world.keyring, 1, world.start + KEY_AGE_MAX + seconds(1)).is_some());
}

#[tokio::test]
async fn a_failed_fetch_is_not_repeated_at_once() {
    let world = World::new();
    let request = cold(&world, &world.keyring, 1, world.start).expect("cold");
    *world.kms.fails_with.lock() = Some(KmsError::Throttled);
    for _ in 0..10 {
        let failed = world.keyring.warm(request, world.start).await;
        assert!(matches!(failed, Err(KeyUnavailable::Kms(KmsError::Throttled))));
    }
    assert_eq!(world.kms.calls.load(Ordering::SeqCst), 1);
    *world.kms.fails_with.lock() = None;
    world.keyring.warm(request, world.start + FETCH_RETRY_AFTER).await.expect("warm");
}

#[tokio::test]
async fn a_key_is_unwrapped_again_after_so_many_seals() {
    let world = World::with(KeyringLimits { seals_per_load_max: 3, ..KeyringLimits::default() });
    for _ in 0..3 {
        world.seal(1, b"x", world.start).await;
    }
    let request = cold(&world, &world.keyring, 1, world.start).expect("three seals are spent");
    world.keyring.warm(request, world.start).await.expect("warm");
    assert!(cold(&world, &world.keyring, 1, world.start).is_none());
    assert_eq!(world.store.data_keys.lock().len(), 1);
}

#[tokio::test]
async fn no_nonce_repeats_whatever_is_fetched_again_restarted_or_restored() {
    let world = World::with(KeyringLimits { seals_per_load_max: 7, ..KeyringLimits::default() });
    let mut seen = HashSet::new();
    let mut now = world.start;
    for step in 0..200_u64 {
        // The store is as it was all along: what a restored backup looks like to a new process.
        let sealed = if step % 3 == 0 {
            world.seal_with(&world.another_process(), 1, b"x", now).await
        } else {
            world.seal(1, b"x", now).await
        };
        assert!(seen.insert(sealed.bytes()[1..29].to_vec()), "key and nonce repeat at step {step}");
        now += seconds(step % 5 * 30);
    }
    assert_eq!(world.store.data_keys.lock().len(), 1);
}

#[tokio::test]
async fn the_cache_holds_a_bounded_number_and_keeps_what_is_in_use() {
    let world = World::with(KeyringLimits { cached_keys_max: 16, ..KeyringLimits::default() });
    let mut now = world.start;
    for number in 0..100 {
        now += Duration::from_millis(1);
        world.seal(number, b"x", now).await;
        assert!(cold(&world, &world.keyring, 0, now).is_none(), "in use at {number}");
    }
    let held = (0..100).filter(|number| cold(&world, &world.keyring, *number, now).is_none()).count();
    assert!((8..=16).contains(&held), "{held}");
}

#[tokio::test]
async fn after_a_rotation_new_messages_take_new_keys_and_old_ones_open() {
    let world = World::new();
    let old = world.seal(1, b"old", world.start).await;
    assert_eq!(world.keyring.rotate(TENANT, world.start).await.expect("rotate"), Epoch(2));
    let new = world.seal(1, b"new", world.start).await;
    assert_ne!(old.bytes()[1..17], new.bytes()[1..17]);
    for (sealed, plaintext) in [(&old, b"old"), (&new, b"new")] {
        let opened = world.keyring.open(&sealed.place(), sealed.bytes(), world.start);
        assert_eq!(opened.as_deref(), Ok(plaintext.as_slice()));
    }
    let rows = world.store.data_keys.lock().clone();
    assert_eq!(rows.iter().map(|row| row.epoch).collect::<Vec<_>>(), [Epoch(1), Epoch(2)]);
}

#[tokio::test]
async fn another_node_follows_a_rotation_within_the_greatest_age() {
    let world = World::new();
    let other = world.another_process();
    world.seal_with(&other, 1, b"x", world.start).await;
    world.keyring.rotate(TENANT, world.start).await.expect("rotate");
    let sealed = world.seal_with(&other, 1, b"x", world.start + KEY_AGE_MAX + seconds(1)).await;
    let id = Uuid::from_slice(&sealed.bytes()[1..17]).expect("key id");
    let row = world.store.data_key(sotto_keyring::KeyId(id)).await.expect("store").expect("row");
    assert_eq!(row.epoch, Epoch(2));
}

#[tokio::test]
async fn rewrapped_epoch_keys_open_what_was_sealed_before() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    world.keyring.rotate(TENANT, world.start).await.expect("rotate");
    let before = world.store.epoch_keys.lock().clone();
    assert_eq!(world.keyring.rewrap(TENANT).await.expect("rewrap"), 2);
    let after = world.store.epoch_keys.lock().clone();
    assert!(before.iter().zip(&after).all(|(before, after)| before.wrapped != after.wrapped));
    let other = world.another_process();
    other.warm(cold_to_open(&other, &sealed, world.start), world.start).await.expect("warm");
    assert!(other.open(&sealed.place(), sealed.bytes(), world.start).is_ok());
}

#[tokio::test]
async fn a_key_that_is_not_the_one_committed_to_is_refused() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    world.store.data_keys.lock()[0].commitment[0] ^= 1;
    let other = world.another_process();
    let request = cold_to_open(&other, &sealed, world.start);
    assert!(matches!(other.warm(request, world.start).await, Err(KeyUnavailable::Inconsistent)));
    world.store.data_keys.lock()[0].commitment[0] ^= 1;
    world.store.epoch_keys.lock()[0].commitment[31] ^= 1;
    let other = world.another_process();
    assert!(matches!(other.warm(request, world.start).await, Err(KeyUnavailable::Inconsistent)));
}

#[tokio::test]
async fn the_row_of_a_key_that_was_moved_is_refused() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    let other = world.another_process();
    let request = cold_to_open(&other, &sealed, world.start);
    let row = world.store.data_keys.lock()[0].clone();

    world.store.data_keys.lock()[0].tenant = OTHER_TENANT;
    assert!(matches!(other.warm(request, world.start).await, Err(KeyUnavailable::Missing)));

    world.store.data_keys.lock()[0] = row;
    world.store.data_keys.lock()[0].scope = sotto_keyring::KeyScope::Conversation(conversation(9));
    let other = world.another_process();
    assert!(matches!(other.warm(request, world.start).await, Err(KeyUnavailable::Inconsistent)));
}

#[tokio::test]
async fn a_deleted_key_opens_nothing_in_a_new_process() {
    let world = World::new();
    let sealed = world.seal(1, b"x", world.start).await;
    world.store.data_keys.lock().clear();
    let other = world.another_process();
    let request = cold_to_open(&other, &sealed, world.start);
    assert!(matches!(other.warm(request, world.start).await, Err(KeyUnavailable::Missing)));
}

#[tokio::test]
async fn a_secret_opens_for_its_row_only() {
    let world = World::new();
    let (keyring, now, push) = (&world.keyring, world.start, SecretPurpose::PushToken);
    let (row, other_row) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let sealed = keyring.seal_secret(TENANT, push, row, b"https://push", now).await.expect("seal");
    let opened = world.another_process().open_secret(TENANT, push, row, &sealed, now).await.expect("open");
    assert_eq!(opened.as_slice(), b"https://push");

    let elsewhere = keyring.open_secret(TENANT, push, other_row, &sealed, now).await;
    assert!(matches!(elsewhere, Err(SecretError::Misplaced)));
    let elsewhere = keyring.open_secret(OTHER_TENANT, push, row, &sealed, now).await;
    assert!(matches!(elsewhere, Err(SecretError::Misplaced)));
    let message = world.seal(1, b"x", now).await;
    let elsewhere = keyring.open_secret(TENANT, push, row, message.bytes(), now).await;
    assert!(matches!(elsewhere, Err(SecretError::Misplaced)));
    assert!(matches!(keyring.open_secret(TENANT, push, row, b"", now).await, Err(SecretError::Misplaced)));
}

#[tokio::test]
async fn the_hash_of_a_secret_stays_the_same_across_processes_and_rotations() {
    let world = World::new();
    let (now, push) = (world.start, SecretPurpose::PushToken);
    let hash = world.keyring.lookup_hash(TENANT, push, b"token", now).await.expect("hash");
    world.keyring.rotate(TENANT, now).await.expect("rotate");
    for keyring in [world.keyring.clone(), world.another_process()] {
        assert_eq!(keyring.lookup_hash(TENANT, push, b"token", now).await.expect("hash"), hash);
        assert_ne!(keyring.lookup_hash(TENANT, push, b"Token", now).await.expect("hash"), hash);
        assert_ne!(keyring.lookup_hash(OTHER_TENANT, push, b"token", now).await.expect("hash"), hash);
    }
}
