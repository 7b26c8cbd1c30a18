//! A way to a push service, and how it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sotto_model::{Clock, UnixMillis};
use sotto_storage::push_registry::Lane;

use crate::breaker::{Breaker, BreakerState, Permit};
use crate::pusher::{CredentialState, PushOutcome, Pusher};

/// What wakeups of one lane are handed to.
pub struct PushService {
    pub lane: Lane,
    pub pusher: Arc<dyn Pusher>,
}

/// What an operator sees of it.
#[derive(Clone, Debug)]
pub struct ServiceHealth {
    pub lane: Lane,
    pub breaker: BreakerState,
    /// The last failure that was the service's or the credential's, in our words.
    pub last_failure: Option<(&'static str, UnixMillis)>,
    /// Why it could not be asked, the last time that it could not.
    pub last_trouble: Option<(&'static str, UnixMillis)>,
    pub delivered: u64,
    pub credential: CredentialState,
    /// What browsers call `applicationServerKey`.
    pub public_key: Option<String>,
}

/// Shared by the lane's dispatcher and its deliveries.
pub(crate) struct Gate {
    pub(crate) lane: Lane,
    pusher: Arc<dyn Pusher>,
    state: Mutex<GateState>,
    delivered: AtomicU64,
}

/// Locked for a look or a note, never while a push is under way.
struct GateState {
    breaker: Breaker,
    /// The credential that the breaker judges.
    credential: u64,
    last_failure: Option<(&'static str, UnixMillis)>,
}

impl Gate {
    pub(crate) fn new(service: PushService) -> Self {
        let PushService { lane, pusher } = service;
        let credential = pusher.credential().generation;
        let state = GateState { breaker: Breaker::default(), credential, last_failure: None };
        Self { lane, pusher, state: Mutex::new(state), delivered: AtomicU64::new(0) }
    }

    pub(crate) fn pusher(&self) -> &dyn Pusher {
        &*self.pusher
    }

    pub(crate) fn permit(&self, clock: &dyn Clock) -> Permit {
        let mut state = self.state.lock();
        let credential = self.pusher.credential().generation;
        if credential != state.credential {
            // What was refused was another one.
            state.credential = credential;
            state.breaker.reset();
        }
        state.breaker.permit(clock.now())
    }

    /// Nothing was pushed with the permit, so that it says nothing of the service.
    pub(crate) fn return_permit(&self, clock: &dyn Clock) {
        let nothing = PushOutcome::Deferred(Duration::ZERO);
        self.state.lock().breaker.record(&nothing, clock.now(), clock.draw());
    }

    pub(crate) fn record(&self, outcome: PushOutcome, clock: &dyn Clock) {
        let mut state = self.state.lock();
        let before = state.breaker.state();
        state.breaker.record(&outcome, clock.now(), clock.draw());
        let failure = match outcome {
            PushOutcome::Delivered => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                None
            }
            PushOutcome::Unavailable(_) => Some("unavailable"),
            PushOutcome::CredentialRefused(why) => Some(why),
            PushOutcome::RetryAfter(_)
            | PushOutcome::Deferred(_)
            | PushOutcome::TokenInvalid { .. }
            | PushOutcome::Rejected(_) => None,
        };
        if let Some(why) = failure {
            state.last_failure = Some((why, clock.unix_now()));
        }
        let after = state.breaker.state();
        drop(state);
        if before == BreakerState::Closed && after == BreakerState::Open {
            self.report(outcome);
        }
    }

    pub(crate) fn health(&self) -> ServiceHealth {
        let state = self.state.lock();
        ServiceHealth {
            lane: self.lane.clone(),
            breaker: state.breaker.state(),
            last_failure: state.last_failure,
            last_trouble: self.pusher.last_trouble(),
            delivered: self.delivered.load(Ordering::Relaxed),
            credential: self.pusher.credential(),
            public_key: self.pusher.public_key(),
        }
    }

    /// A service that is away comes back by itself; a refused credential waits for a human.
    fn report(&self, outcome: PushOutcome) {
        let lane = &self.lane;
        if let PushOutcome::CredentialRefused(why) = outcome {
            tracing::error!(event = "push_credential_refused", %lane, why, "wakeups wait for a credential");
        } else {
            tracing::warn!(event = "push_service_away", %lane, "wakeups wait for their push service");
        }
    }
}
