//! Damage of every kind, made behind the store's back, is found and named.

use std::path::Path;
use std::sync::Arc;

use sotto_sqlite::{OpenError, SqliteStore};
use sotto_storage::conformance::whole_store::{ROOT_KEY, check, findings, populate};
use sotto_storage::conformance::{Fixture, Fresh};
use sotto_storage::directory::Directory;
use sotto_storage::store_check::FindingKind::*;
use sotto_storage::store_check::{Extent, FindingKind};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;

/// A database with something of everything.
async fn populated() -> (Arc<TempDir>, Arc<SqliteStore>, Fixture) {
    let folder = Arc::new(tempfile::tempdir().expect("temporary folder"));
    let store = Arc::new(SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open"));
    let fixture = Fixture::new(Fresh { store: store.clone(), keep: Box::new(folder.clone()) }).await;
    populate(&fixture).await;
    (folder, store, fixture)
}

async fn to_check(folder: &TempDir) -> Arc<SqliteStore> {
    let path = folder.path().join("sotto.db");
    Arc::new(SqliteStore::open_to_check(&path).await.expect("open to check"))
}

async fn execute(path: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(path).foreign_keys(false);
    let mut connection = options.connect().await.expect("connect");
    connection.execute(sql).await.expect("execute");
    connection.close().await.expect("close");
}

async fn found_after(damage: &str) -> Vec<(FindingKind, u64)> {
    let (folder, _store, _fixture) = populated().await;
    execute(&folder.path().join("sotto.db"), damage).await;
    findings(to_check(&folder).await).await
}

macro_rules! damages {
    ($($name:ident: $damage:expr => [$($kind:expr),+];)+) => {$(
        #[tokio::test]
        async fn $name() {
            assert_eq!(found_after($damage).await, [$($kind),+]);
        }
    )+};
}

// An offset cannot be given twice: it is the key of the table. 1 << 44 is 17592186044416; the clinic is tenant 1,
// the lab tenant 2.
damages! {
    an_index_that_does_not_fit_its_table_is_found:
        "PRAGMA writable_schema = ON; \
         UPDATE sqlite_schema SET sql = 'CREATE INDEX messages_by_topic ON messages (qos)' \
         WHERE name = 'messages_by_topic'" => [(DatabaseDamaged, 1)];
    a_counter_behind_its_log_is_found:
        "DELETE FROM outbox; UPDATE log_writer SET offsets = x''; UPDATE counters SET head = head - 1 WHERE tenant_no = 1"
            => [(MessageAboveHead, 1)];
    a_tenant_without_a_counter_is_found:
        "INSERT INTO tenants (tenant_id, name, open_topics) VALUES (randomblob(16), 'other', 0)"
            => [(TenantWithoutCounter, 1)];
    a_last_batch_beyond_every_counter_is_found:
        "UPDATE log_writer SET offsets = x'00000000000003e8'" => [(LastBatch, 1)];
    an_offset_below_one_is_found:
        "DELETE FROM outbox; UPDATE messages SET log_id = 17592186044416 WHERE log_id = 17592186044416 + 4"
            => [(OffsetBelowOne, 1)];
    a_message_of_an_unknown_qos_is_found:
        "UPDATE messages SET qos = 3 WHERE log_id = 17592186044416 + 4" => [(MessageQos, 1)];
    a_log_of_no_tenant_is_found:
        "DELETE FROM outbox; UPDATE messages SET log_id = 9 * 17592186044416 + 4 WHERE log_id = 17592186044416 + 4"
            => [(LogOfNoTenant, 1), (MessageAboveHead, 1), (MessageOfForeignTopic, 1), (MessageMisplaced, 1)];
    a_message_of_no_topic_is_found:
        "DELETE FROM outbox; UPDATE messages SET topic_id = 999 WHERE log_id = 17592186044416 + 4"
            => [(MessageOfNoTopic, 1)];
    a_message_moved_to_another_topic_does_not_open:
        "INSERT INTO topics (topic_id, tenant_no, name, scope_kind) VALUES (999, 1, 'x', 0); \
         UPDATE messages SET topic_id = 999 WHERE log_id = 17592186044416 + 4" => [(MessageMisplaced, 1)];
    a_message_moved_to_another_tenant_does_not_open:
        "DELETE FROM outbox; UPDATE counters SET head = 4 WHERE tenant_no = 2; \
         UPDATE messages SET log_id = 2 * 17592186044416 + 4, topic_id = \
             (SELECT topic_id FROM topics WHERE name = 'machines/1') WHERE log_id = 17592186044416 + 4"
            => [(MessageMisplaced, 1)];
    a_message_under_another_id_does_not_open:
        "UPDATE messages SET message_id = randomblob(16) WHERE log_id = 17592186044416 + 4"
            => [(MessageMisplaced, 1)];
    a_message_of_another_sender_does_not_open:
        "UPDATE messages SET sender = randomblob(16) WHERE log_id = 17592186044416 + 4" => [(MessageMisplaced, 1)];
    a_flipped_byte_in_a_message_is_found:
        "UPDATE messages SET sealed = unhex(substr(hex(sealed), 1, 70) \
             || iif(substr(hex(sealed), 71, 1) = 'A', 'B', 'A') || substr(hex(sealed), 72)) \
         WHERE log_id = 17592186044416 + 4" => [(MessageMisplaced, 1)];
    messages_whose_key_is_gone_are_told_from_damaged_ones:
        "DELETE FROM data_keys WHERE scope_kind = 1" => [(MessageWithoutKey, 5), (WillWithoutKey, 1)];
    a_log_that_begins_after_its_end_is_found:
        "UPDATE counters SET start = 6" => [(LogStart, 2)];
    a_topic_of_no_tenant_is_found:
        "INSERT INTO topics (tenant_no, name, scope_kind) VALUES (9, 'x', 0)"
            => [(ForeignKey, 1), (TopicOfNoTenant, 1)];
    a_topic_that_is_none_is_found:
        "INSERT INTO topics (tenant_no, name, scope_kind) VALUES (2, 'a/#', 0)" => [(TopicName, 1)];
    a_topic_filed_under_another_conversation_is_found:
        "UPDATE topics SET scope_id = randomblob(16) WHERE scope_kind = 1" => [(TopicMisfiled, 1)];
    a_session_of_no_tenant_is_found:
        "INSERT INTO sessions (tenant_no, client_id, user_id, generation, cursor, inflight, connected, expiry_seconds) \
         VALUES (9, 'x', zeroblob(16), 1, 0, x'', 0, 1)" => [(ForeignKey, 1), (SessionOfNoTenant, 1)];
    a_session_of_no_user_or_device_is_found:
        "UPDATE sessions SET user_id = randomblob(16) WHERE client_id = 'bob/phone'; \
         UPDATE sessions SET device_id = randomblob(16) WHERE client_id = 'carol/phone'"
            => [(SessionOfNoUser, 1), (SessionOfNoDevice, 1)];
    a_cursor_above_the_head_is_found: "UPDATE sessions SET cursor = 6" => [(CursorOutOfRange, 2)];
    what_is_in_flight_above_the_head_is_found:
        "UPDATE sessions SET inflight = x'0001000000000000000601' WHERE client_id = 'bob/phone'"
            => [(InflightOutOfRange, 1)];
    a_packet_identifier_in_flight_twice_is_found:
        "UPDATE sessions SET inflight = unhex(hex(inflight) || hex(inflight)) WHERE client_id = 'bob/phone'"
            => [(InflightPacketIdTwice, 1)];
    what_is_in_flight_and_cannot_be_read_is_found:
        "UPDATE sessions SET inflight = x'00' WHERE client_id = 'bob/phone'" => [(InflightUnreadable, 1)];
    a_subscription_that_is_none_is_found:
        "UPDATE subscriptions SET options = 3" => [(SubscriptionUnreadable, 1)];
    a_subscription_from_the_future_is_found:
        "UPDATE subscriptions SET since = 6" => [(SubscriptionOutOfRange, 1)];
    a_subscription_of_no_session_is_found:
        "UPDATE subscriptions SET session_id = 999" => [(ForeignKey, 1), (SubscriptionOfNoSession, 1)];
    a_received_packet_identifier_of_no_session_is_found:
        "UPDATE exactly_once_received SET session_id = 999" => [(ForeignKey, 1), (ReceivedOfNoSession, 1)];
    a_received_packet_identifier_of_zero_is_found:
        "UPDATE exactly_once_received SET packet_id = 0" => [(ReceivedPacketId, 1)];
    a_membership_from_the_future_is_found:
        "UPDATE memberships SET since = 6" => [(MembershipOutOfRange, 3)];
    a_membership_of_no_conversation_is_found:
        "DELETE FROM conversations" => [(ForeignKey, 1), (MembershipDangling, 3)];
    an_outbox_row_of_no_tenant_is_found:
        "INSERT INTO outbox (log_id) VALUES (9 * 17592186044416 + 1)" => [(OutboxOfNoTopic, 1)];
    an_outbox_row_of_no_message_is_found:
        "DELETE FROM messages WHERE log_id = 17592186044416 + 4" => [(OutboxOfNoMessage, 1)];
    an_outbox_row_above_the_head_is_found:
        "UPDATE outbox SET log_id = 17592186044416 + 6 WHERE log_id = 17592186044416 + 4"
            => [(OutboxOutOfRange, 1)];
    a_retained_copy_of_no_topic_is_found:
        "UPDATE retained SET topic_id = 999" => [(ForeignKey, 1), (RetainedOfNoTopic, 1)];
    a_retained_copy_under_another_name_is_found:
        "UPDATE retained SET topic = 'x'" => [(RetainedMisnamed, 1), (RetainedMisplaced, 1)];
    a_retained_copy_of_another_message_is_found:
        "UPDATE messages SET message_id = randomblob(16) WHERE retain"
            => [(MessageMisplaced, 1), (RetainedDiffers, 1)];
    a_retained_copy_above_the_head_is_found:
        "UPDATE retained SET log_id = log_id + 5" => [(RetainedOutOfRange, 1)];
    a_will_of_no_tenant_is_found:
        "UPDATE wills SET tenant_no = 9" => [(ForeignKey, 1), (WillOfNoTenant, 1)];
    a_will_of_no_session_is_found: "UPDATE wills SET session_id = 999" => [(WillOfNoSession, 1)];
    a_will_moved_to_another_topic_does_not_open: "UPDATE wills SET topic = 'x'" => [(WillMisplaced, 1)];
    a_push_registration_of_no_device_is_found:
        "UPDATE push_registrations SET device_id = randomblob(16); \
         UPDATE wakes SET device_id = (SELECT device_id FROM push_registrations)"
            => [(ForeignKey, 1), (RegistrationDangling, 1), (PushTokenMisplaced, 1)];
    a_push_token_whose_key_is_gone_is_found:
        "DELETE FROM data_keys WHERE scope_kind = 3" => [(PushTokenWithoutKey, 1)];
    a_wakeup_of_no_registration_is_found:
        "UPDATE wakes SET device_id = randomblob(16)" => [(ForeignKey, 1), (WakeDangling, 1)];
    a_wakeup_in_another_lane_than_its_registration_is_found:
        "UPDATE wakes SET app = 'x'" => [(WakeMisfiled, 1)];
    an_epoch_key_of_no_tenant_is_found:
        "INSERT INTO epoch_keys SELECT randomblob(16), epoch, wrapped, commitment FROM epoch_keys LIMIT 1"
            => [(EpochKeyOfNoTenant, 1), (EpochKeyDamaged, 1)];
    one_epoch_key_that_does_not_open_is_told_from_a_wrong_root_key:
        "UPDATE epoch_keys SET wrapped = randomblob(60) \
         WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'lab')"
            => [(MessageWithoutKey, 1), (RetainedWithoutKey, 1), (EpochKeyDamaged, 1)];
    a_data_key_of_no_epoch_key_is_found:
        "UPDATE data_keys SET epoch = 9 WHERE scope_kind = 3" => [(PushTokenWithoutKey, 1), (DataKeyOfNoEpochKey, 1)];
    a_data_key_that_does_not_open_is_found:
        "UPDATE data_keys SET commitment = randomblob(32) WHERE scope_kind = 3"
            => [(PushTokenWithoutKey, 1), (DataKeyDamaged, 1)];
}

#[tokio::test]
async fn a_whole_store_passes_with_all_of_it_opened() {
    let (folder, _store, _fixture) = populated().await;
    for extent in [Extent::All, Extent::Sample(3)] {
        let report = check(to_check(&folder).await, ROOT_KEY, extent).await.expect("checked");
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let opened = report.opened;
        assert_eq!((opened.messages, opened.retained, opened.wills, opened.push_tokens), (6, 1, 1, 1));
        assert_eq!((opened.epoch_keys, opened.data_keys), (2, 3));
        assert!(report.counts.contains(&("messages", 6)), "{:?}", report.counts);
    }
}

#[tokio::test]
async fn another_store_s_root_key_is_told_in_one_finding() {
    let (folder, _store, _fixture) = populated().await;
    let report = check(to_check(&folder).await, [8; 32], Extent::All).await.expect("checked");
    let kinds: Vec<_> = report.findings.iter().map(|(kind, count, _)| (kind, count)).collect();
    assert_eq!(kinds, [(WrongRootKey, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_under_load_passes_and_is_not_changed() {
    let (folder, store, fixture) = populated().await;
    let ward = fixture.ward_topic();
    let load = async {
        for _ in 0..300 {
            fixture.publish(&fixture.alice, &ward).await;
            store.checkpoint().await.expect("checkpoint");
        }
    };
    let checks = async {
        for _ in 0..5 {
            assert_eq!(findings(to_check(&folder).await).await, []);
        }
    };
    tokio::join!(load, checks);
}

/// As a copy of a data folder is: closed in good order, or as a crash left it.
#[tokio::test]
async fn a_store_that_nobody_has_open_is_checked_without_a_change() {
    let (folder, store, fixture) = populated().await;
    let path = folder.path().join("sotto.db");
    let crashed = tempfile::tempdir().expect("temporary folder");
    for file in ["sotto.db", "sotto.db-wal"] {
        std::fs::copy(folder.path().join(file), crashed.path().join(file)).expect("copy");
    }
    drop(fixture);
    store.close().await.expect("close");
    assert!(!path.with_extension("db-wal").exists());
    let before = std::fs::read(&path).expect("read");
    assert_eq!(findings(to_check(&folder).await).await, []);
    assert_eq!(std::fs::read(&path).expect("read"), before);

    let before = std::fs::read(crashed.path().join("sotto.db")).expect("read");
    assert_eq!(findings(to_check(&crashed).await).await, []);
    assert_eq!(std::fs::read(crashed.path().join("sotto.db")).expect("read"), before);
    assert!(crashed.path().join("sotto.db-wal").exists(), "what a crash left is left");
}

#[tokio::test]
async fn what_is_opened_to_be_checked_cannot_be_changed() {
    let (folder, _store, fixture) = populated().await;
    let store = to_check(&folder).await;
    assert!(store.remove_user(fixture.clinic, fixture.bob.user, sotto_model::UnixMillis(0)).await.is_err());
    assert_eq!(findings(store).await, []);
}

#[tokio::test]
async fn a_schema_that_is_not_this_program_s_is_not_checked() {
    let (folder, _store, _fixture) = populated().await;
    let path = folder.path().join("sotto.db");
    let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                  VALUES (999, 'from the future', TRUE, x'00', 0)";
    execute(&path, insert).await;
    let refused = SqliteStore::open_to_check(&path).await;
    assert!(matches!(refused, Err(OpenError::NewerSchema { found: 999, .. })));
    execute(&path, "DELETE FROM _sqlx_migrations WHERE version > 1").await;
    let refused = SqliteStore::open_to_check(&path).await;
    assert!(matches!(refused, Err(OpenError::OlderSchema { found: 1, .. })));
    let absent = SqliteStore::open_to_check(&folder.path().join("absent.db")).await;
    assert!(matches!(absent, Err(OpenError::File(_))));
    assert!(!folder.path().join("absent.db").exists(), "nothing is made");
}
