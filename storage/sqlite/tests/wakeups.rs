//! Wakeups with large conversations, and from before there were lanes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use sotto_model::{UnixMillis, Urgency};
use sotto_sqlite::SqliteStore;
use sotto_storage::conformance::fixture::{Fixture, Fresh, NOW, conversation_topic, lane, later};
use sotto_storage::outbox::Outbox;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(false);
    options.connect().await.expect("connect")
}

#[tokio::test]
async fn a_turn_of_the_relay_ends_where_the_members_are_many() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = Arc::new(SqliteStore::open(&path).await.expect("open"));
    let f = Fixture::new(Fresh { store, keep: Box::new(folder) }).await;
    let mut connection = connect(&path).await;
    let mut topics = Vec::new();
    for _ in 0..3 {
        let conversation = f.make_conversation().await;
        f.join(conversation, f.alice.user).await;
        sqlx::query(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 12000)
             INSERT INTO memberships (tenant_no, conversation_id, user_id, since)
             SELECT tenant_no, ?1, randomblob(16), 0 FROM conversations CROSS JOIN number WHERE conversation_id = ?1",
        )
        .bind(conversation.0)
        .execute(&mut connection)
        .await
        .expect("fill");
        topics.push(conversation_topic(conversation));
    }
    for topic in [&topics[0], &topics[0], &topics[1], &topics[1], &topics[2], &topics[0]] {
        f.publish(&f.alice, topic).await;
    }
    let mut turns = Vec::new();
    for _ in 0..3 {
        let relayed = f.store.relay(100, NOW).await.expect("relay");
        turns.push((relayed.messages, relayed.full));
    }
    // The bound is 20,000; the second conversation's members are counted once, and no row is left for ever.
    assert_eq!(turns, [(3, true), (2, true), (1, false)]);
}

#[tokio::test]
async fn what_waited_before_there_were_lanes_waits_in_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let steps = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "acl rules", include_str!("../migrations/0002_acl_rules.sql")),
        (3, "retained", include_str!("../migrations/0003_retained.sql")),
        (4, "wills", include_str!("../migrations/0004_wills.sql")),
        (5, "scram", include_str!("../migrations/0005_scram.sql")),
        (6, "retention", include_str!("../migrations/0006_retention.sql")),
        (7, "publications", include_str!("../migrations/0007_publications.sql")),
    ];
    let migrations = steps.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
    });
    let migrator = Migrator { migrations: migrations.to_vec().into(), ..Migrator::DEFAULT };
    let mut connection = connect(&path).await;
    migrator.run_direct(&mut connection).await.expect("make an old schema");
    connection
        .execute(
            "INSERT INTO tenants (tenant_no, tenant_id, name, open_topics) VALUES (1, zeroblob(16), 'clinic', 0);
             INSERT INTO users VALUES (1, zeroblob(16), 'bob', '', NULL);
             INSERT INTO devices VALUES (1, zeroblob(16), zeroblob(16), 'phone');
             INSERT INTO sessions (tenant_no, client_id, user_id, device_id, generation, cursor, inflight,
                                   connected, expiry_seconds)
             VALUES (1, 'bob/phone', zeroblob(16), zeroblob(16), 1, 0, x'', 0, 4294967295);
             INSERT INTO push_registrations VALUES (1, zeroblob(16), 1, x'01', zeroblob(32), 3);
             INSERT INTO wakes (tenant_no, device_id, due_since_at_ms, next_attempt_at_ms, lease, lease_until_at_ms)
             VALUES (1, zeroblob(16), 5, 5, 9, 70);
             INSERT INTO dead_letters (tenant_no, device_id, attempts, outcome, died_at_ms)
             VALUES (1, zeroblob(16), 12, 'refused', 6)",
        )
        .await
        .expect("fill");
    connection.close().await.expect("close");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set mode");
    let store = SqliteStore::open(&path).await.expect("open");
    let claim = async |at| store.claim(&lane(), 10, UnixMillis(at), later(1)).await.expect("claim");
    assert!(claim(69).await.is_empty(), "it is leased");
    let claimed = claim(70).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].urgency, claimed[0].due_since), (Urgency::High, UnixMillis(5)));
    assert_eq!(claimed[0].last_low_sent_at, None);
    assert_eq!(store.dead_letters(10).await.expect("dead letters")[0].urgency, Urgency::High);
}
