//! The log's weeks: how a log from before there were any becomes the first, and that no message waits for one.

use std::sync::Arc;

use sotto_model::{Offset, UnixMillis};
use sotto_postgres::testing::TestDatabase;
use sotto_storage::conformance::fixture::{GENEROUS, NOW, offsets, selector, topic};
use sotto_storage::conformance::{Fixture, Fresh};
use sotto_storage::message_log::Batch;
use sotto_storage::retention::{RetentionPolicy, Trimmed};
use sqlx::{Connection, PgConnection};

const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;

async fn fixture(database: &TestDatabase) -> Fixture {
    Fixture::new(Fresh { store: Arc::new(database.store().await), keep: Box::new(()) }).await
}

async fn append_at(fixture: &Fixture, at: UnixMillis) {
    let appends = vec![fixture.message(&fixture.robot, &topic("a")).await];
    let batch = Batch { committed_at: at, ..fixture.batch(appends) };
    fixture.store.append(&batch).await.expect("append");
}

async fn weeks(connection: &mut PgConnection) -> Vec<(String, i64, i64)> {
    sqlx::query_as("SELECT week_name, from_ms, until_ms FROM message_weeks ORDER BY from_ms")
        .fetch_all(connection)
        .await
        .expect("read the weeks")
}

/// The schema as it was before there were weeks, and what it takes to bring it on.
const BEFORE: [&str; 5] = [
    include_str!("../migrations/0001_schema.sql"),
    include_str!("../migrations/0002_acl_rules.sql"),
    include_str!("../migrations/0003_retained.sql"),
    include_str!("../migrations/0004_wills.sql"),
    include_str!("../migrations/0005_scram.sql"),
];
const WEEKS: &str = include_str!("../migrations/0006_retention.sql");

#[tokio::test]
async fn a_log_from_before_becomes_the_first_week_without_being_rewritten() {
    let database = TestDatabase::empty().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    for migration in BEFORE {
        sqlx::raw_sql(migration).execute(&mut connection).await.expect("migrate");
    }
    sqlx::raw_sql(
        "INSERT INTO tenants VALUES ('00000000-0000-0000-0000-000000000001', 'clinic', 2, 0); \
         INSERT INTO messages SELECT '00000000-0000-0000-0000-000000000001', n, 1, 1800000000000 + n * 1000, NULL, \
             gen_random_uuid(), gen_random_uuid(), 1, false, true, 'sealed' FROM generate_series(1, 5000) n",
    )
    .execute(&mut connection)
    .await
    .expect("fill");
    let file_of = async |connection: &mut PgConnection, table: &str| -> Vec<String> {
        sqlx::query_scalar(
            "SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid = $1::regclass OR oid IN \
                 (SELECT indexrelid FROM pg_index WHERE indrelid = $1::regclass) ORDER BY oid",
        )
        .bind(table)
        .fetch_all(connection)
        .await
        .expect("read the catalog")
    };
    let files = file_of(&mut connection, "messages").await;
    sqlx::raw_sql(WEEKS).execute(&mut connection).await.expect("migrate");
    assert_eq!(file_of(&mut connection, "messages_before").await, files, "table and both indexes stay");
    let [(name, _, until)] = &weeks(&mut connection).await[..] else { panic!("one week holds all of it") };
    assert_eq!(name, "messages_before");
    assert!(*until > 1_800_000_000_000 + 5_000_000);
    let held: i64 =
        sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut connection).await.expect("count");
    assert_eq!(held, 5000);
}

#[tokio::test]
async fn a_message_finds_its_week_wherever_the_clock_has_been_set() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    assert!(weeks(&mut connection).await.is_empty(), "an empty log has no week before it is needed");
    for weeks_away in [0_i64, 40, -30, 1, 0] {
        let at = UnixMillis(NOW.0.saturating_add_signed(weeks_away * WEEK_MS.cast_signed()));
        append_at(&f, at).await;
    }
    let made = weeks(&mut connection).await;
    assert_eq!(made.len(), 4);
    for (_, from, until) in &made {
        assert_eq!(until - from, WEEK_MS.cast_signed());
        // Mondays: the epoch was a Thursday.
        assert_eq!((from / 86_400_000 + 3) % 7, 0);
    }
    let read = f.read_all(f.lab, &[selector("#")], GENEROUS).await;
    assert_eq!(offsets(&read), (1..=5).map(Offset).collect::<Vec<_>>(), "the order is that of commits");
}

