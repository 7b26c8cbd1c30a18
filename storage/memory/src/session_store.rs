//! Stored sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use sotto_model::{ClientId, Cursor, Generation, SessionId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::session_store::{
    ListedSession, OpenSession, OpenedSession, SessionOp, SessionProgress, SessionRef, SessionReply,
    SessionStore,
};
use sotto_storage::wills::WillEnd;

use crate::state::{SessionRow, State};
use crate::store::MemoryStore;
use crate::wakes::wake_if_behind;
use crate::wills;

#[async_trait]
impl SessionStore for MemoryStore {
    async fn apply(&self, ops: &[SessionOp]) -> Result<Vec<SessionReply>, StoreError> {
        let mut state = self.lock();
        // All or nothing: what may be refused is asked before anything is changed.
        for op in ops {
            if let SessionOp::Open(open) = op
                && !state.tenants.contains_key(&open.tenant)
            {
                let code = "no such tenant".to_owned();
                return Err(StoreError::Refused { operation: "open session", code });
            }
        }
        Ok(ops.iter().map(|op| apply(&mut state, op)).collect())
    }

    async fn recover(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let connected: Vec<(SessionId, u32)> = state
            .sessions
            .iter()
            .filter(|(_, row)| row.connected)
            .map(|(&id, row)| (id, row.expiry_seconds))
            .collect();
        // All of them first: a device with two sessions must not look connected by its second.
        for &(id, expiry_seconds) in &connected {
            wills::make_due(&mut state, id, expiry_seconds, now);
            if let Some(row) = state.sessions.get_mut(&id) {
                row.connected = false;
                row.expires_at = expires_at(expiry_seconds, now);
            }
        }
        for &(id, _) in &connected {
            wake_if_behind(&mut state, id, now);
        }
        Ok(u64::try_from(connected.len()).expect("a count of rows fits"))
    }

