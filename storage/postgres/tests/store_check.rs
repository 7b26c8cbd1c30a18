//! Damage of every kind, made behind the store's back, is found and named.

use std::sync::Arc;

use sotto_postgres::testing::TestDatabase;
use sotto_postgres::{OpenError, PostgresStore};
use sotto_storage::conformance::whole_store::{ROOT_KEY, check, findings, populate};
use sotto_storage::conformance::{Fixture, Fresh};
use sotto_storage::directory::Directory;
use sotto_storage::message_log::MessageLog;
use sotto_storage::store_check::FindingKind::*;
use sotto_storage::store_check::{Extent, FindingKind};
use sqlx::{Connection, Executor, PgConnection};

/// A database with something of everything.
async fn populated() -> (Arc<TestDatabase>, Fixture) {
    let database = Arc::new(TestDatabase::create().await);
    let keep = Box::new(Arc::clone(&database));
    let fixture = Fixture::new(Fresh { store: Arc::new(database.store().await), keep }).await;
    populate(&fixture).await;
    (database, fixture)
}

async fn to_check(database: &TestDatabase) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect_to_check(database.url()).await.expect("open to check"))
}

async fn found_after(damage: &str) -> Vec<(FindingKind, u64)> {
    let (database, _fixture) = populated().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    // Foreign keys and triggers are asleep.
    connection.execute("SET session_replication_role = replica").await.expect("a superuser");
    connection.execute(damage).await.expect("damage");
    findings(to_check(&database).await).await
}

macro_rules! damages {
    ($($name:ident: $damage:expr => [$($kind:expr),+];)+) => {$(
        #[tokio::test]
        async fn $name() {
            assert_eq!(found_after($damage).await, [$($kind),+]);
        }
    )+};
}

