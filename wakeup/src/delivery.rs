//! One claimed wakeup: is it time, opened, checked once more, pushed, settled.

use std::sync::Arc;

use sotto_model::{Clock, UnixMillis};
use sotto_storage::outbox::{ClaimedWakeup, Outbox, Settlement};
use tokio_util::sync::CancellationToken;

use crate::limits::{CLAIM_FRESH_MAX, LEASE, STILL_DUE_TIMEOUT};
use crate::push_service::Gate;
use crate::pusher::{PushOutcome, Wakeup};
use crate::settlement::settlement;
use crate::settler::Settlements;
use crate::timing::{Due, leaves_at};
use crate::token_vault::{OpenTokenError, TokenVault};

pub(crate) struct Delivery {
    pub(crate) gate: Arc<Gate>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) tokens: TokenVault,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settlements: Settlements,
}

impl Delivery {
    /// What is not settled when this returns is claimed again when its lease has ended.
    pub(crate) async fn deliver(
        &self,
        wakeup: ClaimedWakeup,
        claimed_at: UnixMillis,
        stop: &CancellationToken,
    ) {
        let leaves_at = leaves_at(Due {
            device: wakeup.device,
            platform: wakeup.platform,
            urgency: wakeup.urgency,
            since: wakeup.due_since,
            last_low_sent_at: wakeup.last_low_sent_at,
        });
        let settlement = if leaves_at > claimed_at {
            self.gate.return_permit(&*self.clock);
            count(&wakeup, "put_off");
            Settlement::Wait(leaves_at)
        } else {
            match self.push(&wakeup, claimed_at, stop).await {
                Some(outcome) => self.outcome(&wakeup, outcome),
                // Somebody else may have it at once.
                None if stop.is_cancelled() => Settlement::Wait(self.clock.unix_now()),
                None => return,
            }
        };
        self.settlements.settle(wakeup, settlement, claimed_at.saturating_add(LEASE)).await;
    }

    /// `None`: it was not tried, and need not be by this node.
    async fn push(
        &self,
        wakeup: &ClaimedWakeup,
        claimed_at: UnixMillis,
        stop: &CancellationToken,
    ) -> Option<PushOutcome> {
        let outcome = match self.tokens.open(wakeup.tenant, wakeup.device, &wakeup.sealed_token).await {
            Ok(token) => {
                if stop.is_cancelled() || !self.is_still_due(wakeup, claimed_at).await {
                    self.gate.return_permit(&*self.clock);
                    return None;
                }
                let (platform, urgency) = (wakeup.platform, wakeup.urgency);
                let outcome = self.gate.pusher().push(Wakeup { token, platform, urgency }).await;
                self.gate.record(outcome, &*self.clock);
                count(wakeup, outcome.as_str());
                outcome
            }
            Err(error @ OpenTokenError::KeyUnavailable) => {
                tracing::debug!(%error, "a wakeup waits for its key");
                self.gate.return_permit(&*self.clock);
                count(wakeup, "key_unavailable");
                PushOutcome::RetryAfter(None)
            }
            Err(error @ OpenTokenError::Unreadable) => {
                tracing::error!(%error, device = %wakeup.device, "a wakeup cannot be delivered");
                self.gate.return_permit(&*self.clock);
                count(wakeup, "token_unreadable");
                PushOutcome::Rejected("token cannot be opened")
            }
        };
        Some(outcome)
    }

    fn outcome(&self, wakeup: &ClaimedWakeup, outcome: PushOutcome) -> Settlement {
        let now = self.clock.unix_now();
        match outcome {
            PushOutcome::Delivered => {
                let took = now.since(wakeup.due_since);
                let urgency = wakeup.urgency.as_str();
                metrics::histogram!("sotto_wakeup_handover_seconds", "urgency" => urgency).record(took);
            }
            PushOutcome::Rejected(why) => {
                let platform = wakeup.platform.as_str();
                metrics::counter!("sotto_push_faults_total", "platform" => platform, "fault" => why)
                    .increment(1);
            }
            _ => {}
        }
        settlement(outcome, wakeup.platform, wakeup.attempts, now, self.clock.draw())
    }

    /// The claim has looked; only what it said a while ago is asked again.
    async fn is_still_due(&self, wakeup: &ClaimedWakeup, claimed_at: UnixMillis) -> bool {
        if self.clock.unix_now().since(claimed_at) <= CLAIM_FRESH_MAX {
            return true;
        }
        match tokio::time::timeout(STILL_DUE_TIMEOUT, self.outbox.still_due(wakeup)).await {
            Ok(Ok(still_due)) => still_due,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a wakeup waits for the store");
                false
            }
            Err(_) => false,
        }
    }
}

fn count(wakeup: &ClaimedWakeup, outcome: &'static str) {
    let platform = wakeup.platform.as_str();
    metrics::counter!("sotto_wakeups_total", "platform" => platform, "outcome" => outcome).increment(1);
}
