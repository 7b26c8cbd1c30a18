//! Which devices sleep and have something to wake for.

use std::cmp::Reverse;
use std::ops::Bound;

use sotto_model::{DeviceId, Offset, SessionId, TenantId, TopicScope, UnixMillis, Urgency, UserId};
use sotto_storage::outbox::PUSH_TTL;

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
    if !row.is_asleep(now) || !is_asleep(state, tenant, device, now) {
        return;
    }
    if let Some(urgency) = behind(state, row, now) {
        make_due(state, vec![Wanted { tenant, device, urgency, due_since: now }], now);
    }
}

/// What a device is to be woken for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    pub(crate) urgency: Urgency,
    pub(crate) due_since: UnixMillis,
}

/// Returns for how many: a wakeup that is outstanding stands, unless it is less urgent or has gone out of date, and a
/// device without a registration has nothing to be woken by.
pub(crate) fn make_due(state: &mut State, mut wanted: Vec<Wanted>, now: UnixMillis) -> usize {
    wanted.retain(|wanted| {
        let key = (wanted.tenant, wanted.device);
        let stands = state.wakes.get(&key).is_some_and(|row| {
            row.urgency >= wanted.urgency && !(row.sent && row.next_attempt.saturating_add(PUSH_TTL) <= now)
        });
        !stands && state.registrations.contains_key(&key)
    });
    wanted.sort_by_key(|wanted| (wanted.tenant, Reverse(wanted.urgency), wanted.due_since, wanted.device));
    let quota = state.quota;
    for of_tenant in wanted.chunk_by(|a, b| a.tenant == b.tenant) {
        let urgent = of_tenant.partition_point(|wanted| wanted.urgency == Urgency::High);
        let (urgent, others) = of_tenant.split_at(urgent);
        let (mut urgent_us, mut others_us) = (0, 0);
        if let Some(interval_us) = quota.interval_us() {
            let booked = state.booked.entry(of_tenant[0].tenant).or_default();
            let count = |wanted: &[Wanted]| wanted.len() as u64;
            (urgent_us, others_us) = booked.take(count(urgent), count(others), interval_us, now.0 * 1000);
        }
        for (wakeups, from_us) in [(urgent, &mut urgent_us), (others, &mut others_us)] {
            for wanted in wakeups {
                let due_at = UnixMillis(from_us.saturating_sub(quota.tolerance_us()) / 1000).max(now);
                *from_us += quota.interval_us().unwrap_or_default();
                insert(state, wanted, due_at);
            }
        }
    }
    wanted.len()
}

fn insert(state: &mut State, wanted: &Wanted, due_at: UnixMillis) {
    let key = (wanted.tenant, wanted.device);
    let outstanding = state.wakes.get(&key);
    let row = WakeRow {
        sent: false,
        urgency: outstanding.map_or(wanted.urgency, |row| row.urgency.max(wanted.urgency)),
        due_since: wanted.due_since,
        next_attempt: outstanding.filter(|row| !row.sent).map_or(due_at, |row| row.next_attempt.min(due_at)),
        attempts: 0,
        lease: 0,
    };
    state.wakes.insert(key, row);
}

/// How urgent the most urgent message is that the session is behind.
fn behind(state: &State, session: &SessionRow, now: UnixMillis) -> Option<Urgency> {
    if !session.progress.inflight.is_empty() {
        return Some(Urgency::High);
    }
    let tenant = session.tenant;
    let after = (tenant, session.progress.cursor.0);
    let range = (Bound::Excluded(after), Bound::Included((tenant, Offset(u64::MAX))));
    let messages = state.messages.range(range);
    messages
        .filter_map(|(&(_, offset), row)| urgency_for(state, tenant, session.user, offset, row, now))
        .max()
}

/// How urgent a message is for a user; `None` where it is not theirs to be woken for.
pub(crate) fn urgency_for(
    state: &State,
    tenant: TenantId,
    user: UserId,
    offset: Offset,
    row: &MessageRow,
    now: UnixMillis,
) -> Option<Urgency> {
    let message = &row.message;
    if message.sender == user || message.expires_at.is_some_and(|at| at <= now) {
        return None;
    }
    match message.topic.scope() {
        TopicScope::Conversation(conversation) => {
            let member = state.memberships.get(&(tenant, conversation, user))?;
            let urgency = row.wakes.filter(|_| member.since < offset)?;
            Some(if member.muted { Urgency::Low } else { urgency })
        }
        TopicScope::Inbox(owner) => row.wakes.filter(|_| owner == user),
        TopicScope::Other => None,
    }
}
