//! Turns outbox rows into due wakeups.

use std::sync::Arc;

use sotto_model::Clock;
use sotto_storage::StoreError;
use sotto_storage::outbox::Outbox;
use tokio_util::sync::CancellationToken;

use crate::limits::{RELAY_INTERVAL, RELAY_PAUSE, RELAY_ROWS_MAX, STORE_BACKOFF};
use crate::signal::Signal;

pub(crate) struct Relay {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Rung by the committer.
    pub(crate) committed: Signal,
    /// Each rings a dispatcher, after every turn: a closing session makes wakeups due as well.
    pub(crate) due: Vec<Signal>,
}

impl Relay {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let wait = match self.turn().await {
                Ok(full) => {
                    failures = 0;
                    self.due.iter().for_each(Signal::ring);
                    if full { RELAY_PAUSE } else { RELAY_INTERVAL }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, "the outbox relay waits for the store");
                    }
                    STORE_BACKOFF.delay(failures, self.clock.draw())
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.committed.heard(), if failures == 0 => {
                    // Commits follow one another closely: one turn serves those of this pause.
                    tokio::time::sleep(RELAY_PAUSE.min(wait)).await;
                }
            }
        }
    }

    /// True when there may be more.
    async fn turn(&self) -> Result<bool, StoreError> {
        let relayed = self.outbox.relay(RELAY_ROWS_MAX, self.clock.unix_now()).await?;
        metrics::counter!("sotto_outbox_relayed_total").increment(relayed.messages);
        Ok(relayed.full)
    }
}
