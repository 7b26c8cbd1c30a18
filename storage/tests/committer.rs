//! The committer against a log that fails in every way that a database can.

mod support;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use sotto_model::limits::COMMIT_QUEUE_BYTES_MAX;
use sotto_model::{MessageId, TenantId, UnixMillis};
use sotto_storage::committer::DrainTimedOut;
use sotto_storage::{CommitSink, Committed, Committer, StoreError};
use support::clock::FixedClock;
use support::log::{Fault, FaultyLog};
use support::sealer::Sealer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const TENANT: TenantId = TenantId(Uuid::from_u128(1));

#[derive(Default)]
struct Record {
    /// Message numbers, with their offsets, as they were reported durable.
    committed: Mutex<Vec<(u128, u64)>>,
    refused: Mutex<Vec<u128>>,
    budget_freed: Mutex<u32>,
}

impl CommitSink for Record {
    type Item = u128;

    fn committed(&self, _: UnixMillis, messages: Vec<Committed<u128>>) {
        let messages = messages.into_iter().map(|message| (message.item, message.placed.offset().0));
        self.committed.lock().extend(messages);
    }

    fn refused(&self, item: u128, _: &StoreError) {
        self.refused.lock().push(item);
    }

    fn budget_freed(&self) {
        *self.budget_freed.lock() += 1;
    }
}

struct Bench {
    log: Arc<FaultyLog>,
    sink: Arc<Record>,
    committer: Committer<Record>,
    sealer: Sealer,
    tasks: TaskTracker,
}

impl Bench {
    async fn new() -> Self {
        let log = Arc::new(FaultyLog::default());
        let sink = Arc::new(Record::default());
        let tasks = TaskTracker::new();
        let abandon = CancellationToken::new();
        let committer = Committer::start(log.clone(), sink.clone(), FixedClock::new(), &tasks, &abandon)
            .await
            .expect("the log is there");
        Self { log, sink, committer, sealer: Sealer::new(), tasks }
    }

    async fn submit(&self, tenant: TenantId, message: u128) {
        let append = self.sealer.append(tenant, message).await;
        let reservation = self.committer.try_reserve(append.sealed.bytes().len()).expect("room");
        self.committer.submit(reservation, append, message).expect("open");
    }

    async fn drain(&self) -> Result<(), DrainTimedOut> {
        let drained = self.committer.drain(Duration::from_mins(1)).await;
        self.tasks.close();
        self.tasks.wait().await;
        drained
    }