    async fn list(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<ListedSession>, StoreError> {
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state.sessions.range((from, Bound::Unbounded)).take(limit);
        Ok(rows
            .map(|(&id, row)| ListedSession {
                session: SessionRef { id, generation: row.generation },
                tenant: row.tenant,
                client_id: row.client_id.clone(),
                user: row.user,
                subscriptions: row.subscriptions.values().cloned().collect(),
            })
            .collect())
    }

    async fn expire(&self, now: UnixMillis, limit: usize) -> Result<Vec<(TenantId, ClientId)>, StoreError> {
        let mut state = self.lock();
        let mut expired: Vec<(UnixMillis, SessionId)> = state
            .sessions
            .iter()
            .filter_map(|(&id, row)| Some((row.expires_at.filter(|at| *at <= now)?, id)))
            .collect();
        expired.sort_unstable();
        expired.truncate(limit);
        let gone = expired.into_iter().filter_map(|(_, id)| state.sessions.remove(&id));
        Ok(gone.map(|row| (row.tenant, row.client_id)).collect())
    }
}

fn apply(state: &mut State, op: &SessionOp) -> SessionReply {
    let held = match op {
        SessionOp::Open(open) => return SessionReply::Opened(Box::new(self::open(state, open))),
        SessionOp::Subscribe(session, subscriptions) => with_held(state, *session, |row| {
            for subscription in subscriptions {
                let filter = subscription.filter.as_subscribed().to_owned();
                row.subscriptions.insert(filter, subscription.clone());
            }
        }),
        SessionOp::Unsubscribe(session, filters) => with_held(state, *session, |row| {
            for filter in filters {
                row.subscriptions.remove(filter.as_subscribed());
            }
        }),
        SessionOp::Save(session, progress) => with_held(state, *session, |row| save(row, progress)),
        SessionOp::Release(session, packet_ids) => with_held(state, *session, |row| {
            for packet_id in packet_ids {
                row.exactly_once_received.remove(packet_id);
            }
        }),
        SessionOp::Close { session, progress, expiry_seconds, will, now } => {
            let held = with_held(state, *session, |row| {
                save(row, progress);
                row.connected = false;
                row.expiry_seconds = *expiry_seconds;
                row.expires_at = expires_at(*expiry_seconds, *now);
            });
            if held {
                match will {
                    None => {}
                    Some(WillEnd::Due) => wills::make_due(state, session.id, *expiry_seconds, *now),
                    Some(WillEnd::Forgotten) => wills::forget(state, session.id),
                }
                if *expiry_seconds == 0 {
                    state.sessions.remove(&session.id);
                } else {
                    wake_if_behind(state, session.id, *now);
                }
            }
            held
        }
        SessionOp::Delete(session) => {
            let held = with_held(state, *session, |_| ());
            if held {
                state.sessions.remove(&session.id);
                wills::end(state, session.id);
            }
            held
        }
    };
    if held { SessionReply::Done } else { SessionReply::Fenced }
}

/// False where the caller's generation is not the session's any more.
fn with_held(state: &mut State, session: SessionRef, change: impl FnOnce(&mut SessionRow)) -> bool {
    let row = state.sessions.get_mut(&session.id).filter(|row| row.generation == session.generation);
    row.map(change).is_some()
}

fn save(row: &mut SessionRow, progress: &SessionProgress) {
    row.exactly_once_received.extend(&progress.exactly_once_received);
    row.progress = SessionProgress { exactly_once_received: Vec::new(), ..progress.clone() };
}

/// [MQTT-3.1.2-11.2]: 0xFFFFFFFF is never.
fn expires_at(expiry_seconds: u32, now: UnixMillis) -> Option<UnixMillis> {
    let expiry = Duration::from_secs(expiry_seconds.into());
    (expiry_seconds != u32::MAX).then(|| now.saturating_add(expiry))
}

fn open(state: &mut State, open: &OpenSession) -> OpenedSession {
    if let Some(device) = open.device {
        state.wakes.remove(&(open.tenant, device));
    }
    let stored =
        state.sessions.iter().find(|(_, row)| row.tenant == open.tenant && row.client_id == open.client_id);
    let Some((&id, row)) = stored else { return create(state, open) };
    let expired = row.expires_at.is_some_and(|at| at <= open.now);
    // A session of the user who had this name before is nobody's.
    if open.clean_start || expired || row.user != open.user {
        state.sessions.remove(&id);
        wills::end(state, id);
        return create(state, open);
    }
    wills::take_up(state, id, open.now);
    if let Some(will) = &open.will {
        wills::keep(state, id, open.tenant, will);
    }
    let row = state.sessions.get_mut(&id).expect("it was found");
    row.generation = row.generation.next();
    row.device = open.device;
    row.connected = true;
    row.expiry_seconds = open.expiry_seconds;
    row.expires_at = None;
    let exactly_once_received = row.exactly_once_received.iter().copied().collect();
    OpenedSession {
        session: SessionRef { id, generation: row.generation },
        present: true,
        progress: SessionProgress { exactly_once_received, ..row.progress.clone() },
        subscriptions: row.subscriptions.values().cloned().collect(),
    }
}

fn create(state: &mut State, open: &OpenSession) -> OpenedSession {
    state.last_session += 1;
    let id = SessionId(state.last_session);
    let progress = SessionProgress { cursor: Cursor(open.head), ..SessionProgress::default() };
    let row = SessionRow {
        tenant: open.tenant,
        client_id: open.client_id.clone(),
        user: open.user,
        device: open.device,
        generation: Generation::default().next(),
        progress: progress.clone(),
        exactly_once_received: BTreeSet::new(),
        subscriptions: BTreeMap::new(),
        connected: true,
        expiry_seconds: open.expiry_seconds,
        expires_at: None,
    };
    let session = SessionRef { id, generation: row.generation };
    state.sessions.insert(id, row);
    if let Some(will) = &open.will {
        wills::keep(state, id, open.tenant, will);
    }
    OpenedSession { session, present: false, progress, subscriptions: Vec::new() }
}
