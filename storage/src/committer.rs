//! Commits messages, many at a time, in the order in which they were submitted.
//!
//! ```text
//! try_reserve → (authorize, seal) → submit ─┐ sync, in order, bounded in bytes
//!                                           ▼
//!                     writer:  batch → MessageLog::append → CommitSink::committed → next batch
//! ```
//!
//! A store that is away is asked again, with the same batch under the same number, for as long as the
//! process lives: publishers get their PUBACK late, and never for what is not committed. A batch that
//! the store refuses is split until the message at fault stands alone, and that one fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sotto_model::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, COMMIT_QUEUE_BYTES_MAX, PACKET_BYTES_MAX};
use sotto_model::{Backoff, Clock, UnixMillis};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::batch::BatchBound;
use crate::budget::{Budget, Reservation};
use crate::error::StoreError;
use crate::group_commit::{Closed, GroupReceiver, GroupSender, group_commit};
use crate::message_log::{Append, Batch, MessageLog, Placed};

/// Between two attempts at the same batch.
const RETRY: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(2) };
/// Between two pings of an idle store.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A ping or a commit that takes longer makes the store unhealthy.
const STALLED_AFTER: Duration = Duration::from_secs(5);

const BOUND: BatchBound = BatchBound { records: BATCH_RECORDS_MAX, bytes: BATCH_BYTES_MAX };
const _: () = assert!(PACKET_BYTES_MAX as usize * 2 < BATCH_BYTES_MAX, "any message fits in a batch");

/// Told what became of the messages, by the writer, between two batches. It must not block.
pub trait CommitSink: Send + Sync + 'static {
    /// What travels beside the message: whom to acknowledge, what to hand to live sessions.
    type Item: Send + 'static;

    /// These are durable, in the order of the log but for those that had been before.
    fn committed(&self, committed_at: UnixMillis, messages: Vec<Committed<Self::Item>>);

    /// The store will not take this one; nothing of it is stored.
    fn refused(&self, item: Self::Item, error: &StoreError);

    /// Bytes are free again after [`Committer::try_reserve`] refused someone.
    fn budget_freed(&self);
}

/// A message that is durable.
pub struct Committed<I> {
    pub placed: Placed,
    pub append: Append,
    pub item: I,
}

pub struct Committer<S: CommitSink> {
    queue: GroupSender<Entry<S::Item>>,
    budget: Budget,
    healthy: watch::Receiver<bool>,
    abandon: CancellationToken,
}

/// The queue was not empty when the deadline came: what was left is not committed, and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("commits were still waiting at the deadline")]
pub struct DrainTimedOut;

impl<S: CommitSink> Committer<S> {
    /// Claims the log, and starts the only task that writes to it. Cancelling `abandon` ends it at once,
    /// leaving what waits uncommitted.
    pub async fn start(
        log: Arc<dyn MessageLog>,
        sink: Arc<S>,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        abandon: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let last_batch = log.claim_writer().await?;
        let abandon = abandon.child_token();
        let budget = Budget::new(COMMIT_QUEUE_BYTES_MAX);
        let health = Arc::new(Health::new(clock.clone()));
        let healthy = health.store.subscribe();
        let (queue, receiver) = group_commit(BOUND, |entry: &Entry<S::Item>| entry.reservation.bytes());
        let probing = abandon.child_token();
        tasks.spawn(probe(log.clone(), health.clone(), probing.clone()));
        let writer = Writer {
            log,
            sink,
            clock,
            next_batch: last_batch + 1,
            health,
            abandon: abandon.clone(),
            _probing: probing.drop_guard(),
        };
        tasks.spawn(writer.run(receiver, budget.clone()));
        Ok(Self { queue, budget, healthy, abandon })
    }

    /// Takes room for a message of that many bytes; `None` while too many wait. Never awaits.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        self.budget.try_reserve(bytes)
    }

    /// Never awaits. The order of calls is the order of the log.
    pub fn submit(
        &self,
        reservation: Reservation,
        append: Append,
        item: S::Item,
    ) -> Result<(), Closed<S::Item>> {
        self.queue.push(Entry { reservation, append, item }).map_err(|Closed(entry)| Closed(entry.item))
    }

    /// Did the store answer when it was last asked, and take the last batch?
    pub fn is_healthy(&self) -> bool {
        *self.healthy.borrow()
    }

    /// The same, to be waited upon.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.clone()
    }

    /// Refuses new messages. What waits is still committed.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Closes, and waits until everything submitted is committed; abandons the rest at the deadline.
    pub async fn drain(&self, deadline: Duration) -> Result<(), DrainTimedOut> {
        self.close();
        let drained = tokio::time::timeout(deadline, self.queue.finished()).await;
        let emptied = drained.is_ok() && !self.abandon.is_cancelled();
        self.abandon.cancel();
        emptied.then_some(()).ok_or(DrainTimedOut)
    }
}

struct Entry<I> {
    reservation: Reservation,
    append: Append,
    item: I,
}

struct Writer<S: CommitSink> {
    log: Arc<dyn MessageLog>,
    sink: Arc<S>,
    clock: Arc<dyn Clock>,
    next_batch: u64,
    health: Arc<Health>,
    abandon: CancellationToken,
    /// Without a writer nothing is healthy, and nobody asks.
    _probing: DropGuard,
}

/// Consecutive messages that are committed together or not at all. Appends and items run in parallel.
struct Part<I> {
    appends: Vec<Append>,
    items: Vec<(I, Reservation)>,
}

/// How an attempt that is not repeated ended.
enum AppendEnd {
    Committed(Vec<Placed>),
    Refused(StoreError),
    Abandoned,
}