    fn committed(&self) -> Vec<u128> {
        self.sink.committed.lock().iter().map(|(message, _)| *message).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_of_submission_is_the_order_of_the_log() {
    let bench = Bench::new().await;
    for message in 1..=3000 {
        bench.submit(TENANT, message).await;
    }
    assert_eq!(bench.drain().await, Ok(()));
    let expected: Vec<(u128, u64)> = (1..=3000u64).map(|n| (n.into(), n)).collect();
    assert_eq!(*bench.sink.committed.lock(), expected);
    assert!(bench.log.batch_records().len() < 3000, "messages are committed in groups");
    assert!(bench.log.batch_records().iter().all(|records| *records <= 1024));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reported_durable_while_the_store_is_away() {
    let bench = Bench::new().await;
    bench.log.set_away(true);
    bench.submit(TENANT, 1).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(bench.committed().is_empty());
    assert!(!bench.committer.is_healthy());
    bench.submit(TENANT, 2).await;
    bench.log.set_away(false);
    assert_eq!(
        bench.committer.health().wait_for(|healthy| *healthy).await.map(|healthy| *healthy).ok(),
        Some(true)
    );
    assert_eq!(bench.drain().await, Ok(()));
    assert_eq!(bench.committed(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_answer_was_lost_is_committed_once() {
    let bench = Bench::new().await;
    bench.log.fail([Fault::AnswerLost, Fault::Unavailable]);
    bench.submit(TENANT, 1).await;
    bench.submit(TENANT, 2).await;
    assert_eq!(bench.drain().await, Ok(()));
    assert_eq!(bench.committed(), [1, 2]);
    assert_eq!(bench.log.committed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_store_refuses_fails_alone() {
    let bench = Bench::new().await;
    for bad in [3, 4, 10] {
        bench.log.poison(MessageId(Uuid::from_u128(bad)));
    }
    for message in 1..=10 {
        bench.submit(TENANT, message).await;
    }
    assert_eq!(bench.drain().await, Ok(()));
    assert_eq!(bench.committed(), [1, 2, 5, 6, 7, 8, 9]);
    assert_eq!(*bench.sink.refused.lock(), [3, 4, 10]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_store_that_goes_away_is_noticed() {
    let bench = Bench::new().await;
    assert!(bench.committer.is_healthy());
    bench.log.set_away(true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!bench.committer.is_healthy());
    bench.log.set_away(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(bench.committer.is_healthy());
    assert_eq!(bench.drain().await, Ok(()));
    assert!(!bench.committer.is_healthy(), "without a writer nothing is healthy");
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_behind_what_the_store_will_not_take_in_time() {
    let bench = Bench::new().await;
    bench.log.set_away(true);
    bench.submit(TENANT, 1).await;
    assert_eq!(bench.drain().await, Err(DrainTimedOut));
    assert!(bench.committed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_closed_committer_takes_nothing_new() {
    let bench = Bench::new().await;
    let append = bench.sealer.append(TENANT, 1).await;
    let reservation = bench.committer.try_reserve(1).expect("room");
    bench.committer.close();
    assert_eq!(bench.committer.submit(reservation, append, 1).expect_err("closed").0, 1);
    assert_eq!(bench.drain().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn whoever_found_no_room_is_told_when_there_is_some() {
    let bench = Bench::new().await;
    let append = bench.sealer.append(TENANT, 1).await;
    let reservation = bench.committer.try_reserve(COMMIT_QUEUE_BYTES_MAX / 2).expect("room");
    assert!(bench.committer.try_reserve(COMMIT_QUEUE_BYTES_MAX / 2).is_none());
    bench.committer.submit(reservation, append, 1).expect("open");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(*bench.sink.budget_freed.lock(), 1);
    assert!(bench.committer.try_reserve(COMMIT_QUEUE_BYTES_MAX / 2).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_message_ends_once_and_in_order_whatever_fails(
        tenants in prop::collection::vec(1u128..4, 1..60),
        faults in prop::collection::vec(prop::sample::select(vec![Fault::Unavailable, Fault::AnswerLost]), 0..10),
        poisoned in prop::collection::hash_set(1u128..60, 0..6),
        pauses in prop::collection::vec(0u8..4, 60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let bench = Bench::new().await;
            bench.log.fail(faults);
            for message in &poisoned {
                bench.log.poison(MessageId(Uuid::from_u128(*message)));
            }
            let mut good = Vec::new();
            for ((tenant, message), pause) in tenants.iter().zip(1u128..).zip(pauses) {
                if !poisoned.contains(&message) {
                    good.push(message);
                }
                bench.submit(TenantId(Uuid::from_u128(*tenant)), message).await;
                for _ in 0..pause {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(bench.drain().await, Ok(()));
            assert_eq!(bench.committed(), good);
            let durable: Vec<u128> = bench.log.committed().iter().map(|id| id.0.as_u128()).collect();
            assert_eq!(durable, good, "what is durable is what was reported");
            let mut refused = bench.sink.refused.lock().clone();
            refused.sort_unstable();
            let mut bad: Vec<_> = poisoned.into_iter().filter(|n| *n <= tenants.len() as u128).collect();
            bad.sort_unstable();
            assert_eq!(refused, bad);
            for tenant in 1..4 {
                let of_tenant = bench.sink.committed.lock().clone().into_iter();
                let offsets: Vec<u64> = of_tenant
                    .filter(|(message, _)| tenants[usize::try_from(message - 1).expect("small")] == tenant)
                    .map(|(_, offset)| offset)
                    .collect();
                assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>());
            }
        });
    }
}
