//! How a store opens, and why it may not.

use sotto_postgres::testing::TestDatabase;
use sotto_postgres::{OpenError, PostgresOptions, PostgresStore};
use sotto_storage::message_log::MessageLog;
use sqlx::{Connection, PgConnection};

async fn open(url: &str) -> Result<PostgresStore, OpenError> {
    PostgresStore::connect(url, PostgresOptions::default()).await
}

fn refusal(opened: Result<PostgresStore, OpenError>) -> OpenError {
    match opened {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn several_processes_may_bring_the_schema_up_to_date_at_once() {
    let database = TestDatabase::empty().await;
    let (first, second, third) =
        tokio::join!(open(database.url()), open(database.url()), open(database.url()));
    for store in [first, second, third] {
        store.expect("open").ping().await.expect("ping");
    }
}

#[tokio::test]
async fn several_processes_may_bring_an_old_schema_up_to_date_at_once() {
    let database = TestDatabase::of_schema(4).await;
    let (first, second, third) =
        tokio::join!(open(database.url()), open(database.url()), open(database.url()));
    for store in [first, second, third] {
        store.expect("open").ping().await.expect("ping");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = TestDatabase::create().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of the future', true, '', 0)",
    )
    .execute(&mut connection)
    .await
    .expect("insert");
    assert!(matches!(refusal(open(database.url()).await), OpenError::NewerSchema(9999)));
}

#[tokio::test]
async fn an_altered_migration_is_refused() {
    let database = TestDatabase::create().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    sqlx::raw_sql("UPDATE _sqlx_migrations SET checksum = 'other'")
        .execute(&mut connection)
        .await
        .expect("update");
    assert!(matches!(refusal(open(database.url()).await), OpenError::AlteredSchema(1)));
}

#[tokio::test]
async fn no_error_holds_anything_of_the_url() {
    for url in [
        "postgres://canary:canary@127.0.0.1:1/canary",
        "postgres://canary:canary@canary.invalid/canary",
        "postgres://canary:canary@127.0.0.1:canary/canary",
        "canary",
        "mysql://canary@canary/canary",
        "postgres:///canary?host=/canary/canary",
    ] {
        let error = refusal(open(url).await);
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn every_column_says_what_it_holds() {
    let database = TestDatabase::create().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    let silent: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 \
             AND c.relname <> '_sqlx_migrations' AND col_description(c.oid, a.attnum) IS NULL",
    )
    .fetch_all(&mut connection)
    .await
    .expect("read the catalog");
    assert!(silent.is_empty(), "{silent:?}");
}
