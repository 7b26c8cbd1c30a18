//! What is opened, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sotto_sqlite::{OpenError, SqliteStore};
use sotto_storage::StoreError;
use sotto_storage::directory::Directory;
use sotto_storage::message_log::MessageLog;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};

#[tokio::test]
async fn every_file_is_its_owner_s_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = SqliteStore::open(&path).await.expect("open");
    let mut modes: Vec<_> = fs::read_dir(folder.path())
        .expect("list folder")
        .map(|entry| {
            let entry = entry.expect("list folder");
            let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
            (entry.file_name().into_string().expect("utf-8"), mode)
        })
        .collect();
    modes.sort_unstable();
    let expected = ["sotto.db", "sotto.db-shm", "sotto.db-wal"].map(|name| (name.to_owned(), 0o600));
    assert_eq!(modes, expected);
    store.close().await.expect("close");
    SqliteStore::open(&path).await.expect("open again").close().await.expect("close");
}

#[tokio::test]
async fn a_file_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    SqliteStore::open(&path).await.expect("open").close().await.expect("close");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set mode");
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::Exposed { mode: 0o640 }));
    assert_eq!(error.to_string(), "database file is open to others (mode 640); it must be 600");
}

#[tokio::test]
async fn a_missing_folder_is_named_as_such() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let error = refused(&folder.path().join("absent").join("sotto.db")).await;
    assert!(matches!(error, OpenError::File(_)));
    assert_eq!(error.to_string(), "database file: entity not found");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let content = b"Dear diary, ".repeat(1000);
    fs::write(&path, &content).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set mode");
    assert!(matches!(refused(&path).await, OpenError::NotADatabase));
    assert_eq!(fs::read(&path).expect("read"), content);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    SqliteStore::open(&path).await.expect("open").close().await.expect("close");
    execute(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'from the future', TRUE, x'00', 0)",
    )
    .await;
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::NewerSchema { found: 999, .. }));
    assert!(error.to_string().starts_with("database schema 999 is newer than this program"));
    execute(&path, "DELETE FROM _sqlx_migrations WHERE version = 999").await;
    SqliteStore::open(&path).await.expect("nothing else was changed");
}

#[tokio::test]
async fn a_schema_step_that_differs_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    SqliteStore::open(&path).await.expect("open").close().await.expect("close");
    execute(&path, "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await;
    assert!(matches!(refused(&path).await, OpenError::AlteredSchema(1)));
}

#[tokio::test]
async fn a_checkpoint_moves_what_was_committed_into_the_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = SqliteStore::open(&path).await.expect("open");
    let size = || fs::metadata(&path).expect("metadata").len();
    let before = size();
    store.checkpoint().await.expect("checkpoint");
    assert!(size() > before, "the schema was in the write-ahead log");
    store.checkpoint().await.expect("nothing to move is no error");
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = SqliteStore::open(&path).await.expect("open");
    store.close().await.expect("close");
    assert!(!path.with_extension("db-wal").exists(), "the write-ahead log is moved into the file");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable { .. })));
    let batch = sotto_storage::message_log::Batch {
        number: 1,
        appends: Vec::new(),
        committed_at: sotto_model::UnixMillis(0),
    };
    assert!(matches!(store.append(&batch).await, Err(StoreError::Unavailable { .. })));
    store.close().await.expect("closing twice is no error");
}

/// As several processes would: each has a connection of its own.
async fn open_at_once(path: &Path) {
    let opened = futures::future::join_all((0..8).map(|_| {
        let path = path.to_owned();
        tokio::spawn(async move { SqliteStore::open(&path).await })
    }))
    .await;
    for store in opened {
        store.expect("opens without a panic").expect("open").ping().await.expect("ping");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_bring_a_fresh_and_an_old_schema_up_to_date_at_once() {
    let folder = tempfile::tempdir().expect("temporary folder");
    open_at_once(&folder.path().join("sotto.db")).await;

    let path = folder.path().join("old.db");
    let steps = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "acl rules", include_str!("../migrations/0002_acl_rules.sql")),
    ];
    let migrations = steps.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
    });
    let migrator = Migrator { migrations: migrations.to_vec().into(), ..Migrator::DEFAULT };
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.expect("connect");
    migrator.run_direct(&mut connection).await.expect("make an old schema");
    connection.execute("INSERT INTO tenants VALUES (1, zeroblob(16), 'old', 0)").await.expect("insert");
    connection.close().await.expect("close");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set mode");
    open_at_once(&path).await;
    let store = SqliteStore::open(&path).await.expect("open");
    assert_eq!(store.snapshot().await.expect("snapshot").tenants.len(), 1);
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_schema_as_it_was() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    SqliteStore::open(&path).await.expect("open").close().await.expect("close");
    // The second step finds its table there already, after the first was done anew.
    execute(&path, "DELETE FROM _sqlx_migrations; DROP TABLE wakes; PRAGMA user_version = 7").await;
    assert!(matches!(refused(&path).await, OpenError::Store(StoreError::Refused { .. })));
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.expect("connect");
    let steps: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .expect("count");
    assert_eq!(steps, 0);
}

async fn refused(path: &Path) -> OpenError {
    match SqliteStore::open(path).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

async fn execute(path: &Path, sql: &str) {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.expect("connect");
    connection.execute(sql).await.expect("execute");
    connection.close().await.expect("close");
}
