//! Messages per second through `MessageLog::append`, against the limit: the same message rows put into a
//! table of the same shape, durable like them, with no outbox, counter or topics. On SQLite by multi-row
//! INSERTs; on PostgreSQL, for which a server is started, by COPY in binary format.
//!
//! `cargo bench -p benches --bench commit [-- sqlite|postgres] [MESSAGES]`

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::again;
use sotto_model::TopicName;
use sotto_model::limits::BATCH_RECORDS_MAX;
use sotto_postgres::testing::{Durability, Server};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_sqlite::limits::CHECKPOINT_EVERY;
use sotto_storage::conformance::fixture::{Fixture, Fresh};
use sotto_storage::message_log::Append;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, SqliteConnection};
use uuid::Uuid;

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
    let only = std::env::args().skip(1).find(|argument| argument == "sqlite" || argument == "postgres");
    let wanted = |store: &str| only.as_deref().is_none_or(|only| only == store);
    for batch in BATCHES.into_iter().filter(|_| wanted("sqlite")) {
        report("sqlite", batch, runtime.block_on(sqlite(batch, messages)));
    }
    for batch in BATCHES.into_iter().filter(|_| wanted("postgres")) {
        report("postgres", batch, runtime.block_on(postgres(batch, messages)));
    }
}

/// How long each commit took.
struct Times {
    append: Vec<Duration>,
    raw: Vec<Duration>,
}

/// What the log is held against: rows, and a commit.
trait Limit {
    async fn insert(&mut self, messages: &[Append]);
}

async fn sqlite(batch: usize, messages: usize) -> Times {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Arc::new(SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open"));
    let mut raw = SqliteRaw::open(&folder.path().join("raw.db")).await;
    let fixture = Fixture::new(Fresh { store: Arc::clone(&store) as _, keep: Box::new(folder) }).await;
    let checkpoints = tokio::spawn(async move {
        loop {
            tokio::time::sleep(CHECKPOINT_EVERY).await;
            store.checkpoint().await.expect("checkpoint");
        }
    });
    let times = measure(&fixture, &mut raw, batch, messages).await;
    checkpoints.abort();
    times
}

async fn postgres(batch: usize, messages: usize) -> Times {
    let server = Server::start(Durability::Full);
    let options = PostgresOptions::default();
    let store = PostgresStore::connect(&server.url("postgres"), options).await.expect("open");
    let mut raw = PostgresRaw::open(&server.url("template1")).await;
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(server) }).await;
    measure(&fixture, &mut raw, batch, messages).await
}

/// The two take turns, so that whatever else the machine does falls on both.
async fn measure(fixture: &Fixture, raw: &mut impl Limit, batch: usize, messages: usize) -> Times {
    let pool = sealed(fixture).await;
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
        let topic = TopicName::parse(&format!("c/{}/m", Uuid::new_v4())).expect("topic");
        let payload = vec![0x5a; 200 + number * 7919 % 201];
        pool.push(fixture.message_of(&fixture.robot, &topic, &payload).await);
    }
    pool
}

fn take(pool: &[Append], next: &mut Shuffle, count: usize) -> Vec<Append> {
    (0..count).map(|_| again(&pool[next.below(pool.len())])).collect()
}

/// A topic's number, as scattered as topics are.
fn scattered(message: &Append) -> i64 {
    i64::from(message.sealed.message_id().0.as_fields().0) % 20_000
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
}

impl Limit for SqliteRaw {
    async fn insert(&mut self, messages: &[Append]) {
        self.connection.execute("BEGIN IMMEDIATE").await.expect("begin");
        for rows in messages.chunks_exact(Self::ROWS) {
            let mut insert = sqlx::query(&self.sql);
            for message in rows {
                self.log_id += 1;
                insert = insert
                    .bind(self.log_id)
                    .bind(scattered(message))
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

struct PostgresRaw {
    connection: PgConnection,
    log_offset: i64,
}

impl PostgresRaw {
    async fn open(url: &str) -> Self {
        let mut connection = PgConnection::connect(url).await.expect("connect");
        connection
            .execute(
                "CREATE TABLE messages (tenant_id uuid NOT NULL, log_offset bigint NOT NULL,
                     topic_id bigint NOT NULL, committed_at_ms bigint NOT NULL, expires_at_ms bigint,
                     message_id uuid NOT NULL, sender_id uuid NOT NULL, qos smallint NOT NULL,
                     retain boolean NOT NULL, wakes boolean NOT NULL, sealed bytea NOT NULL, low boolean NOT NULL);
                 CREATE UNIQUE INDEX ON messages (tenant_id, log_offset);
                 CREATE INDEX ON messages (topic_id, log_offset)",
            )
            .await
            .expect("make table");
        Self { connection, log_offset: 0 }
    }
}

impl Limit for PostgresRaw {
    async fn insert(&mut self, messages: &[Append]) {
        let mut rows = CopyRows::begin();
        for message in messages {
            self.log_offset += 1;
            rows.push(self.log_offset, message);
        }
        let copy = "COPY messages FROM STDIN WITH (FORMAT binary)";
        let mut copy = self.connection.copy_in_raw(copy).await.expect("begin to copy");
        copy.send(rows.end()).await.expect("send rows");
        copy.finish().await.expect("commit");
    }
}

/// Rows as COPY reads them: each value behind its length, big endian.
struct CopyRows(Vec<u8>);

impl CopyRows {
    fn begin() -> Self {
        Self(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec())
    }

    fn push(&mut self, log_offset: i64, message: &Append) {
        let sealed = &message.sealed;
        self.0.extend(12_i16.to_be_bytes());
        self.value(sealed.tenant().0.as_bytes());
        self.value(&log_offset.to_be_bytes());
        self.value(&scattered(message).to_be_bytes());
        self.value(&1_800_000_000_000_i64.to_be_bytes());
        // NULL.
        self.0.extend((-1_i32).to_be_bytes());
        self.value(sealed.message_id().0.as_bytes());
        self.value(sealed.sender().0.as_bytes());
        self.value(&1_i16.to_be_bytes());
        self.value(&[0]);
        self.value(&[1]);
        self.value(sealed.bytes());
        self.value(&[0]);
    }

    fn value(&mut self, bytes: &[u8]) {
        self.0.extend(i32::try_from(bytes.len()).expect("a short value").to_be_bytes());
        self.0.extend(bytes);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend((-1_i16).to_be_bytes());
        self.0
    }
}