impl<S: CommitSink> Writer<S> {
    async fn run(mut self, mut queue: GroupReceiver<Entry<S::Item>>, budget: Budget) {
        loop {
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => break,
                () = budget.freed() => self.sink.budget_freed(),
                batch = queue.next_batch() => {
                    let Some(batch) = batch else { break };
                    metrics::gauge!("sotto_commit_queue_bytes").set(as_f64(budget.bytes_taken()));
                    self.commit(batch).await;
                }
            }
            metrics::gauge!("sotto_commit_queue_bytes").set(as_f64(budget.bytes_taken()));
        }
    }

    async fn commit(&mut self, entries: Vec<Entry<S::Item>>) {
        let committed_at = self.clock.unix_now();
        let mut parts = vec![Part::new(entries)];
        while let Some(part) = parts.pop() {
            let batch = Batch { number: self.next_batch, appends: part.appends, committed_at };
            let end = self.append(&batch).await;
            let part = Part { appends: batch.appends, items: part.items };
            match end {
                AppendEnd::Committed(placed) => {
                    self.next_batch += 1;
                    self.sink.committed(committed_at, part.committed(placed));
                }
                AppendEnd::Refused(error) => match part.halves() {
                    // The first half is appended first: what is last on the stack.
                    Ok((first, second)) => parts.extend([second, first]),
                    Err(item) => {
                        metrics::counter!("sotto_commit_refused_total").increment(1);
                        self.sink.refused(item, &error);
                    }
                },
                AppendEnd::Abandoned => return,
            }
        }
    }

    async fn append(&self, batch: &Batch) -> AppendEnd {
        let _busy = self.health.busy();
        let mut failures = 0u32;
        loop {
            let started = self.clock.now();
            let appended = tokio::select! {
                biased;
                appended = self.log.append(batch) => appended,
                () = self.abandon.cancelled() => return AppendEnd::Abandoned,
            };
            match appended {
                Ok(placed) => {
                    assert_eq!(placed.len(), batch.appends.len(), "a store returns one place a message");
                    self.health.set(true);
                    if failures > 0 {
                        tracing::info!(failures, "the store takes commits again");
                    }
                    metrics::histogram!("sotto_commit_batch_records").record(as_f64(placed.len()));
                    let took = self.clock.now().saturating_duration_since(started);
                    metrics::histogram!("sotto_commit_seconds").record(took);
                    return AppendEnd::Committed(placed);
                }
                Err(error) if error.is_transient() => {
                    self.health.set(false);
                    failures = failures.saturating_add(1);
                    metrics::counter!("sotto_commit_retries_total").increment(1);
                    if failures == 1 {
                        tracing::warn!(%error, "a commit is being retried");
                    }
                    tokio::select! {
                        biased;
                        () = self.abandon.cancelled() => return AppendEnd::Abandoned,
                        () = tokio::time::sleep(RETRY.delay(failures, self.clock.draw())) => {}
                    }
                }
                Err(error) => return AppendEnd::Refused(error),
            }
        }
    }
}

impl<I> Part<I> {
    fn new(entries: Vec<Entry<I>>) -> Self {
        let (appends, items) =
            entries.into_iter().map(|entry| (entry.append, (entry.item, entry.reservation))).unzip();
        Self { appends, items }
    }

    /// The message alone, where there is only one.
    fn halves(mut self) -> Result<(Self, Self), I> {
        if self.items.len() == 1 {
            let (item, _) = self.items.remove(0);
            return Err(item);
        }
        let middle = self.items.len() / 2;
        let second = Self { appends: self.appends.split_off(middle), items: self.items.split_off(middle) };
        Ok((self, second))
    }

    /// Gives the reservations back: from here on the sink's own bounds hold.
    fn committed(self, placed: Vec<Placed>) -> Vec<Committed<I>> {
        placed
            .into_iter()
            .zip(self.appends)
            .zip(self.items)
            .map(|((placed, append), (item, _))| Committed { placed, append, item })
            .collect()
    }
}

impl<S: CommitSink> Drop for Writer<S> {
    fn drop(&mut self) {
        self.health.store.send_replace(false);
    }
}

/// What the readiness check asks.
struct Health {
    clock: Arc<dyn Clock>,
    /// The store answered last.
    store: watch::Sender<bool>,
    /// When the batch under way was first tried, ms since the epoch; 0 while there is none.
    busy_since: AtomicU64,
}

/// A batch is under way.
struct Busy<'a>(&'a Health);

impl Health {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, store: watch::Sender::new(true), busy_since: AtomicU64::new(0) }
    }

    fn busy(&self) -> Busy<'_> {
        self.busy_since.store(self.clock.unix_now().0.max(1), Ordering::Relaxed);
        Busy(self)
    }

    fn busy_since(&self) -> Option<UnixMillis> {
        Some(self.busy_since.load(Ordering::Relaxed)).filter(|since| *since != 0).map(UnixMillis)
    }

    fn set(&self, healthy: bool) {
        self.store.send_if_modified(|was| std::mem::replace(was, healthy) != healthy);
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy_since.store(0, Ordering::Relaxed);
    }
}

/// Asks the store how it is while no batch does: a batch is the better witness.
async fn probe(log: Arc<dyn MessageLog>, health: Arc<Health>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PING_INTERVAL)).await.is_some() {
        if let Some(since) = health.busy_since() {
            if health.clock.unix_now().since(since) > STALLED_AFTER {
                health.set(false);
            }
            continue;
        }
        let ping = stop.run_until_cancelled(tokio::time::timeout(STALLED_AFTER, log.ping())).await;
        let Some(ping) = ping else { return };
        if health.busy_since().is_none() {
            health.set(matches!(ping, Ok(Ok(()))));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
