//! The relay while messages flow: does it keep up, and does a turn, or a commit beside it, grow slower with what has
//! gone through? Two relays at once, as two processes would; all messages go to one conversation, two of whose three
//! members sleep.
//!
//! `cargo bench -p benches --bench relay -- sqlite|postgres [MESSAGES]`

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::again;
use sotto_model::Offset;
use sotto_postgres::testing::{Durability, Server};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_storage::Store;
use sotto_storage::conformance::fixture::{Fixture, Fresh, NOW};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const MESSAGES: usize = 1_000_000;
const BATCH: usize = 256;
const RELAYS: usize = 2;
/// As the broker takes them.
const ROWS_PER_TURN: usize = 1000;
const PAUSE: Duration = Duration::from_millis(5);

fn main() {
    let messages = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("start a runtime");
    println!("                             quarter by quarter, ms: p50/p99");
    for store in
        ["sqlite", "postgres"].into_iter().filter(|store| std::env::args().any(|argument| argument == *store))
    {
        runtime.block_on(async {
            let fixture = if store == "sqlite" { sqlite().await } else { postgres().await };
            measure(store, fixture, messages).await;
        });
    }
}

async fn sqlite() -> Fixture {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
    Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(folder) }).await
}

async fn postgres() -> Fixture {
    let server = Server::start(Durability::Full);
    let store =
        PostgresStore::connect(&server.url("postgres"), PostgresOptions::default()).await.expect("open");
    Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(server) }).await
}

async fn measure(name: &str, fixture: Fixture, messages: usize) {
    fixture.asleep(&fixture.bob, Offset(0)).await;
    fixture.asleep(&fixture.carol, Offset(0)).await;
    let message = fixture.message_of(&fixture.alice, &fixture.ward_topic(), &[0x5a; 300]).await;
    let over = Arc::new(AtomicBool::new(false));
    let relays: Vec<_> = (0..RELAYS).map(|_| relay(fixture.store.clone(), over.clone())).collect();
    let mut commits = Vec::new();
    let start = Instant::now();
    for _ in 0..messages / BATCH {
        let batch = fixture.batch((0..BATCH).map(|_| again(&message)).collect());
        let begun = Instant::now();
        fixture.store.append(&batch).await.expect("append");
        commits.push(begun.elapsed());
    }
    let appended_in = start.elapsed();
    over.store(true, Ordering::Relaxed);
    let (mut turns, mut relayed) = (Vec::new(), 0);
    for relay in relays {
        let (of_one, messages) = relay.await.expect("a relay does not panic");
        turns.extend(of_one);
        relayed += messages;
    }
    let relayed_in = start.elapsed();
    turns.sort_unstable_by_key(|(at, _)| *at);
    assert_eq!(fixture.store.lag(NOW).await.expect("lag").messages, 0, "all went through");
    let per_second =
        |took: Duration| f64::from(u32::try_from(relayed).expect("a run that ends")) / took.as_secs_f64();
    println!("{name:<9} commits of {BATCH}: {}", quarters(&commits));
    println!(
        "{name:<9} turns of the relay: {}",
        quarters(&turns.iter().map(|(_, took)| *took).collect::<Vec<_>>())
    );
    println!(
        "{name:<9} {relayed} messages committed at {:.0}/s, relayed at {:.0}/s, the last {:.2} s after its commit",
        per_second(appended_in),
        per_second(relayed_in),
        relayed_in.saturating_sub(appended_in).as_secs_f64()
    );
}

/// Until the messages are over and the outbox is empty. When each turn that found something began, and how long
/// it took; and how many messages it was in all.
fn relay(store: Arc<dyn Store>, over: Arc<AtomicBool>) -> JoinHandle<(Vec<(Instant, Duration)>, u64)> {
    tokio::spawn(async move {
        let (mut turns, mut messages) = (Vec::new(), 0);
        loop {
            let is_last = over.load(Ordering::Relaxed);
            let begun = Instant::now();
            let relayed = store.relay(ROWS_PER_TURN, NOW).await.expect("relay");
            if relayed.messages > 0 {
                turns.push((begun, begun.elapsed()));
                messages += relayed.messages;
            } else if is_last && store.lag(NOW).await.expect("lag").messages == 0 {
                return (turns, messages);
            }
            sleep(PAUSE).await;
        }
    })
}

fn quarters(took: &[Duration]) -> String {
    let quarter = took.len().div_ceil(4).max(1);
    let percentiles = took.chunks(quarter).map(|quarter| {
        let mut quarter = quarter.to_vec();
        quarter.sort_unstable();
        let at = |percent: usize| quarter[(quarter.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        format!("{:.1}/{:.1}", at(50), at(99))
    });
    percentiles.collect::<Vec<_>>().join("  ")
}
