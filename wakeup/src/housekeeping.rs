//! Watches how far the outbox lags, and deletes dead letters of age.

use std::sync::Arc;

use sotto_model::{Clock, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::outbox::{LaneLag, Outbox, OutboxLag};
use tokio_util::sync::CancellationToken;

use crate::breaker::BreakerState;
use crate::limits::{DEAD_LETTER_AGE_MAX, LAG_INTERVAL, PURGE_INTERVAL, PURGE_ROWS_MAX};
use crate::push_service::Gate;

pub(crate) struct Housekeeping {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gates: Vec<Arc<Gate>>,
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
        self.report_lanes(&lag);
        metrics::gauge!("sotto_dead_letters").set(as_f64(lag.dead_letters));
        Ok(())
    }

    fn report_lanes(&self, lag: &OutboxLag) {
        for gate in &self.gates {
            let lane = &gate.lane;
            let (platform, app) = (lane.platform.as_str(), lane.app.to_string());
            let waiting = lag.lanes.iter().find(|waiting| waiting.lane == *lane);
            let of = |count: fn(&LaneLag) -> u64| as_f64(waiting.map(count).unwrap_or_default());
            for (state, count) in [
                ("due", of(|lag| lag.due)),
                ("waiting", of(|lag| lag.waiting)),
                ("leased", of(|lag| lag.leased)),
                ("sent", of(|lag| lag.sent)),
            ] {
                metrics::gauge!(
                    "sotto_wakeups_outstanding", "platform" => platform, "app" => app.clone(), "state" => state
                )
                .set(count);
            }
            let breaker = match gate.health().breaker {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            };
            metrics::gauge!("sotto_push_breaker", "platform" => platform, "app" => app).set(breaker);
        }
        let unserved = |waiting: &&LaneLag| self.gates.iter().all(|gate| gate.lane != waiting.lane);
        let unserved: u64 =
            lag.lanes.iter().filter(unserved).map(|waiting| waiting.due + waiting.waiting).sum();
        metrics::gauge!("sotto_wakeups_unserved").set(as_f64(unserved));
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
