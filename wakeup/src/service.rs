//! The three loops of this crate, started together.

use std::sync::Arc;

use sotto_keyring::Keyring;
use sotto_model::Clock;
use sotto_storage::outbox::Outbox;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatcher::Dispatcher;
use crate::housekeeping::Housekeeping;
use crate::pusher::Pusher;
use crate::relay::Relay;
use crate::signal::Signal;
use crate::token_vault::TokenVault;

/// What waking devices needs.
pub struct WakeupService {
    pub outbox: Arc<dyn Outbox>,
    pub keyring: Keyring,
    pub pusher: Arc<dyn Pusher>,
    pub clock: Arc<dyn Clock>,
}

impl WakeupService {
    /// Runs until `stop`; pushes under way are finished and settled. Ring the signal when messages with
    /// outbox rows have been committed, or a session has ended behind: otherwise devices wait for the
    /// next look, a second later at most.
    pub fn start(self, tasks: &TaskTracker, stop: &CancellationToken) -> Signal {
        let committed = Signal::default();
        let due = Signal::default();
        let relay = Relay {
            outbox: self.outbox.clone(),
            clock: self.clock.clone(),
            committed: committed.clone(),
            due: due.clone(),
        };
        tasks.spawn(relay.run(stop.clone()));
        let housekeeping = Housekeeping { outbox: self.outbox.clone(), clock: self.clock.clone() };
        tasks.spawn(housekeeping.run(stop.clone()));
        let tokens = TokenVault::new(self.keyring, self.clock.clone());
        let dispatcher = Dispatcher::new(self.outbox, tokens, self.pusher, self.clock, due);
        tasks.spawn(dispatcher.run(tasks.clone(), stop.clone()));
        committed
    }
}
