//! The loops of this crate, started together, and what may be asked of them.

use std::sync::Arc;

use sotto_keyring::Keyring;
use sotto_model::{Clock, Urgency};
use sotto_storage::outbox::Outbox;
use sotto_storage::push_registry::{Lane, PushRegistration};
use sotto_storage::wakeup_quota::WakeupQuota;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::Delivery;
use crate::dispatcher::Dispatcher;
use crate::housekeeping::Housekeeping;
use crate::push_service::{Gate, PushService, ServiceHealth};
use crate::pusher::{PushOutcome, Wakeup};
use crate::relay::Relay;
use crate::settler::Settlements;
use crate::signal::Signal;
use crate::token_vault::{OpenTokenError, TokenVault};

/// What waking devices needs.
pub struct WakeupService {
    pub outbox: Arc<dyn Outbox>,
    pub keyring: Keyring,
    pub services: Vec<PushService>,
    /// Of each tenant.
    pub quota: WakeupQuota,
    pub clock: Arc<dyn Clock>,
}

/// The loops while they run.
pub struct Wakeups {
    committed: Signal,
    gates: Vec<Arc<Gate>>,
    tokens: TokenVault,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestPushError {
    #[error("push by {0} is not configured on this node")]
    NotConfigured(Lane),
    #[error(transparent)]
    Token(#[from] OpenTokenError),
}

impl WakeupService {
    /// Runs until `stop`; pushes under way are finished and settled.
    pub fn start(self, tasks: &TaskTracker, stop: &CancellationToken) -> Wakeups {
        let Self { outbox, keyring, services, quota, clock } = self;
        outbox.set_wakeup_quota(quota);
        let committed = Signal::default();
        let tokens = TokenVault::new(keyring, clock.clone());
        let settlements = Settlements::start(outbox.clone(), clock.clone(), tasks, stop.clone());
        let mut due = Vec::with_capacity(services.len());
        let mut gates = Vec::with_capacity(services.len());
        for service in services {
            let gate = Arc::new(Gate::new(service));
            let delivery = Arc::new(Delivery {
                gate: gate.clone(),
                outbox: outbox.clone(),
                tokens: tokens.clone(),
                clock: clock.clone(),
                settlements: settlements.clone(),
            });
            let lane_due = Signal::default();
            due.push(lane_due.clone());
            let dispatcher = Dispatcher::new(delivery, gate.clone(), outbox.clone(), clock.clone(), lane_due);
            tasks.spawn(dispatcher.run(tasks.clone(), stop.clone()));
            gates.push(gate);
        }
        let relay = Relay { outbox: outbox.clone(), clock: clock.clone(), committed: committed.clone(), due };
        tasks.spawn(relay.run(stop.clone()));
        let housekeeping = Housekeeping { outbox, clock: clock.clone(), gates: gates.clone() };
        tasks.spawn(housekeeping.run(stop.clone()));
        Wakeups { committed, gates, tokens, clock }
    }
}

impl Wakeups {
    /// To be rung when messages with outbox rows have been committed, or a session has ended behind: otherwise
    /// devices wait for the next look, a second later at most.
    pub fn committed(&self) -> Signal {
        self.committed.clone()
    }

    pub fn health(&self) -> Vec<ServiceHealth> {
        self.gates.iter().map(|gate| gate.health()).collect()
    }

    /// One push, whether the device sleeps or not, and what there is to be said of its failure. It settles
    /// nothing.
    pub async fn test(
        &self,
        registration: &PushRegistration,
        urgency: Urgency,
    ) -> Result<(PushOutcome, Option<&'static str>), TestPushError> {
        let lane = registration.lane();
        let gate = self.gates.iter().find(|gate| gate.lane == lane);
        let gate = gate.ok_or(TestPushError::NotConfigured(lane))?;
        let PushRegistration { tenant, device, platform, sealed_token, .. } = registration;
        let token = self.tokens.open(*tenant, *device, sealed_token).await?;
        let began = self.clock.unix_now();
        let outcome = gate.pusher().push(Wakeup { token, platform: *platform, urgency }).await;
        let trouble = gate.pusher().last_trouble().filter(|(_, at)| *at >= began).map(|(why, _)| why);
        Ok(match outcome {
            PushOutcome::Rejected(why) | PushOutcome::CredentialRefused(why) => (outcome, Some(why)),
            PushOutcome::Delivered | PushOutcome::TokenInvalid { .. } => (outcome, None),
            PushOutcome::RetryAfter(_) | PushOutcome::Unavailable(_) | PushOutcome::Deferred(_) => {
                (outcome, trouble)
            }
        })
    }
}
