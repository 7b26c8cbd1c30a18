//! Claims due wakeups and hands them over, many at once.

use std::sync::Arc;

use sotto_model::Clock;
use sotto_storage::StoreError;
use sotto_storage::outbox::Outbox;
use sotto_storage::push_registry::{Lane, Platform};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::Delivery;
use crate::limits::{CLAIM_INTERVAL, CLAIM_SLOTS_MIN, LEASE, PUSHES_IN_FLIGHT_MAX, STORE_BACKOFF};
use crate::pusher::Pusher;
use crate::signal::Signal;
use crate::token_vault::TokenVault;

pub(crate) struct Dispatcher {
    delivery: Arc<Delivery>,
    outbox: Arc<dyn Outbox>,
    clock: Arc<dyn Clock>,
    /// The one lane of UnifiedPush.
    lane: Lane,
    due: Signal,
    /// One a push under way. Only the loop takes them; deliveries give them back.
    slots: Arc<Semaphore>,
}

impl Dispatcher {
    pub(crate) fn new(
        outbox: Arc<dyn Outbox>,
        tokens: TokenVault,
        pusher: Arc<dyn Pusher>,
        clock: Arc<dyn Clock>,
        due: Signal,
    ) -> Self {
        let delivery = Delivery { outbox: outbox.clone(), tokens, pusher, clock: clock.clone() };
        Self {
            delivery: Arc::new(delivery),
            outbox,
            clock,
            lane: Lane { platform: Platform::UnifiedPush, app: "".into() },
            due,
            slots: Arc::new(Semaphore::new(PUSHES_IN_FLIGHT_MAX)),
        }
    }

    pub(crate) async fn run(self, tasks: TaskTracker, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let free = self.slots.clone().acquire_many_owned(CLAIM_SLOTS_MIN);
            let Some(Ok(slots)) = stop.run_until_cancelled(free).await else { return };
            let wait = match self.turn(slots, &tasks, &stop).await {
                Ok(full) => {
                    failures = 0;
                    if full {
                        continue;
                    }
                    CLAIM_INTERVAL
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, "the dispatcher of wakeups waits for the store");
                    }
                    STORE_BACKOFF.delay(failures, self.clock.draw())
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.due.heard(), if failures == 0 => {}
            }
        }
    }

    /// Claims as many wakeups as there are free slots. True when there may be more.
    async fn turn(
        &self,
        mut slots: OwnedSemaphorePermit,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let more = u32::try_from(self.slots.available_permits()).expect("at most PUSHES_IN_FLIGHT_MAX");
        if let Ok(more) = self.slots.clone().try_acquire_many_owned(more) {
            slots.merge(more);
        }
        let limit = slots.num_permits();
        let now = self.clock.unix_now();
        let claimed = self.outbox.claim(&self.lane, limit, now, now.saturating_add(LEASE)).await?;
        let full = claimed.len() >= limit;
        for wakeup in claimed {
            let slot = slots.split(1).expect("at most one wakeup a slot was claimed");
            let delivery = self.delivery.clone();
            let stop = stop.clone();
            tasks.spawn(async move {
                delivery.deliver(wakeup, now, &stop).await;
                drop(slot);
            });
        }
        Ok(full)
    }
}
