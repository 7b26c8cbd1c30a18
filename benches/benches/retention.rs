//! What it costs to forget, on a store of many messages of two tenants over some weeks: a round that finds nothing to
//! do, a week that goes as a whole, a tenant trimmed by 100,000 messages, what commits cost meanwhile, and what a
//! session pays for the weeks when it resumes.
//!
//! `cargo bench -p benches --bench retention -- sqlite|postgres [MESSAGES [WEEKS]]`

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sotto_model::{Offset, TopicFilter, UnixMillis};
use sotto_postgres::testing::{Durability, Server};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_sqlite::limits::CHECKPOINT_EVERY;
use sotto_storage::conformance::fixture::{Fixture, Fresh, GENEROUS, NOW, topic};
use sotto_storage::message_log::{Batch, Selector};
use sotto_storage::retention::RetentionPolicy;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::sleep;

const MESSAGES: u64 = 10_000_000;
const WEEKS: u64 = 20;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const WEEK_MS: u64 = 7 * DAY_MS;
const TOPICS: usize = 20_000;
const TOPICS_PER_SESSION: usize = 20;
const SESSIONS: usize = 200;
/// Of a session; of all, a thousand times as many.
const MISSED: u64 = 50;
/// As the broker takes them.
const STEP: usize = 500;
const TRIMMED: u64 = 100_000;
const BATCH: usize = 64;
const COMMIT_EVERY: Duration = Duration::from_millis(10);
const QUIET: Duration = Duration::from_secs(5);
const IDLE_ROUNDS: usize = 21;
/// A message in ten is the second tenant's.
const SECOND_TENANT_EVERY: u64 = 10;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let messages = numbers.first().copied().unwrap_or(MESSAGES);
    let weeks = numbers.get(1).copied().unwrap_or(WEEKS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("start a runtime");
    if std::env::args().any(|argument| argument == "postgres") {
        runtime.block_on(postgres(messages, weeks));
    }
    if std::env::args().any(|argument| argument == "sqlite") {
        runtime.block_on(sqlite(messages, weeks));
    }
}

async fn postgres(messages: u64, weeks: u64) {
    println!("postgres: {messages} messages over {weeks} weeks");
    let server = Server::start(Durability::Full);
    let url = server.url("postgres");
    let store = PostgresStore::connect(&url, PostgresOptions::default()).await.expect("open");
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(server) }).await;
    make_topics(&fixture).await;
    let mut admin = PgConnection::connect(&url).await.expect("connect");
    sqlx::raw_sql("SET synchronous_commit = off").execute(&mut admin).await.expect("set");
    for (tenant, every) in [(fixture.lab, 1), (fixture.clinic, SECOND_TENANT_EVERY)] {
        let head = fixture.head(tenant).await.0;
        let rows = messages / every;
        let (first_at, apart_ms) = (NOW.0 - weeks * WEEK_MS, weeks * WEEK_MS / rows);
        let fill = format!(
            "SELECT sotto_ensure_week({first_at} + week * {WEEK_MS}) FROM generate_series(0::bigint, {weeks}) week; \
             INSERT INTO messages SELECT '{tenant}', {head} + n, \
                 (SELECT min(topic_id) FROM topics) + n * 997 % {TOPICS}, {first_at} + n * {apart_ms}, NULL, \
                 gen_random_uuid(), '{tenant}', 1, false, true, decode(repeat('5a', 300), 'hex') \
             FROM generate_series(1::bigint, {rows}) n; \
             INSERT INTO log_weeks SELECT '{tenant}', {head} + min(n) - 1, week_ms FROM ( \
                 SELECT n, sotto_week_start({first_at} + n * {apart_ms}) AS week_ms \
                 FROM generate_series(1::bigint, {rows}) n) w \
             GROUP BY week_ms ON CONFLICT DO NOTHING; \
             UPDATE counters SET head = head + {rows} WHERE tenant_id = '{tenant}'",
            tenant = tenant.0,
        );
        sqlx::raw_sql(&fill).execute(&mut admin).await.expect("fill");
    }
    for tidy in ["VACUUM (ANALYZE) messages", "CHECKPOINT"] {
        sqlx::raw_sql(tidy).execute(&mut admin).await.expect("tidy");
    }
    measure(&fixture, weeks).await;
}

