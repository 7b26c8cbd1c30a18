//! Rounds that delete what need not be kept any longer, step by step, beside everything else.

use std::sync::Arc;
use std::time::Duration;

use sotto_model::Clock;
use sotto_storage::StoreError;
use sotto_storage::retention::{RetentionPolicy, Trimmed};
use tokio_util::sync::CancellationToken;

use crate::metrics::trimmed;
use crate::services::Services;

/// Between two rounds.
const ROUND_EVERY: Duration = Duration::from_mins(5);
/// Messages deleted, or measured, in one step. On the embedded store nobody else commits meanwhile.
const STEP_MESSAGES_MAX: usize = 500;
/// After a step the store is left alone for as long as it took, and at least for this.
const PAUSE_MIN: Duration = Duration::from_millis(10);

pub(crate) async fn retain(services: Arc<Services>, policy: RetentionPolicy, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = round(&services, &policy) => if let Err(error) = result {
                // The next round goes on from where this one was.
                tracing::warn!(event = "retention_failed", error = %error, "old messages could not be deleted");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = services.retention_changed.notified() => {}
            () = tokio::time::sleep(ROUND_EVERY) => {}
        }
    }
}

async fn round(services: &Services, policy: &RetentionPolicy) -> Result<(), StoreError> {
    loop {
        let began = services.clock.now();
        let step = services.store.trim(policy, services.clock.unix_now(), STEP_MESSAGES_MAX).await?;
        if step.messages > 0 || step.weeks > 0 {
            let Trimmed { messages, weeks, .. } = step;
            trimmed(messages, weeks);
            services.starts.replace(&services.store.retention().await?);
        }
        if !step.goes_on {
            return Ok(());
        }
        let took = services.clock.now().saturating_duration_since(began);
        tokio::time::sleep(took.max(PAUSE_MIN)).await;
    }
}