damages! {
    a_counter_behind_its_log_is_found:
        "DELETE FROM outbox; UPDATE counters SET head = head - 1 WHERE tenant_id = (SELECT tenant_id FROM tenants \
         WHERE name = 'clinic')" => [(MessageAboveHead, 1)];
    a_tenant_without_a_counter_is_found:
        "INSERT INTO tenants (tenant_id, name, topic_policy, created_at_ms) \
         VALUES (gen_random_uuid(), 'other', 1, 0)" => [(TenantWithoutCounter, 1)];
    a_counter_ahead_of_the_writer_is_found:
        "UPDATE counters SET batch_number = 1000" => [(LastBatch, 1)];
    // Each week sees to its own offsets, and the counters to those of all.
    an_offset_given_twice_is_found:
        "DELETE FROM outbox; SELECT sotto_ensure_week(1700000000000); \
         UPDATE messages SET log_offset = 3, committed_at_ms = 1700000000000 WHERE log_offset = 4"
            => [(OffsetTwice, 1)];
    an_offset_below_one_is_found:
        "DELETE FROM outbox; UPDATE messages SET log_offset = 0 WHERE log_offset = 4" => [(OffsetBelowOne, 1)];
    a_message_of_an_unknown_qos_is_found:
        "UPDATE messages SET qos = 3 WHERE log_offset = 4" => [(MessageQos, 1)];
    a_log_of_no_tenant_is_found:
        "DELETE FROM outbox; UPDATE messages SET tenant_id = gen_random_uuid() WHERE log_offset = 4"
            => [(LogOfNoTenant, 1), (MessageAboveHead, 1), (MessageOfForeignTopic, 1), (MessageMisplaced, 1)];
    a_message_of_no_topic_is_found:
        "DELETE FROM outbox; UPDATE messages SET topic_id = 999 WHERE log_offset = 4" => [(MessageOfNoTopic, 1)];
    a_message_moved_to_another_topic_does_not_open:
        "INSERT INTO topics (tenant_id, name) SELECT tenant_id, 'x' FROM tenants WHERE name = 'clinic'; \
         DELETE FROM outbox; \
         UPDATE messages SET topic_id = (SELECT topic_id FROM topics WHERE name = 'x') WHERE log_offset = 4"
            => [(MessageMisplaced, 1)];
    a_message_moved_to_another_tenant_does_not_open:
        "DELETE FROM outbox; UPDATE counters SET head = 4; \
         UPDATE messages SET tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'lab'), topic_id = \
             (SELECT topic_id FROM topics WHERE name = 'machines/1') WHERE log_offset = 4; \
         UPDATE messages SET log_offset = 4 WHERE log_offset = 5; UPDATE counters SET batch_number = 0"
            => [(MessageMisplaced, 1)];
    a_message_under_another_id_does_not_open:
        "UPDATE messages SET message_id = gen_random_uuid() WHERE log_offset = 4" => [(MessageMisplaced, 1)];
    a_message_of_another_sender_does_not_open:
        "UPDATE messages SET sender_id = gen_random_uuid() WHERE log_offset = 4" => [(MessageMisplaced, 1)];
    a_flipped_bit_in_a_message_is_found:
        "UPDATE messages SET sealed = set_byte(sealed, 35, get_byte(sealed, 35) # 1) WHERE log_offset = 4"
            => [(MessageMisplaced, 1)];
    messages_whose_key_is_gone_are_told_from_damaged_ones:
        "DELETE FROM data_keys WHERE scope_kind = 1" => [(MessageWithoutKey, 5), (WillWithoutKey, 1)];
    a_log_that_begins_after_its_end_is_found:
        "UPDATE counters SET start = 6" => [(LogStart, 2)];
    a_topic_of_no_tenant_is_found:
        "INSERT INTO topics (tenant_id, name) VALUES (gen_random_uuid(), 'x')" => [(TopicOfNoTenant, 1)];
    a_topic_that_is_none_is_found:
        "INSERT INTO topics (tenant_id, name) SELECT tenant_id, 'a/#' FROM tenants WHERE name = 'lab'"
            => [(TopicName, 1)];
    a_topic_filed_under_another_conversation_is_found:
        "UPDATE topics SET conversation_id = gen_random_uuid() WHERE conversation_id IS NOT NULL"
            => [(TopicMisfiled, 1)];
    a_session_of_no_tenant_is_found:
        "INSERT INTO sessions (tenant_id, client_id, user_id, generation, connected, cursor_offset, inflight, \
         expiry_seconds) VALUES (gen_random_uuid(), 'x', '00000000-0000-0000-0000-000000000000', 1, false, 0, '', 1)"
            => [(SessionOfNoTenant, 1)];
    a_session_of_no_user_or_device_is_found:
        "UPDATE sessions SET user_id = gen_random_uuid() WHERE client_id = 'bob/phone'; \
         UPDATE sessions SET device_id = gen_random_uuid() WHERE client_id = 'carol/phone'"
            => [(SessionOfNoUser, 1), (SessionOfNoDevice, 1)];
    a_cursor_above_the_head_is_found:
        "UPDATE sessions SET cursor_offset = 6" => [(CursorOutOfRange, 2)];
    what_is_in_flight_above_the_head_is_found:
        "UPDATE sessions SET inflight = '\\x0001000000000000000601'::bytea WHERE client_id = 'bob/phone'"
            => [(InflightOutOfRange, 1)];
    a_packet_identifier_in_flight_twice_is_found:
        "UPDATE sessions SET inflight = inflight || inflight WHERE client_id = 'bob/phone'"
            => [(InflightPacketIdTwice, 1)];
    what_is_in_flight_and_cannot_be_read_is_found:
        "UPDATE sessions SET inflight = '\\x00'::bytea WHERE client_id = 'bob/phone'"
            => [(InflightUnreadable, 1)];
    a_subscription_that_is_none_is_found:
        "UPDATE subscriptions SET options = 3" => [(SubscriptionUnreadable, 1)];
    a_subscription_from_the_future_is_found:
        "UPDATE subscriptions SET since_offset = 6" => [(SubscriptionOutOfRange, 1)];
    a_subscription_of_no_session_is_found:
        "UPDATE subscriptions SET session_id = 999" => [(SubscriptionOfNoSession, 1)];
    a_received_packet_identifier_of_no_session_is_found:
        "UPDATE exactly_once_received SET session_id = 999" => [(ReceivedOfNoSession, 1)];
    a_received_packet_identifier_of_zero_is_found:
        "UPDATE exactly_once_received SET packet_id = 0" => [(ReceivedPacketId, 1)];
    a_membership_from_the_future_is_found:
        "UPDATE memberships SET since_offset = 6" => [(MembershipOutOfRange, 3)];
    a_membership_of_no_conversation_is_found:
        "DELETE FROM conversations" => [(MembershipDangling, 3)];
    an_outbox_row_of_no_topic_is_found:
        "INSERT INTO outbox (base_offset, ordinals, topic_ids, sender_ids, expiries_ms, committed_at_ms, urgency) \
         VALUES (0, '{1}', '{999}', ARRAY[gen_random_uuid()], '{NULL}', 0, 2)" => [(OutboxOfNoTopic, 1)];
    an_outbox_row_that_lacks_a_place_is_found:
        "UPDATE outbox SET ordinals = ARRAY[]::integer[] WHERE base_offset + ordinals[1] = 4"
            => [(OutboxOutOfRange, 1)];
    an_outbox_row_of_no_message_is_found:
        "DELETE FROM messages WHERE log_offset = 4" => [(OutboxOfNoMessage, 1)];
    an_outbox_row_of_another_topic_is_found:
        "INSERT INTO topics (tenant_id, name) SELECT tenant_id, 'x' FROM tenants WHERE name = 'clinic'; \
         UPDATE outbox SET topic_ids[1] = (SELECT topic_id FROM topics WHERE name = 'x') \
         WHERE base_offset + ordinals[1] = 4"
            => [(OutboxMismatch, 1)];
    an_outbox_row_above_the_head_is_found:
        "UPDATE outbox SET base_offset = base_offset + 2 WHERE base_offset + ordinals[1] = 4" => [(OutboxOutOfRange, 1)];
    a_retained_copy_of_no_topic_is_found:
        "UPDATE retained SET topic_id = 999" => [(RetainedOfNoTopic, 1)];
    a_retained_copy_under_another_name_is_found:
        "UPDATE retained SET name = 'x'" => [(RetainedMisnamed, 1), (RetainedMisplaced, 1)];
    a_retained_copy_of_another_message_is_found:
        "UPDATE messages SET message_id = gen_random_uuid() WHERE retain"
            => [(MessageMisplaced, 1), (RetainedDiffers, 1)];
    a_retained_copy_above_the_head_is_found:
        "UPDATE retained SET log_offset = 6" => [(RetainedOutOfRange, 1)];
    a_will_of_no_tenant_is_found:
        "UPDATE wills SET tenant_id = gen_random_uuid()" => [(WillOfNoTenant, 1)];
    a_will_of_no_session_is_found:
        "UPDATE wills SET session_id = 999" => [(WillOfNoSession, 1)];
    a_will_moved_to_another_topic_does_not_open:
        "UPDATE wills SET topic = 'x'" => [(WillMisplaced, 1)];
    a_push_registration_of_no_device_is_found:
        "UPDATE push_registrations SET device_id = gen_random_uuid(); \
         UPDATE wakes SET device_id = (SELECT device_id FROM push_registrations)"
            => [(RegistrationDangling, 1), (PushTokenMisplaced, 1)];
    a_push_token_whose_key_is_gone_is_found:
        "DELETE FROM data_keys WHERE scope_kind = 3" => [(PushTokenWithoutKey, 1)];
    a_wakeup_of_no_registration_is_found:
        "UPDATE wakes SET device_id = gen_random_uuid()" => [(WakeDangling, 1)];
    a_wakeup_in_another_lane_than_its_registration_is_found:
        "UPDATE wakes SET app = 'x'" => [(WakeMisfiled, 1)];
    an_epoch_key_of_no_tenant_is_found:
        "INSERT INTO epoch_keys SELECT gen_random_uuid(), epoch, wrapped, commitment FROM epoch_keys LIMIT 1"
            => [(EpochKeyOfNoTenant, 1), (EpochKeyDamaged, 1)];
    one_epoch_key_that_does_not_open_is_told_from_a_wrong_root_key:
        "UPDATE epoch_keys SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) \
         WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'lab')"
            => [(MessageWithoutKey, 1), (RetainedWithoutKey, 1), (EpochKeyDamaged, 1)];
    a_data_key_of_no_epoch_key_is_found:
        "UPDATE data_keys SET epoch = 9 WHERE scope_kind = 3"
            => [(PushTokenWithoutKey, 1), (DataKeyOfNoEpochKey, 1)];
    a_data_key_that_does_not_open_is_found:
        "UPDATE data_keys SET commitment = set_byte(commitment, 0, get_byte(commitment, 0) # 1) \
         WHERE scope_kind = 3" => [(PushTokenWithoutKey, 1), (DataKeyDamaged, 1)];
}