#[tokio::test]
async fn a_week_begins_on_the_millisecond() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    let monday = NOW.0 - (NOW.0 - 345_600_000) % WEEK_MS;
    for at in [monday - 1, monday, monday + WEEK_MS - 1, monday + WEEK_MS] {
        append_at(&f, UnixMillis(at)).await;
    }
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    let held: Vec<i64> =
        sqlx::query_scalar("SELECT count(*) FROM messages GROUP BY tableoid ORDER BY min(committed_at_ms)")
            .fetch_all(&mut connection)
            .await
            .expect("count");
    assert_eq!(held, [1, 2, 1]);
}

/// Several at once make one week, and the losers find it.
/// A reader looks only into the weeks that the log has been in since.
#[tokio::test]
async fn every_message_is_read_from_wherever_wherever_the_clock_has_been_set() {
    let database = TestDatabase::create().await;
    let fixture = fixture(&database).await;
    let weeks = [10_u64, 10, 12, 3, 3, 13, 2, 20, 13, 13];
    for week in weeks {
        append_at(&fixture, UnixMillis(NOW.0 + week * WEEK_MS)).await;
    }
    let head = fixture.head(fixture.lab).await;
    assert_eq!(head, Offset(weeks.len() as u64));
    for after in 0..=head.0 {
        let expected: Vec<Offset> = (after + 1..=head.0).map(Offset).collect();
        let page = fixture.store.read(fixture.lab, &[selector("#")], Offset(after), head, GENEROUS).await;
        assert_eq!(offsets(&page.expect("read").messages), expected, "after {after}");
        let got = fixture.store.get(fixture.lab, &expected).await.expect("get");
        assert_eq!(offsets(&got), expected, "after {after}");
    }
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    let noted: Vec<(i64, i64)> = sqlx::query_as("SELECT after_offset, week_ms FROM log_weeks ORDER BY 1")
        .fetch_all(&mut connection)
        .await
        .expect("read");
    assert_eq!(noted.iter().map(|(after, _)| *after).collect::<Vec<_>>(), [0, 2, 3, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_week_is_made_once() {
    let database = TestDatabase::create().await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let mut connection = PgConnection::connect(database.url()).await.expect("connect");
        tasks.push(tokio::spawn(async move {
            let made: bool = sqlx::query_scalar("SELECT sotto_ensure_week(1800000000000)")
                .fetch_one(&mut connection)
                .await
                .expect("ensure");
            made
        }));
    }
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.expect("ends"));
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_place_in_the_log_is_taken_once() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    append_at(&f, NOW).await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    let twice = sqlx::query("INSERT INTO messages SELECT * FROM messages").execute(&mut connection).await;
    assert!(twice.expect_err("refused").as_database_error().expect("by the server").is_unique_violation());
}

const BY_AGE: RetentionPolicy = RetentionPolicy { days: 30, bytes: 0, minimum_days: 0 };

fn in_weeks(weeks: u64) -> UnixMillis {
    UnixMillis(NOW.0 + weeks * WEEK_MS)
}

async fn names(connection: &mut PgConnection) -> Vec<String> {
    weeks(connection).await.into_iter().map(|(name, _, _)| name).collect()
}

async fn tables(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'messages_%'")
        .fetch_one(connection)
        .await
        .expect("count")
}

#[tokio::test]
async fn an_old_week_is_dropped_as_a_whole_and_the_next_ones_are_made() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    append_at(&f, in_weeks(0)).await;
    append_at(&f, in_weeks(1)).await;
    append_at(&f, in_weeks(8)).await;
    let before = names(&mut connection).await;
    let mut dropped = 0;
    loop {
        let trimmed = f.store.trim(&BY_AGE, in_weeks(8), 10).await.expect("trim");
        assert_eq!(trimmed.messages, 0, "none is deleted by itself");
        dropped += trimmed.weeks;
        if !trimmed.goes_on {
            break;
        }
    }
    assert_eq!(dropped, 2);
    let after = names(&mut connection).await;
    assert_eq!(after.len(), 3, "this week and two ahead");
    assert_eq!(after[0], before[2]);
    assert_eq!(tables(&mut connection).await, 3, "what is dropped leaves no table");
}

