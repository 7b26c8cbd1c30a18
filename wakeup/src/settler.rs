//! Writes what became of pushes, many in one transaction.

use std::sync::Arc;

use sotto_model::{Clock, UnixMillis};
use sotto_storage::outbox::{ClaimedWakeup, Outbox, Settlement};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{SETTLEMENTS_PER_WRITE_MAX, SETTLEMENTS_QUEUED_MAX, STORE_BACKOFF};

/// The way in. The writing task ends when the last of them is gone.
#[derive(Clone)]
pub(crate) struct Settlements(mpsc::Sender<Settled>);

struct Settled {
    wakeup: ClaimedWakeup,
    settlement: Settlement,
    lease_until: UnixMillis,
}

struct Settler {
    outbox: Arc<dyn Outbox>,
    clock: Arc<dyn Clock>,
    settled: mpsc::Receiver<Settled>,
    stop: CancellationToken,
}

impl Settlements {
    pub(crate) fn start(
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, settled) = mpsc::channel(SETTLEMENTS_QUEUED_MAX);
        tasks.spawn(Settler { outbox, clock, settled, stop }.run());
        Self(queue)
    }

    /// Waits only for room.
    pub(crate) async fn settle(
        &self,
        wakeup: ClaimedWakeup,
        settlement: Settlement,
        lease_until: UnixMillis,
    ) {
        // The receiver outlives all senders; were it gone, the lease would end by itself.
        let _ = self.0.send(Settled { wakeup, settlement, lease_until }).await;
    }
}

impl Settler {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(SETTLEMENTS_PER_WRITE_MAX);
        while self.settled.recv_many(&mut batch, SETTLEMENTS_PER_WRITE_MAX).await > 0 {
            let lease_until = batch.iter().map(|one| one.lease_until).max().expect("one was received");
            let settled: Vec<_> = batch.drain(..).map(|one| (one.wakeup, one.settlement)).collect();
            self.write(&settled, lease_until).await;
        }
    }

    /// Tries until the leases end: what was pushed and is not settled would be pushed again.
    async fn write(&self, settled: &[(ClaimedWakeup, Settlement)], lease_until: UnixMillis) {
        let mut failures = 0u32;
        loop {
            let now = self.clock.unix_now();
            let Err(error) = self.outbox.settle_many(settled, now).await else { return };
            failures = failures.saturating_add(1);
            if !error.is_transient() || self.stop.is_cancelled() || now >= lease_until {
                tracing::warn!(%error, failures, count = settled.len(), "wakeups could not be settled");
                return;
            }
            tokio::time::sleep(STORE_BACKOFF.delay(failures, self.clock.draw())).await;
        }
    }
}
