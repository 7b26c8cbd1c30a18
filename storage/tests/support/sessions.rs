//! A session store whose database fails on demand.

use std::collections::HashSet;

use async_trait::async_trait;
use parking_lot::Mutex;
use sotto_model::{ClientId, Generation, SessionId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::session_store::{
    ListedSession, OpenedSession, SessionOp, SessionProgress, SessionRef, SessionReply, SessionStore,
};
use tokio::sync::Semaphore;

pub(crate) struct FaultySessions {
    state: Mutex<State>,
    /// One permit a transaction.
    gate: Semaphore,
}

#[derive(Default)]
struct State {
    away: bool,
    poisoned: HashSet<SessionId>,
    transactions: Vec<Vec<SessionOp>>,
    opened: u64,
}

impl FaultySessions {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), gate: Semaphore::new(Semaphore::MAX_PERMITS) }
    }

    /// Transactions wait until they are let through.
    pub(crate) fn gated() -> Self {
        Self { state: Mutex::default(), gate: Semaphore::new(0) }
    }

    pub(crate) fn let_through(&self, transactions: usize) {
        self.gate.add_permits(transactions);
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.state.lock().away = away;
    }

    /// A transaction with a change of this session is refused.
    pub(crate) fn poison(&self, session: SessionId) {
        self.state.lock().poisoned.insert(session);
    }

    pub(crate) fn transactions(&self) -> Vec<Vec<SessionOp>> {
        self.state.lock().transactions.clone()
    }
}

#[async_trait]
impl SessionStore for FaultySessions {
    async fn apply(&self, ops: &[SessionOp]) -> Result<Vec<SessionReply>, StoreError> {
        self.gate.acquire().await.expect("never closed").forget();
        let mut state = self.state.lock();
        if state.away {
            return Err(StoreError::Unavailable { operation: "apply", code: "test".into() });
        }
        if ops.iter().any(|op| session_of(op).is_some_and(|id| state.poisoned.contains(&id))) {
            return Err(StoreError::Refused { operation: "apply", code: "poison".into() });
        }
        let replies = ops.iter().map(|op| reply(op, &mut state)).collect();
        state.transactions.push(ops.to_vec());
        Ok(replies)
    }

    async fn recover(&self, _: UnixMillis) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn list(&self, _: Option<SessionId>, _: usize) -> Result<Vec<ListedSession>, StoreError> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: UnixMillis, _: usize) -> Result<Vec<(TenantId, ClientId)>, StoreError> {
        Ok(Vec::new())
    }
}

fn reply(op: &SessionOp, state: &mut State) -> SessionReply {
    let SessionOp::Open(_) = op else { return SessionReply::Done };
    state.opened += 1;
    SessionReply::Opened(Box::new(OpenedSession {
        session: SessionRef { id: SessionId(state.opened), generation: Generation(1) },
        present: false,
        progress: SessionProgress::default(),
        subscriptions: Vec::new(),
    }))
}

fn session_of(op: &SessionOp) -> Option<SessionId> {
    match op {
        SessionOp::Open(_) => None,
        SessionOp::Subscribe(session, _)
        | SessionOp::Unsubscribe(session, _)
        | SessionOp::Release(session, _)
        | SessionOp::Save(session, _)
        | SessionOp::Close { session, .. }
        | SessionOp::Delete(session) => Some(session.id),
    }
}
