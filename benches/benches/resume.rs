//! What it costs to read what a session has missed: 20 conversations out of 20,000, by pages, with one
//! reader. The limit: the bodies alone, got by their offsets. And a storm: all sessions at once.
//!
//! `cargo bench -p benches --bench resume [-- sqlite|postgres] [MESSAGES]`

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::again;
use sotto_model::limits::{PAGE_BYTES_MAX, PAGE_RECORDS_MAX};
use sotto_model::{Offset, TopicFilter, TopicName};
use sotto_postgres::testing::{Durability, Server};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_storage::conformance::fixture::{Fixture, Fresh};
use sotto_storage::message_log::{Append, PageLimit, Selector, StoredMessage};

const TOPICS: usize = 20_000;
const TOPICS_PER_SESSION: usize = 20;
const MESSAGES: usize = 200_000;
const SESSIONS: usize = 200;
const STORM_SESSIONS: usize = 2_000;
const LIMIT: PageLimit = PageLimit { records: PAGE_RECORDS_MAX, bytes: PAGE_BYTES_MAX };

fn main() {
    let messages = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("start a runtime");
    println!("store    missed  median ms/session   limit   storm, sessions/s");
    let only = std::env::args().skip(1).find(|argument| argument == "sqlite" || argument == "postgres");
    let wanted = |store: &str| only.as_deref().is_none_or(|only| only == store);
    if wanted("sqlite") {
        runtime.block_on(async { measure("sqlite", sqlite().await, messages).await });
    }
    if wanted("postgres") {
        runtime.block_on(async { measure("postgres", postgres().await, messages).await });
    }
}

async fn sqlite() -> Fixture {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
    Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(folder) }).await
}

async fn postgres() -> Fixture {
    // What is read needs no disk that lasts; filling it is quicker so.
    let server = Server::start(Durability::None);
    let store =
        PostgresStore::connect(&server.url("postgres"), PostgresOptions::default()).await.expect("open");
    Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(server) }).await
}

async fn measure(store: &str, fixture: Fixture, messages: usize) {
    fill(&fixture, messages).await;
    let head = u64::try_from(messages).expect("a count of messages");
    for share in [1, 50, 1000] {
        // Of the last messages, evenly spread, a session's topics hold one thousandth.
        let after = Offset(head.saturating_sub(share * 1000));
        let (mut took, mut limit) = (Vec::new(), Vec::new());
        let mut missed = 0;
        for session in 0..SESSIONS {
            let selectors = selectors(session, after);
            let start = Instant::now();
            let found = resume(&fixture, &selectors, after, Offset(head)).await;
            took.push(start.elapsed());
            missed += found.len();
            let offsets: Vec<Offset> = found.iter().map(|message| message.offset).collect();
            let start = Instant::now();
            for page in offsets.chunks(PAGE_RECORDS_MAX) {
                fixture.store.get(fixture.lab, page).await.expect("get");
            }
            limit.push(start.elapsed());
        }
        let median_ms = |mut took: Vec<Duration>| {
            took.sort_unstable();
            took[took.len() / 2].as_secs_f64() * 1e3
        };
        println!(
            "{store:<8} {:>6} {:>18.2} {:>7.2} {:>19.0}",
            missed.div_ceil(SESSIONS),
            median_ms(took),
            median_ms(limit),
            storm(&fixture, after, Offset(head)).await,
        );
    }
}

/// Sessions a second, where all come at once and each waits for its own pages.
async fn storm(fixture: &Fixture, after: Offset, head: Offset) -> f64 {
    let start = Instant::now();
    let sessions = (0..STORM_SESSIONS).map(|session| {
        let selectors = selectors(session, after);
        async move { resume(fixture, &selectors, after, head).await.len() }
    });
    let read: usize = futures::future::join_all(sessions).await.into_iter().sum();
    assert!(read > 0, "something was missed");
    f64::from(u32::try_from(STORM_SESSIONS).expect("a small number")) / start.elapsed().as_secs_f64()
}

fn selectors(session: usize, after: Offset) -> Vec<Selector> {
    (0..TOPICS_PER_SESSION)
        .map(|place| (session * TOPICS_PER_SESSION + place * 997) % TOPICS)
        .map(|number| Selector { filter: TopicFilter::parse(&name(number)).expect("filter"), after })
        .collect()
}

async fn resume(fixture: &Fixture, selectors: &[Selector], from: Offset, head: Offset) -> Vec<StoredMessage> {
    let mut found = Vec::new();
    let mut after = from;
    while after < head {
        let page = fixture.store.read(fixture.lab, selectors, after, head, LIMIT).await.expect("read");
        after = page.scanned_to;
        found.extend(page.messages);
    }
    found
}

/// Every topic in turn, in an order that keeps neighbours apart; 300 bytes each.
async fn fill(fixture: &Fixture, messages: usize) {
    let mut pool = Vec::with_capacity(TOPICS);
    for number in 0..TOPICS {
        let topic = TopicName::parse(&name(number * 7919 % TOPICS)).expect("topic");
        pool.push(fixture.message_of(&fixture.robot, &topic, &[0x5a; 300]).await);
    }
    let mut written = 0;
    while written < messages {
        let batch = (written..messages.min(written + 1000))
            .map(|place| Append { wakes: None, ..again(&pool[place % TOPICS]) })
            .collect::<Vec<_>>();
        written += batch.len();
        fixture.append(batch).await;
    }
}

fn name(number: usize) -> String {
    format!("c/{}/m", uuid::Uuid::from_u128(0x1234_5678 << 96 | number as u128))
}
