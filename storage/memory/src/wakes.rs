//! Which devices sleep and have something to wake for.

use std::ops::Bound;

use sotto_model::{DeviceId, Offset, SessionId, TenantId, TopicScope, UnixMillis};

use crate::state::{MessageRow, SessionRow, State, WakeRow};

/// Whether the device sleeps: it has a stored session that may yet be taken up, and none that is connected.
pub(crate) fn is_asleep(state: &State, tenant: TenantId, device: DeviceId, now: UnixMillis) -> bool {
    let mut sessions =
        state.sessions.values().filter(|row| row.tenant == tenant && row.device == Some(device));
    sessions.clone().any(|row| row.is_asleep(now)) && !sessions.any(|row| row.connected)
}

/// Makes a wakeup due for the device of a session that has just been marked disconnected, if it is behind.
pub(crate) fn wake_if_behind(state: &mut State, session: SessionId, now: UnixMillis) {
    let Some(row) = state.sessions.get(&session) else { return };
    let Some(device) = row.device else { return };
    let tenant = row.tenant;
    if row.is_asleep(now) && is_asleep(state, tenant, device, now) && is_behind(state, row, now) {
        make_due(state, tenant, device, now);
    }
}

/// One that is outstanding stands. False where it does, or where there is nothing to wake the device by.
pub(crate) fn make_due(state: &mut State, tenant: TenantId, device: DeviceId, now: UnixMillis) -> bool {
    let key = (tenant, device);
    if state.wakes.contains_key(&key) || !state.registrations.contains_key(&key) {
        return false;
    }
    let row = WakeRow {
        sent: false,
        due_since: now,
        next_attempt: now,
        attempts: 0,
        lease: 0,
        lease_until: UnixMillis(0),
    };
    state.wakes.insert(key, row);
    true
}

fn is_behind(state: &State, session: &SessionRow, now: UnixMillis) -> bool {
    if !session.progress.inflight.is_empty() {
        return true;
    }
    let tenant = session.tenant;
    let after = (tenant, session.progress.cursor.0);
    let range = (Bound::Excluded(after), Bound::Included((tenant, Offset(u64::MAX))));
    state.messages.range(range).any(|(&(_, offset), MessageRow { message, wakes })| {
        let for_the_user = match message.topic.scope() {
            TopicScope::Conversation(conversation) => {
                let since = state.memberships.get(&(tenant, conversation, session.user));
                since.is_some_and(|since| offset > *since)
            }
            TopicScope::Inbox(user) => user == session.user,
            TopicScope::Other => false,
        };
        *wakes
            && for_the_user
            && message.sender != session.user
            && message.expires_at.is_none_or(|at| at > now)
    })
}
