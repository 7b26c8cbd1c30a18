//! The store, and what a test may look at in it.

use parking_lot::{Mutex, MutexGuard};
use sotto_model::{ClientId, DeviceId, Offset, Subscription, TenantId, TopicName, UserId};
use sotto_storage::session_store::{SessionProgress, SessionRef};

use crate::state::State;

/// Everything that the broker keeps, for as long as this lives.
#[derive(Default)]
pub struct MemoryStore {
    /// Locked for the length of one call, which is its transaction.
    state: Mutex<State>,
}

/// A stored session as it stands.
#[derive(Clone, Debug)]
pub struct SessionView {
    pub session: SessionRef,
    pub device: Option<DeviceId>,
    pub connected: bool,
    pub progress: SessionProgress,
    pub subscriptions: Vec<Subscription>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn session(&self, tenant: TenantId, client_id: &ClientId) -> Option<SessionView> {
        let state = self.lock();
        let (&id, row) =
            state.sessions.iter().find(|(_, row)| row.tenant == tenant && row.client_id == *client_id)?;
        let exactly_once_received = row.exactly_once_received.iter().copied().collect();
        Some(SessionView {
            session: SessionRef { id, generation: row.generation },
            device: row.device,
            connected: row.connected,
            progress: SessionProgress { exactly_once_received, ..row.progress.clone() },
            subscriptions: row.subscriptions.values().cloned().collect(),
        })
    }

    /// Whether a wakeup is outstanding for the device, sent or not.
    pub fn has_wakeup(&self, tenant: TenantId, device: DeviceId) -> bool {
        self.lock().wakes.contains_key(&(tenant, device))
    }

    /// How many messages the log holds on the topic by this sender.
    pub fn messages_on(&self, tenant: TenantId, topic: &TopicName, sender: UserId) -> usize {
        let state = self.lock();
        let messages = state.messages.iter().filter(|((owner, _), _)| *owner == tenant);
        messages.filter(|(_, row)| row.message.topic == *topic && row.message.sender == sender).count()
    }

    /// Messages that the relay has not yet taken.
    pub fn outbox_len(&self) -> usize {
        self.lock().outbox.len()
    }

    /// The last offset given out.
    pub fn head(&self, tenant: TenantId) -> Offset {
        self.lock().tenants.get(&tenant).map_or(Offset(0), |row| row.head)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
