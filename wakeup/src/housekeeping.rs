//! Watches how far the outbox lags, and deletes dead letters of age.

use std::sync::Arc;

use sotto_model::{Clock, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::outbox::Outbox;
use tokio_util::sync::CancellationToken;

use crate::limits::{DEAD_LETTER_AGE_MAX, LAG_INTERVAL, PURGE_INTERVAL, PURGE_ROWS_MAX};

pub(crate) struct Housekeeping {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Housekeeping {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut purge_at = self.clock.unix_now();
        loop {
            if let Err(error) = self.turn(&mut purge_at).await {
                // The relay and the dispatcher warn of a store that is away.
                tracing::debug!(%error, "housekeeping of the outbox waits for the store");
            }
            if stop.run_until_cancelled(tokio::time::sleep(LAG_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    async fn turn(&self, purge_at: &mut UnixMillis) -> Result<(), StoreError> {
        let now = self.clock.unix_now();
        if now >= *purge_at {
            let full = self.purge(now).await? >= PURGE_ROWS_MAX as u64;
            *purge_at = if full { now } else { now.saturating_add(PURGE_INTERVAL) };
        }
        let lag = self.outbox.lag(now).await?;
        let oldest = lag.oldest.map(|committed_at| now.since(committed_at)).unwrap_or_default();
        metrics::gauge!("sotto_outbox_rows").set(as_f64(lag.messages));
        metrics::gauge!("sotto_outbox_oldest_seconds").set(oldest.as_secs_f64());
        metrics::gauge!("sotto_wakeups_due").set(as_f64(lag.wakeups_due));
        metrics::gauge!("sotto_dead_letters").set(as_f64(lag.dead_letters));
        Ok(())
    }

    async fn purge(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let age_max_ms = u64::try_from(DEAD_LETTER_AGE_MAX.as_millis()).expect("14 days fit");
        let before = UnixMillis(now.0.saturating_sub(age_max_ms));
        self.outbox.purge_dead_letters(before, PURGE_ROWS_MAX).await
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