async fn sqlite(messages: u64, weeks: u64) {
    println!("sqlite: {messages} messages over {weeks} weeks");
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = Arc::new(SqliteStore::open(&path).await.expect("open"));
    let fixture = Fixture::new(Fresh { store: Arc::clone(&store) as _, keep: Box::new(folder) }).await;
    make_topics(&fixture).await;
    fill_sqlite(&path, messages, weeks).await;
    let checkpoints = tokio::spawn(async move {
        loop {
            sleep(CHECKPOINT_EVERY).await;
            store.checkpoint().await.expect("checkpoint");
        }
    });
    measure(&fixture, weeks).await;
    checkpoints.abort();
}

async fn fill_sqlite(path: &Path, messages: u64, weeks: u64) {
    const ROWS_PER_TRANSACTION: u64 = 200_000;
    let mut admin = SqliteConnectOptions::new()
        .filename(path)
        .pragma("synchronous", "OFF")
        .pragma("cache_size", "-262144")
        .connect()
        .await
        .expect("connect");
    sqlx::raw_sql("DROP INDEX messages_by_topic").execute(&mut admin).await.expect("drop");
    for (name, every) in [("lab", 1), ("clinic", SECOND_TENANT_EVERY)] {
        let rows = messages / every;
        let (first_at, apart_ms) = (NOW.0 - weeks * WEEK_MS, weeks * WEEK_MS / rows);
        let (tenant, head): (i64, i64) = sqlx::query_as(
            "SELECT tenant_no, head FROM tenants JOIN counters USING (tenant_no) WHERE name = ?",
        )
        .bind(name)
        .fetch_one(&mut admin)
        .await
        .expect("a tenant");
        for first in (1..=rows).step_by(usize::try_from(ROWS_PER_TRANSACTION).expect("few")) {
            let last = rows.min(first + ROWS_PER_TRANSACTION - 1);
            let fill = format!(
                "WITH RECURSIVE n (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {last}) \
                 INSERT INTO messages SELECT ({tenant} << 44) + {head} + n, \
                     (SELECT min(topic_id) FROM topics) + n * 997 % {TOPICS}, randomblob(16), randomblob(16), 1, 0, 1, \
                     {first_at} + n * {apart_ms}, NULL, randomblob(300) FROM n"
            );
            sqlx::raw_sql(&fill).execute(&mut admin).await.expect("fill");
        }
        let head = format!("UPDATE counters SET head = head + {rows} WHERE tenant_no = {tenant}");
        sqlx::raw_sql(&head).execute(&mut admin).await.expect("raise the head");
    }
    sqlx::raw_sql("CREATE INDEX messages_by_topic ON messages (topic_id); PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut admin)
        .await
        .expect("index");
}

/// A topic each for what is read, all of one tenant. Their messages are older than all others.
async fn make_topics(fixture: &Fixture) {
    const TOPICS_PER_BATCH: usize = 1000;
    for first in (0..TOPICS).step_by(TOPICS_PER_BATCH) {
        let mut appends = Vec::with_capacity(TOPICS_PER_BATCH);
        for number in first..first + TOPICS_PER_BATCH {
            appends.push(fixture.message(&fixture.robot, &topic(&name(number))).await);
        }
        let batch = Batch { committed_at: UnixMillis(NOW.0), ..fixture.batch(appends) };
        fixture.store.append(&batch).await.expect("append");
    }
}

fn name(number: usize) -> String {
    format!("t/{number}")
}

async fn measure(fixture: &Fixture, weeks: u64) {
    resume(fixture).await;

    let days = |weeks: u64| RetentionPolicy {
        days: u32::try_from(weeks * 7).expect("few"),
        bytes: 0,
        minimum_days: 0,
    };
    let mut idle = Vec::new();
    for _ in 0..IDLE_ROUNDS {
        let start = Instant::now();
        let trimmed = fixture.store.trim(&days(weeks * 2), NOW, STEP).await.expect("trim");
        idle.push(start.elapsed());
        assert!(!trimmed.goes_on && trimmed.messages + trimmed.weeks == 0);
    }
    print("a round that finds nothing, ms", &mut idle);
    if weeks < 4 {
        return;
    }
    // The messages that made the topics are the first of the one log, and of the last week: they go first.
    fixture.store.set_legal_hold(fixture.clinic, true, NOW).await.expect("hold");
    let stop = Arc::new(AtomicBool::new(false));
    let mut quiet = commits(fixture, || false, QUIET).await;
    print("commits while nothing is deleted, ms", &mut quiet);
    let trimming = {
        let (store, stop) = (Arc::clone(&fixture.store), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut steps, mut messages) = (Vec::new(), 0);
            let began = Instant::now();
            while messages < TRIMMED {
                let start = Instant::now();
                let trimmed =
                    store.trim(&days(1), UnixMillis(NOW.0 + WEEK_MS * 2), STEP).await.expect("trim");
                steps.push(start.elapsed());
                messages += trimmed.messages;
                assert!(trimmed.goes_on, "there is more");
                sleep(start.elapsed().max(Duration::from_millis(10))).await;
            }
            stop.store(true, Ordering::Relaxed);
            (steps, began.elapsed(), messages)
        })
    };
    let mut busy = commits(fixture, || stop.load(Ordering::Relaxed), Duration::MAX).await;
    let (mut steps, took, messages) = trimming.await.expect("ends");
    print(&format!("a step of {STEP}, ms"), &mut steps);
    println!("{messages} messages of one tenant deleted in {:.1} s, half of it pauses", took.as_secs_f64());
    print("commits meanwhile, ms", &mut busy);

    fixture.store.set_legal_hold(fixture.clinic, false, NOW).await.expect("lift");
    let mut dropped = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let trimmed = fixture.store.trim(&days(1), UnixMillis(NOW.0), STEP).await.expect("trim");
        if trimmed.weeks > 0 {
            dropped.push(start.elapsed());
        }
    }
    if !dropped.is_empty() {
        print("a week that goes, ms", &mut dropped);
    }
}

