//! Claims due wakeups of one lane and hands them over, many at once.

use std::sync::Arc;
use std::time::Duration;

use sotto_model::Clock;
use sotto_storage::StoreError;
use sotto_storage::outbox::Outbox;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::breaker::Permit;
use crate::delivery::Delivery;
use crate::limits::{CLAIM_INTERVAL, CLAIM_SLOTS_MIN, LEASE, PUSHES_IN_FLIGHT_MAX, STORE_BACKOFF};
use crate::push_service::Gate;
use crate::signal::Signal;

pub(crate) struct Dispatcher {
    delivery: Arc<Delivery>,
    gate: Arc<Gate>,
    outbox: Arc<dyn Outbox>,
    clock: Arc<dyn Clock>,
    due: Signal,
    /// One a push under way. Only the loop takes them; deliveries give them back.
    slots: Arc<Semaphore>,
}

/// What one turn says of the next.
enum Turn {
    /// There may be more.
    Full,
    Empty,
    /// The service is left alone.
    Closed(Duration),
}

impl Dispatcher {
    pub(crate) fn new(
        delivery: Arc<Delivery>,
        gate: Arc<Gate>,
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
        due: Signal,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(PUSHES_IN_FLIGHT_MAX));
        Self { delivery, gate, outbox, clock, due, slots }
    }

    pub(crate) async fn run(self, tasks: TaskTracker, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let free = self.slots.clone().acquire_many_owned(CLAIM_SLOTS_MIN);
            let Some(Ok(slots)) = stop.run_until_cancelled(free).await else { return };
            let turn = self.turn(slots, &tasks, &stop).await;
            let listens = matches!(turn, Ok(Turn::Empty));
            let wait = match turn {
                Ok(turn) => {
                    failures = 0;
                    match turn {
                        Turn::Full => continue,
                        Turn::Empty => CLAIM_INTERVAL,
                        // A credential that is changed opens the way before that.
                        Turn::Closed(wait) => wait.min(CLAIM_INTERVAL),
                    }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, lane = %self.gate.lane, "the dispatcher of wakeups waits for the store");
                    }
                    STORE_BACKOFF.delay(failures, self.clock.draw())
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.due.heard(), if listens => {}
            }
        }
    }

    /// Claims as many wakeups as there are free slots, or the one by which a service is tried that failed.
    async fn turn(
        &self,
        mut slots: OwnedSemaphorePermit,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Turn, StoreError> {
        let now = self.clock.unix_now();
        let limit = match self.gate.permit(&*self.clock) {
            Permit::Go => {
                let more =
                    u32::try_from(self.slots.available_permits()).expect("at most PUSHES_IN_FLIGHT_MAX");
                if let Ok(more) = self.slots.clone().try_acquire_many_owned(more) {
                    slots.merge(more);
                }
                slots.num_permits()
            }
            Permit::Probe => 1,
            Permit::Wait(wait) => return Ok(Turn::Closed(wait)),
        };
        let claimed = self.outbox.claim(&self.gate.lane, limit, now, now.saturating_add(LEASE)).await;
        if claimed.as_ref().map_or(true, Vec::is_empty) {
            self.gate.return_permit(&*self.clock);
        }
        let claimed = claimed?;
        let full = claimed.len() >= limit && limit > 1;
        for wakeup in claimed {
            let slot = slots.split(1).expect("at most one wakeup a slot was claimed");
            let delivery = self.delivery.clone();
            let stop = stop.clone();
            tasks.spawn(async move {
                delivery.deliver(wakeup, now, &stop).await;
                drop(slot);
            });
        }
        Ok(if full { Turn::Full } else { Turn::Empty })
    }
}
