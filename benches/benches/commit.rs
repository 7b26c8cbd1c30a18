//! Messages per second through `MessageLog::append`, against the limit: multi-row INSERTs of the same
//! message rows into a table of the same shape, durable like them, with no outbox, counter or topics.
//!
//! `cargo bench -p benches --bench commit [-- MESSAGES]`

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_model::TopicName;
use sotto_sqlite::SqliteStore;
use sotto_sqlite::limits::CHECKPOINT_EVERY;
use sotto_storage::conformance::fixture::{Fixture, Fresh};
use sotto_storage::message_log::{Append, RetainChange};

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
    println!("store    batch   append/s      raw/s   ratio   µs/message   p99 ms   slowest ms");
    for batch in BATCHES {
        let (commits, raw) = runtime.block_on(sqlite(batch, messages));
        report("sqlite", batch, commits, raw);
    }
}

/// The time of every commit, and of the same messages inserted.
async fn sqlite(batch: usize, messages: usize) -> (Vec<Duration>, Duration) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
    let store = Arc::new(store);
    let fixture = Fixture::new(Fresh { store: Arc::clone(&store) as _, keep: Box::new(folder) }).await;
    let pool = sealed(&fixture).await;
    let checkpoints = tokio::spawn(async move {
        loop {
            tokio::time::sleep(CHECKPOINT_EVERY).await;
            store.checkpoint().await.expect("checkpoint");
        }
    });
    let commits = through_the_log(&fixture, &pool, batch, messages).await;
    checkpoints.abort();
    drop(fixture);
    let raw = sqlite_raw::insert(&pool, batch, messages).await;
    (commits, raw)
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

/// After every topic has been written to once.
async fn through_the_log(fixture: &Fixture, pool: &[Append], batch: usize, messages: usize) -> Vec<Duration> {
    let mut next = Shuffle::default();
    let mut take = |count: usize| {
        (0..count)
            .map(|_| {
                let message = &pool[next.below(pool.len())];
                Append {
                    sealed: message.sealed.clone(),
                    qos: message.qos,
                    retain: RetainChange::Keep,
                    expires_at: None,
                    wakes: true,
                    exactly_once: None,
                }
            })
            .collect::<Vec<_>>()
    };
    for _ in 0..TOPICS / 1000 {
        fixture.append(take(1000)).await;
    }
    let mut commits = Vec::with_capacity(messages / batch);
    for _ in 0..messages / batch {
        let batch = fixture.batch(take(batch));
        let start = Instant::now();
        fixture.store.append(&batch).await.expect("append");
        commits.push(start.elapsed());
    }
    commits
}

fn report(store: &str, batch: usize, mut commits: Vec<Duration>, raw: Duration) {
    let messages = u32::try_from(commits.len() * batch).expect("a count of messages");
    let append: Duration = commits.iter().sum();
    commits.sort_unstable();
    let milliseconds = |place: usize| commits[place].as_secs_f64() * 1e3;
    let per_second = |took: Duration| f64::from(messages) / took.as_secs_f64();
    println!(
        "{store:<8} {batch:>5} {:>10.0} {:>10.0} {:>7.2} {:>12.1} {:>8.1} {:>12.1}",
        per_second(append),
        per_second(raw),
        raw.as_secs_f64() / append.as_secs_f64(),
        1e6 / per_second(append),
        milliseconds(commits.len() * 99 / 100),
        milliseconds(commits.len() - 1),
    );
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

mod sqlite_raw {
    use std::time::{Duration, Instant};

    use sotto_storage::message_log::Append;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
    use sqlx::{ConnectOptions, Executor};

    use super::{Shuffle, TOPICS};

    const ROWS: usize = 64;

    pub(super) async fn insert(pool: &[Append], batch: usize, messages: usize) -> Duration {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut connection = SqliteConnectOptions::new()
            .filename(folder.path().join("raw.db"))
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
        let values = vec!["(?,?,?,?,?,?,?,?,?,?)"; ROWS].join(",");
        let sql = format!("INSERT INTO messages VALUES {values}");
        let mut next = Shuffle::default();
        let mut log_id = 0_i64;
        let mut took = Duration::ZERO;
        let warm = TOPICS / batch;
        for number in 0..warm + messages / batch {
            let start = Instant::now();
            connection.execute("BEGIN IMMEDIATE").await.expect("begin");
            for _ in 0..batch / ROWS {
                let mut insert = sqlx::query(&sql);
                for _ in 0..ROWS {
                    log_id += 1;
                    let topic = next.below(pool.len());
                    let message = &pool[topic];
                    insert = insert
                        .bind(log_id)
                        .bind(i64::try_from(topic).expect("a small number"))
                        .bind(message.sealed.message_id().0)
                        .bind(message.sealed.sender().0)
                        .bind(1)
                        .bind(0)
                        .bind(1)
                        .bind(1_800_000_000_000_i64)
                        .bind(None::<i64>)
                        .bind(message.sealed.bytes().as_ref());
                }
                insert.execute(&mut connection).await.expect("insert");
            }
            connection.execute("COMMIT").await.expect("commit");
            if number >= warm {
                took += start.elapsed();
            }
        }
        took
    }
}
