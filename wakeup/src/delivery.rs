//! One claimed wakeup: opened, checked once more, pushed, settled.

use std::sync::Arc;

use sotto_model::{Clock, UnixMillis};
use sotto_storage::outbox::{ClaimedWakeup, Outbox, Settlement};
use tokio_util::sync::CancellationToken;

use crate::limits::{LEASE, STILL_DUE_TIMEOUT, STORE_BACKOFF};
use crate::pusher::{PushOutcome, Pusher, Wakeup};
use crate::settlement::settlement;
use crate::token_vault::{OpenTokenError, TokenVault};

pub(crate) struct Delivery {
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) tokens: TokenVault,
    pub(crate) pusher: Arc<dyn Pusher>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Delivery {
    /// What is not settled when this returns is claimed again when its lease has ended.
    pub(crate) async fn deliver(
        &self,
        wakeup: ClaimedWakeup,
        claimed_at: UnixMillis,
        stop: &CancellationToken,
    ) {
        let outcome = match self.tokens.open(&wakeup).await {
            Ok(token) => {
                if stop.is_cancelled() || !self.still_due(&wakeup).await {
                    return;
                }
                let platform = wakeup.platform;
                let outcome = self.pusher.push(Wakeup { token, platform, urgency: wakeup.urgency }).await;
                count(&wakeup, outcome_name(outcome));
                outcome
            }
            Err(error @ OpenTokenError::KeyUnavailable) => {
                tracing::debug!(%error, "a wakeup waits for its key");
                count(&wakeup, "key_unavailable");
                PushOutcome::RetryAfter(None)
            }
            Err(error @ OpenTokenError::Unreadable) => {
                tracing::error!(%error, device = %wakeup.device, "a wakeup cannot be delivered");
                count(&wakeup, "token_unreadable");
                PushOutcome::Rejected("token cannot be opened")
            }
        };
        let now = self.clock.unix_now();
        if outcome == PushOutcome::Delivered {
            let took = now.since(wakeup.due_since);
            metrics::histogram!("sotto_wakeup_handover_seconds").record(took);
        }
        let settlement = settlement(outcome, wakeup.attempts, now, self.clock.draw());
        self.settle(&wakeup, settlement, claimed_at.saturating_add(LEASE), stop).await;
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> bool {
        match tokio::time::timeout(STILL_DUE_TIMEOUT, self.outbox.still_due(wakeup)).await {
            Ok(Ok(still_due)) => still_due,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a wakeup waits for the store");
                false
            }
            Err(_) => false,
        }
    }

    /// Tries until the lease ends: what was pushed and is not settled would be pushed again.
    async fn settle(
        &self,
        wakeup: &ClaimedWakeup,
        settlement: Settlement,
        lease_until: UnixMillis,
        stop: &CancellationToken,
    ) {
        let mut failures = 0u32;
        loop {
            let now = self.clock.unix_now();
            let Err(error) = self.outbox.settle(wakeup, settlement, now).await else { return };
            failures = failures.saturating_add(1);
            if !error.is_transient() || stop.is_cancelled() || now >= lease_until {
                tracing::warn!(%error, failures, "a wakeup could not be settled");
                return;
            }
            tokio::time::sleep(STORE_BACKOFF.delay(failures, self.clock.draw())).await;
        }
    }
}

fn outcome_name(outcome: PushOutcome) -> &'static str {
    match outcome {
        PushOutcome::Delivered => "delivered",
        PushOutcome::RetryAfter(_) => "retry_after",
        PushOutcome::Unavailable(_) => "unavailable",
        PushOutcome::CredentialRefused(_) => "credential_refused",
        PushOutcome::Deferred(_) => "deferred",
        PushOutcome::TokenInvalid { .. } => "token_invalid",
        PushOutcome::Rejected(_) => "rejected",
    }
}

fn count(wakeup: &ClaimedWakeup, outcome: &'static str) {
    let platform = wakeup.platform.as_str();
    metrics::counter!("sotto_wakeups_total", "platform" => platform, "outcome" => outcome).increment(1);
}