#[tokio::test]
async fn a_whole_store_passes_with_all_of_it_opened() {
    let (database, _fixture) = populated().await;
    for extent in [Extent::All, Extent::Sample(3)] {
        let report = check(to_check(&database).await, ROOT_KEY, extent).await.expect("checked");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let opened = report.opened;
        assert_eq!((opened.messages, opened.retained, opened.wills, opened.push_tokens), (6, 1, 1, 1));
        assert_eq!((opened.epoch_keys, opened.data_keys), (2, 3));
        assert!(report.counts.contains(&("messages", 6)), "{:?}", report.counts);
    }
}

#[tokio::test]
async fn another_store_s_root_key_is_told_in_one_finding() {
    let (database, _fixture) = populated().await;
    let report = check(to_check(&database).await, [8; 32], Extent::All).await.expect("checked");
    let kinds: Vec<_> = report.findings.iter().map(|(kind, count, _)| (kind, count)).collect();
    assert_eq!(kinds, [(WrongRootKey, 1)]);
}

#[tokio::test]
async fn a_store_under_load_passes_and_is_not_changed() {
    let (database, fixture) = populated().await;
    let ward = fixture.ward_topic();
    let load = async {
        for _ in 0..300 {
            fixture.publish(&fixture.alice, &ward).await;
        }
    };
    let checks = async {
        for _ in 0..5 {
            assert_eq!(findings(to_check(&database).await).await, []);
        }
    };
    tokio::join!(load, checks);
}

#[tokio::test]
async fn what_is_opened_to_be_checked_cannot_be_changed() {
    let (database, fixture) = populated().await;
    let store = to_check(&database).await;
    assert!(store.claim_writer().await.is_err());
    assert!(store.remove_user(fixture.clinic, fixture.bob.user, sotto_model::UnixMillis(0)).await.is_err());
    assert_eq!(findings(store).await, []);
}

#[tokio::test]
async fn a_schema_that_is_not_this_program_s_is_not_checked() {
    let database = TestDatabase::empty().await;
    let refused = PostgresStore::connect_to_check(database.url()).await;
    assert!(matches!(refused, Err(OpenError::OlderSchema { found: 0, .. })));
    drop(database.store().await);
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    connection
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of the future', true, '', 0)",
        )
        .await
        .expect("insert");
    let refused = PostgresStore::connect_to_check(database.url()).await;
    assert!(matches!(refused, Err(OpenError::NewerSchema(9999))));
}