/// Whoever reads a week is not waited for, and keeps nobody from it; it goes when it is free.
#[tokio::test]
async fn a_week_in_use_goes_later() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    append_at(&f, in_weeks(0)).await;
    let mut reader = PgConnection::connect(database.url()).await.expect("connect");
    let mut reading = reader.begin().await.expect("begin");
    let held: i64 =
        sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut *reading).await.expect("count");
    assert_eq!(held, 1);
    assert_eq!(f.store.trim(&BY_AGE, in_weeks(8), 10).await.expect("trim"), Trimmed::default());
    append_at(&f, in_weeks(0)).await;
    assert_eq!(f.read_all(f.lab, &[selector("#")], GENEROUS).await.len(), 2);
    reading.rollback().await.expect("end");
    let trimmed = f.store.trim(&BY_AGE, in_weeks(8), 10).await.expect("trim");
    assert_eq!(trimmed.weeks, 1);
    assert!(f.read_all(f.lab, &[selector("#")], GENEROUS).await.is_empty());
}

/// As it is left by a process that dies right after it has closed the week.
async fn close_first_week(connection: &mut PgConnection) -> String {
    let name = names(connection).await[0].clone();
    sqlx::raw_sql(&format!(
        "ALTER TABLE {name} ADD CONSTRAINT week_is_going CHECK (false) NOT VALID; \
         INSERT INTO weeks_going VALUES ('{name}')"
    ))
    .execute(connection)
    .await
    .expect("close");
    name
}

#[tokio::test]
async fn a_week_that_was_closed_by_a_process_that_died_is_dropped_by_the_next() {
    for died_after_detaching in [false, true] {
        let database = TestDatabase::create().await;
        let f = fixture(&database).await;
        let mut connection = PgConnection::connect(database.url()).await.expect("connect");
        append_at(&f, in_weeks(0)).await;
        let name = close_first_week(&mut connection).await;
        if died_after_detaching {
            let detach = format!("ALTER TABLE messages DETACH PARTITION {name}");
            sqlx::raw_sql(&detach).execute(&mut connection).await.expect("detach");
        }
        assert_eq!(f.store.trim(&BY_AGE, in_weeks(8), 10).await.expect("trim").weeks, 1);
        assert!(f.read_all(f.lab, &[selector("#")], GENEROUS).await.is_empty());
        assert!(!names(&mut connection).await.contains(&name));
    }
}

/// Its detaching was cut short while it waited for a reader.
#[tokio::test]
async fn a_week_that_was_half_detached_is_dropped() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    append_at(&f, in_weeks(0)).await;
    let name = close_first_week(&mut connection).await;
    let mut reader = PgConnection::connect(database.url()).await.expect("connect");
    let mut reading = reader.begin().await.expect("begin");
    sqlx::raw_sql("SELECT FROM messages").execute(&mut *reading).await.expect("read");
    sqlx::raw_sql("SET statement_timeout = 200").execute(&mut connection).await.expect("set");
    let detach = format!("ALTER TABLE messages DETACH PARTITION {name} CONCURRENTLY");
    sqlx::raw_sql(&detach).execute(&mut connection).await.expect_err("it waits for the reader");
    // A clock that was set back to this week is no reason to refuse a message.
    reading.rollback().await.expect("end");
    append_at(&f, in_weeks(0)).await;
    assert_eq!(f.store.trim(&BY_AGE, in_weeks(2), 10).await.expect("trim").weeks, 1);
    assert_eq!(offsets(&f.read_all(f.lab, &[selector("#")], GENEROUS).await), [Offset(2)]);
}

#[tokio::test]
async fn a_message_committed_to_a_week_that_goes_is_kept_in_another() {
    let database = TestDatabase::create().await;
    let f = fixture(&database).await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    append_at(&f, in_weeks(0)).await;
    let name = close_first_week(&mut connection).await;
    append_at(&f, in_weeks(0)).await;
    assert_eq!(names(&mut connection).await, [format!("{name}_2")]);
    assert_eq!(f.store.trim(&BY_AGE, in_weeks(2), 10).await.expect("trim").weeks, 1);
    assert_eq!(offsets(&f.read_all(f.lab, &[selector("#")], GENEROUS).await), [Offset(2)]);
}
