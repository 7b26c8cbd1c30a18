//! Wills of stored sessions.

use async_trait::async_trait;
use sotto_model::{MessageId, SessionId, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::wills::{DueWill, KeptWill, Wills};
use std::time::Duration;

use crate::state::{State, WillRow};
use crate::store::MemoryStore;

/// Due before anything else.
const AT_ONCE: UnixMillis = UnixMillis(0);

#[async_trait]
impl Wills for MemoryStore {
    async fn due_wills(&self, now: UnixMillis, limit: usize) -> Result<Vec<DueWill>, StoreError> {
        let state = self.lock();
        let mut due: Vec<(UnixMillis, &WillRow)> =
            state.wills.iter().filter_map(|row| Some((row.due_at.filter(|at| *at <= now)?, row))).collect();
        due.sort_by_key(|(at, _)| *at);
        due.truncate(limit);
        Ok(due.into_iter().map(|(_, row)| row.to_due()).collect())
    }

    async fn forget_wills(&self, wills: &[MessageId]) -> Result<(), StoreError> {
        remove(&mut self.lock(), wills);
        Ok(())
    }
}

pub(crate) fn remove(state: &mut State, wills: &[MessageId]) {
    state.wills.retain(|row| !wills.contains(&row.message_id));
}

/// With a session that is being opened. Kept anew where the opening is repeated.
pub(crate) fn keep(state: &mut State, session: SessionId, tenant: TenantId, will: &KeptWill) {
    let message_id = will.sealed.message_id();
    remove(state, &[message_id]);
    state.wills.push(WillRow { message_id, session, tenant, will: will.clone(), due_at: None });
}

/// The session is taken up: what is not due goes, but for a will without delay, whose connection has ended.
pub(crate) fn take_up(state: &mut State, session: SessionId, now: UnixMillis) {
    // [MQTT-3.1.3-9]
    state.wills.retain(|row| {
        let is_withdrawn = row.due_at.map_or(row.will.delay_seconds > 0, |at| at > now);
        row.session != session || !is_withdrawn
    });
    for row in of_session(state, session).filter(|row| row.due_at.is_none()) {
        row.due_at = Some(AT_ONCE);
    }
}

/// The session has ended: its will is due.
pub(crate) fn end(state: &mut State, session: SessionId) {
    for row in of_session(state, session) {
        row.due_at = Some(AT_ONCE);
    }
}

/// The session's connection has ended: the will is due after its delay, and no later than the session ends.
pub(crate) fn make_due(state: &mut State, session: SessionId, expiry_seconds: u32, now: UnixMillis) {
    for row in of_session(state, session).filter(|row| row.due_at.is_none()) {
        let delay = Duration::from_secs(row.will.delay_seconds.min(expiry_seconds).into());
        row.due_at = Some(now.saturating_add(delay));
    }
}

/// The session's connection has ended without a will to publish.
pub(crate) fn forget(state: &mut State, session: SessionId) {
    state.wills.retain(|row| row.session != session || row.due_at.is_some());
}

fn of_session(state: &mut State, session: SessionId) -> impl Iterator<Item = &mut WillRow> {
    state.wills.iter_mut().filter(move |row| row.session == session)
}

impl WillRow {
    fn to_due(&self) -> DueWill {
        let sealed = &self.will.sealed;
        DueWill {
            tenant: self.tenant,
            client_id: self.will.client_id.clone(),
            topic: sealed.topic().clone(),
            sender: sealed.sender(),
            message_id: self.message_id,
            qos: self.will.qos,
            retain: self.will.retain,
            message_expiry_seconds: self.will.message_expiry_seconds,
            sealed: sealed.bytes().clone(),
        }
    }
}
