//! Messages per second through `MessageLog::append`, against the limit: multi-row INSERTs of the same
//! message rows into a table of the same shape, durable like them, with no outbox, counter or topics.
//!
//! `cargo bench -p benches --bench commit [-- MESSAGES]`

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_model::TopicName;
use sotto_model::limits::BATCH_RECORDS_MAX;
use sotto_sqlite::SqliteStore;
use sotto_sqlite::limits::CHECKPOINT_EVERY;
use sotto_storage::conformance::fixture::{Fixture, Fresh};
use sotto_storage::message_log::{Append, RetainChange};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Executor, SqliteConnection};

const BATCHES: [usize; 3] = [64, 256, 1024];
const TOPICS: usize = 20_000;
const MESSAGES: usize = 100_000;

fn main() {
    let messages = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("start a runtime");
    println!("                 append, ms a commit              raw, ms a commit   ratio of medians");
    println!("store    batch   p50     p99   slowest  msg/s     p50     msg/s");
    for batch in BATCHES {
        let times = runtime.block_on(sqlite(batch, messages));
        report("sqlite", batch, times);
    }
}

/// How long each commit took.
struct Times {
    append: Vec<Duration>,
    raw: Vec<Duration>,
}

/// The two take turns, so that whatever else the machine does falls on both.
async fn sqlite(batch: usize, messages: usize) -> Times {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Arc::new(SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open"));
    let mut raw = SqliteRaw::open(&folder.path().join("raw.db")).await;
    let fixture = Fixture::new(Fresh { store: Arc::clone(&store) as _, keep: Box::new(folder) }).await;
    let pool = sealed(&fixture).await;
    let checkpoints = tokio::spawn(async move {
        loop {
            tokio::time::sleep(CHECKPOINT_EVERY).await;
            store.checkpoint().await.expect("checkpoint");
        }
    });
    let mut next = Shuffle::default();
    // Every topic once, so that what is measured makes none.
    for warm in pool.chunks(BATCH_RECORDS_MAX) {
        raw.insert(warm).await;
        fixture.append(warm.iter().map(again).collect()).await;
    }
    let mut times = Times { append: Vec::new(), raw: Vec::new() };
    for _ in 0..messages / batch {
        let batch = fixture.batch(take(&pool, &mut next, batch));
        let start = Instant::now();
        fixture.store.append(&batch).await.expect("append");
        times.append.push(start.elapsed());
        let start = Instant::now();
        raw.insert(&batch.appends).await;
        times.raw.push(start.elapsed());
    }
    checkpoints.abort();
    times
}

fn report(store: &str, batch: usize, mut times: Times) {
    let messages = f64::from(u32::try_from(batch).expect("a small number"));
    let per_second = |took: &[Duration]| {
        let total: Duration = took.iter().sum();
        messages * f64::from(u32::try_from(took.len()).expect("a small number")) / total.as_secs_f64()
    };
    let (append_per_second, raw_per_second) = (per_second(&times.append), per_second(&times.raw));
    times.append.sort_unstable();
    times.raw.sort_unstable();
    let milliseconds =
        |took: &[Duration], percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{store:<8} {batch:>5} {:>6.2} {:>6.1} {:>8.1} {append_per_second:>8.0} {:>8.2} {raw_per_second:>9.0} {:>8.2}",
        milliseconds(&times.append, 50),
        milliseconds(&times.append, 99),
        milliseconds(&times.append, 100),
        milliseconds(&times.raw, 50),
        milliseconds(&times.raw, 50) / milliseconds(&times.append, 50),
    );
}

/// One message for each topic, 200 to 400 bytes.
async fn sealed(fixture: &Fixture) -> Vec<Append> {
    let mut pool = Vec::with_capacity(TOPICS);
    for number in 0..TOPICS {
        let topic = TopicName::parse(&format!("c/{}/m", uuid::Uuid::new_v4())).expect("topic");
        let payload = vec![0x5a; 200 + number * 7919 % 201];
        pool.push(fixture.message_of(&fixture.robot, &topic, &payload).await);
    }
    pool
}

fn take(pool: &[Append], next: &mut Shuffle, count: usize) -> Vec<Append> {
    (0..count).map(|_| again(&pool[next.below(pool.len())])).collect()
}

fn again(message: &Append) -> Append {
    Append {
        sealed: message.sealed.clone(),
        qos: message.qos,
        retain: RetainChange::Keep,
        expires_at: None,
        wakes: true,
        exactly_once: None,
    }
}

/// The same order every time.
#[derive(Default)]
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

struct SqliteRaw {
    connection: SqliteConnection,
    sql: String,
    log_id: i64,
}

impl SqliteRaw {
    /// Rows in one INSERT.
    const ROWS: usize = 64;

    async fn open(path: &Path) -> Self {
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "20000")
            .pragma("cache_size", "-65536")
            .disable_statement_logging()
            .connect()
            .await
            .expect("connect");
        connection
            .execute(
                "CREATE TABLE messages (log_id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
                     message_id BLOB NOT NULL, sender BLOB NOT NULL, qos INTEGER NOT NULL,
                     retain INTEGER NOT NULL, wakes INTEGER NOT NULL, committed_at_ms INTEGER NOT NULL,
                     expires_at_ms INTEGER, sealed BLOB NOT NULL);
                 CREATE INDEX messages_by_topic ON messages (topic_id)",
            )
            .await
            .expect("make table");
        let values = vec!["(?,?,?,?,?,?,?,?,?,?)"; Self::ROWS].join(",");
        Self { connection, sql: format!("INSERT INTO messages VALUES {values}"), log_id: 0 }
    }

    async fn insert(&mut self, messages: &[Append]) {
        self.connection.execute("BEGIN IMMEDIATE").await.expect("begin");
        for rows in messages.chunks_exact(Self::ROWS) {
            let mut insert = sqlx::query(&self.sql);
            for message in rows {
                self.log_id += 1;
                // As scattered as topics are.
                let topic = i64::from(message.sealed.message_id().0.as_fields().0) % 20_000;
                insert = insert
                    .bind(self.log_id)
                    .bind(topic)
                    .bind(message.sealed.message_id().0)
                    .bind(message.sealed.sender().0)
                    .bind(1)
                    .bind(0)
                    .bind(1)
                    .bind(1_800_000_000_000_i64)
                    .bind(None::<i64>)
                    .bind(message.sealed.bytes().as_ref());
            }
            insert.execute(&mut self.connection).await.expect("insert");
        }
        self.connection.execute("COMMIT").await.expect("commit");
    }
}