/// Batches at a steady pace.
async fn commits(fixture: &Fixture, is_over: impl Fn() -> bool, longest: Duration) -> Vec<Duration> {
    let began = Instant::now();
    let mut took = Vec::new();
    while !is_over() && began.elapsed() < longest {
        let mut appends = Vec::with_capacity(BATCH);
        for number in 0..BATCH {
            let number = (took.len() * BATCH + number) % TOPICS;
            appends.push(fixture.message_of(&fixture.robot, &topic(&name(number)), &[0; 200]).await);
        }
        let batch = Batch { committed_at: UnixMillis(NOW.0 + WEEK_MS * 2), ..fixture.batch(appends) };
        let start = Instant::now();
        fixture.store.append(&batch).await.expect("append");
        took.push(start.elapsed());
        sleep(COMMIT_EVERY).await;
    }
    took
}

async fn resume(fixture: &Fixture) {
    let head = fixture.head(fixture.lab).await;
    let after = Offset(head.0.saturating_sub(MISSED * 1000));
    let mut took = Vec::new();
    for session in 0..SESSIONS {
        let selectors: Vec<Selector> = (0..TOPICS_PER_SESSION)
            .map(|place| (session * TOPICS_PER_SESSION + place * 997) % TOPICS)
            .map(|number| Selector { filter: TopicFilter::parse(&name(number)).expect("filter"), after })
            .collect();
        let start = Instant::now();
        fixture.store.read(fixture.lab, &selectors, after, head, GENEROUS).await.expect("read");
        took.push(start.elapsed());
    }
    print("a session of 20 topics that has missed 50, ms", &mut took);
}

fn print(what: &str, took: &mut [Duration]) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.2}, p99 {:.2}, slowest {:.1} ({} times)", at(50), at(99), at(100), took.len());
}
