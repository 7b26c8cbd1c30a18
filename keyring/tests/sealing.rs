//! What is sealed opens in its place, and nowhere else.

mod common;

use common::{ALICE, BOB, OTHER_TENANT, TENANT, World, topic};
use proptest::prelude::*;
use sotto_keyring::limits::PLAINTEXT_BYTES_MAX;
use sotto_keyring::sealed::SEALED_OVERHEAD_BYTES;
use sotto_keyring::{KeyScope, OpenError, Place, SealError};
use sotto_model::{MessageId, TopicName};
use uuid::Uuid;

#[tokio::test]
async fn a_message_opens_in_its_place() {
    let world = World::new();
    let sealed = world.seal(1, b"diagnosis", world.start).await;
    assert_eq!(sealed.bytes().len(), b"diagnosis".len() + SEALED_OVERHEAD_BYTES);
    assert!(!sealed.bytes().windows(9).any(|window| window == b"diagnosis"));
    let opened = world.keyring.open(&sealed.place(), sealed.bytes(), world.start);
    assert_eq!(opened.as_deref(), Ok(b"diagnosis".as_slice()));
}

#[tokio::test]
async fn parts_are_sealed_as_one_message() {
    let world = World::new();
    world.seal(1, b"", world.start).await;
    let permit = world.permit(TENANT, ALICE, &topic(1));
    let parts: &[&[u8]] = &[b"one ", b"", b"message"];
    let sealed = world.keyring.seal(permit, MessageId(Uuid::new_v4()), parts, world.start);
    let sealed = sealed.map_err(|(_, error)| error).expect("seal");
    let opened = world.keyring.open(&sealed.place(), sealed.bytes(), world.start);
    assert_eq!(opened.as_deref(), Ok(b"one message".as_slice()));
}

#[tokio::test]
async fn a_message_does_not_open_in_any_other_place() {
    let world = World::new();
    let sealed = world.seal(1, b"diagnosis", world.start).await;
    world.seal(2, b"", world.start).await;
    let other_topic = topic(2);
    let same_conversation = TopicName::parse(&format!("{}x", topic(1).as_str())).expect("topic");
    let here = sealed.place();
    for place in [
        Place { tenant: OTHER_TENANT, ..here },
        Place { topic: &other_topic, ..here },
        Place { topic: &same_conversation, ..here },
        Place { sender: BOB, ..here },
        Place { message_id: MessageId(Uuid::new_v4()), ..here },
    ] {
        let opened = world.keyring.open(&place, sealed.bytes(), world.start);
        assert_eq!(opened, Err(OpenError::Misplaced));
    }
}

#[tokio::test]
async fn a_message_does_not_open_under_the_key_of_another_scope_or_epoch() {
    let world = World::new();
    let sealed = world.seal(1, b"diagnosis", world.start).await;
    let of_another_conversation = world.seal(2, b"", world.start).await;
    world.keyring.rotate(TENANT, world.start).await.expect("rotate");
    let of_another_epoch = world.seal(1, b"", world.start).await;
    let secret = world
        .keyring
        .seal_secret(TENANT, sotto_keyring::SecretPurpose::PushToken, Uuid::nil(), b"token", world.start)
        .await
        .expect("seal");
    for other in [of_another_conversation.bytes(), of_another_epoch.bytes(), &secret] {
        let mut exchanged = sealed.bytes().to_vec();
        exchanged[1..17].copy_from_slice(&other[1..17]);
        let opened = world.keyring.open(&sealed.place(), &exchanged, world.start);
        assert_eq!(opened, Err(OpenError::Misplaced));
    }
}

#[tokio::test]
async fn a_wrong_epoch_in_the_row_of_a_key_is_noticed() {
    let world = World::new();
    let sealed = world.seal(1, b"diagnosis", world.start).await;
    world.keyring.rotate(TENANT, world.start).await.expect("rotate");
    world.store.data_keys.lock()[0].epoch = sotto_keyring::Epoch(2);
    let elsewhere = world.another_process();
    let Err(OpenError::KeyCold(request)) = elsewhere.open(&sealed.place(), sealed.bytes(), world.start)
    else {
        panic!("another process holds no key")
    };
    assert!(elsewhere.warm(request, world.start).await.is_err());
}

#[tokio::test]
async fn every_flipped_bit_is_noticed() {
    let world = World::new();
    let sealed = world.seal(1, b"diagnosis", world.start).await;
    for bit in 0..sealed.bytes().len() * 8 {
        let mut flipped = sealed.bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(world.keyring.open(&sealed.place(), &flipped, world.start).is_err(), "bit {bit}");
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_and_the_permit_comes_back() {
    let world = World::new();
    world.seal(1, b"", world.start).await;
    let message_id = MessageId(Uuid::new_v4());
    let permit = world.permit(TENANT, ALICE, &topic(1));
    let (half, rest) = (vec![0; PLAINTEXT_BYTES_MAX / 2], vec![0; PLAINTEXT_BYTES_MAX / 2 + 1]);
    let Err((permit, error)) = world.keyring.seal(permit, message_id, &[&half, &rest], world.start) else {
        panic!("sealed")
    };
    assert_eq!(error, SealError::TooLong);
    let sealed = world.keyring.seal(permit, message_id, &[&half, &rest[1..]], world.start);
    assert!(sealed.is_ok());
}

#[tokio::test]
async fn an_inbox_is_sealed_under_the_tenant_s_key_for_other_topics() {
    let world = World::new();
    let inbox = TopicName::parse(&format!("u/{BOB}/x")).expect("topic");
    let (message_id, permit) = (MessageId(Uuid::new_v4()), world.permit(TENANT, ALICE, &inbox));
    let Err((permit, SealError::KeyCold(request))) =
        world.keyring.seal(permit, message_id, &[b"x"], world.start)
    else {
        panic!("no key is held yet")
    };
    world.keyring.warm(request, world.start).await.expect("warm");
    assert!(world.keyring.seal(permit, message_id, &[b"x"], world.start).is_ok());
    assert_eq!(world.store.data_keys.lock()[0].scope, KeyScope::Topics);
}

proptest! {
    #[test]
    fn no_bytes_make_opening_panic(version in 0..3_u8, rest in prop::collection::vec(any::<u8>(), 0..100)) {
        let world = World::new();
        let topic = topic(1);
        let place =
            Place { tenant: TENANT, topic: &topic, sender: ALICE, message_id: MessageId(Uuid::nil()) };
        let bytes = [&[version], rest.as_slice()].concat();
        let opened = world.keyring.open(&place, &bytes, world.start);
        if version == 1 && bytes.len() >= SEALED_OVERHEAD_BYTES {
            prop_assert!(matches!(opened, Err(OpenError::KeyCold(_))));
        } else {
            prop_assert_eq!(opened, Err(OpenError::Format));
        }
    }
}
