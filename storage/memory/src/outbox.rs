//! From outbox rows to wakeups, and what becomes of those.

use async_trait::async_trait;
use sotto_model::{DeviceId, Offset, TenantId, TopicScope, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::outbox::{ClaimedWakeup, DeadLetter, Outbox, OutboxLag, Relayed, Settlement};
use sotto_storage::push_registry::PushRegistration;

use crate::state::{State, WakeRow};
use crate::store::MemoryStore;
use crate::wakes::{is_asleep, make_due};

#[async_trait]
impl Outbox for MemoryStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        let mut state = self.lock();
        let taken = limit.min(state.outbox.len());
        let rows: Vec<(TenantId, Offset)> = state.outbox.drain(..taken).collect();
        let mut relayed = Relayed { messages: count(rows.len()), wakeups: 0, full: taken == limit };
        for (tenant, offset) in rows {
            for device in sleepers(&state, tenant, offset, now) {
                relayed.wakeups += u64::from(make_due(&mut state, tenant, device, now));
            }
        }
        Ok(relayed)
    }

    async fn claim(
        &self,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        let mut state = self.lock();
        for key in claimable(&state, now).into_iter().take(limit) {
            if !is_asleep(&state, key.0, key.1, now) {
                state.wakes.remove(&key);
            }
        }
        let mut claimed = claimable(&state, now);
        claimed.retain(|&(tenant, device)| is_asleep(&state, tenant, device, now));
        claimed.truncate(limit);
        state.last_lease += 1;
        let lease = state.last_lease;
        let mut wakeups: Vec<ClaimedWakeup> =
            claimed.into_iter().map(|key| lend(&mut state, key, lease, lease_until)).collect();
        wakeups.sort_by_key(|wakeup| wakeup.due_since);
        Ok(wakeups)
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        let state = self.lock();
        let (tenant, device) = (wakeup.tenant, wakeup.device);
        let is_held = |row: &WakeRow| row.lease == wakeup.lease && !row.sent;
        // No clock here: a session that expires in this very moment may cost one needless push.
        Ok(state.wakes.get(&(tenant, device)).is_some_and(is_held)
            && is_asleep(&state, tenant, device, UnixMillis(0)))
    }

    async fn settle(
        &self,
        wakeup: &ClaimedWakeup,
        settlement: Settlement,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        settle(&mut self.lock(), wakeup, settlement, now);
        Ok(())
    }

    async fn lag(&self) -> Result<OutboxLag, StoreError> {
        let state = self.lock();
        let oldest = state.outbox.front().and_then(|key| state.messages.get(key));
        Ok(OutboxLag {
            messages: count(state.outbox.len()),
            oldest: oldest.map(|row| row.message.committed_at),
            wakeups_due: count(state.wakes.values().filter(|row| !row.sent).count()),
            dead_letters: count(state.dead_letters.len()),
        })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(self.lock().dead_letters.iter().rev().take(limit).cloned().collect())
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let mut purged = 0;
        state.dead_letters.retain(|letter| {
            let goes = letter.died_at < before && purged < limit;
            purged += usize::from(goes);
            !goes
        });
        Ok(count(purged))
    }
}

/// The devices that a message is to wake.
fn sleepers(state: &State, tenant: TenantId, offset: Offset, now: UnixMillis) -> Vec<DeviceId> {
    let Some(row) = state.messages.get(&(tenant, offset)) else { return Vec::new() };
    let message = &row.message;
    if message.expires_at.is_some_and(|at| at <= now) {
        return Vec::new();
    }
    let is_recipient = |user: UserId| {
        user != message.sender
            && match message.topic.scope() {
                TopicScope::Conversation(conversation) => {
                    let since = state.memberships.get(&(tenant, conversation, user));
                    since.is_some_and(|since| *since < offset)
                }
                TopicScope::Inbox(owner) => owner == user,
                TopicScope::Other => false,
            }
    };
    state
        .sessions
        .values()
        .filter(|session| session.tenant == tenant && is_recipient(session.user))
        .filter(|session| session.is_asleep(now) && session.progress.cursor.0 < offset)
        .filter_map(|session| session.device)
        .filter(|&device| is_asleep(state, tenant, device, now))
        .collect()
}

/// The longest waiting first.
fn claimable(state: &State, now: UnixMillis) -> Vec<(TenantId, DeviceId)> {
    let due = |row: &WakeRow| !row.sent && row.next_attempt <= now && row.lease_until <= now;
    let mut keys: Vec<_> =
        state.wakes.iter().filter(|(_, row)| due(row)).map(|(&key, row)| (row.next_attempt, key)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key).collect()
}

fn lend(state: &mut State, key: (TenantId, DeviceId), lease: u64, lease_until: UnixMillis) -> ClaimedWakeup {
    let registration = state.registrations.get(&key).expect("a wakeup goes with its registration").clone();
    let PushRegistration { tenant, device, platform, sealed_token, registered_at, .. } = registration;
    let row = state.wakes.get_mut(&key).expect("it was just found");
    row.lease = lease;
    row.lease_until = lease_until;
    let (attempts, due_since) = (row.attempts, row.due_since);
    ClaimedWakeup { tenant, device, lease, attempts, due_since, platform, sealed_token, registered_at }
}

fn settle(state: &mut State, wakeup: &ClaimedWakeup, settlement: Settlement, now: UnixMillis) {
    let key = (wakeup.tenant, wakeup.device);
    let Some(row) = state.wakes.get_mut(&key).filter(|row| row.lease == wakeup.lease) else { return };
    let failed = wakeup.attempts.saturating_add(1);
    row.lease = 0;
    row.lease_until = UnixMillis(0);
    match settlement {
        Settlement::Sent => {
            row.sent = true;
            row.next_attempt = now;
        }
        Settlement::RetryAt(at) => {
            row.attempts = failed;
            row.next_attempt = at;
        }
        Settlement::TokenInvalid => {
            // Registered anew in the meantime: the new token has not been tried.
            row.attempts = 0;
            row.next_attempt = now;
            drop_registration(state, wakeup, now);
        }
        Settlement::Dead { outcome } => {
            state.wakes.remove(&key);
            state.dead_letters.push(DeadLetter {
                tenant: wakeup.tenant,
                device: wakeup.device,
                attempts: failed,
                outcome: outcome.to_owned(),
                died_at: now,
            });
        }
    }
}

/// The registration that the push service has refused goes, and the wakeup with it.
fn drop_registration(state: &mut State, wakeup: &ClaimedWakeup, now: UnixMillis) {
    let key = (wakeup.tenant, wakeup.device);
    let is_refused = |registration: &PushRegistration| {
        registration.registered_at == wakeup.registered_at && registration.sealed_token == wakeup.sealed_token
    };
    if !state.registrations.get(&key).is_some_and(is_refused) {
        return;
    }
    state.registrations.remove(&key);
    state.wakes.remove(&key);
    state.audit.push(AuditEvent {
        at: now,
        tenant: Some(wakeup.tenant),
        actor: None,
        action: AuditAction::PushUnregistered,
        resource: Some(wakeup.device.0),
        allowed: true,
    });
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).expect("a count of rows fits")
}
