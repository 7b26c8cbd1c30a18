//! From outbox rows to wakeups, and what becomes of those.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sotto_model::{DeviceId, Offset, TenantId, UnixMillis, Urgency};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::outbox::{
    ClaimedWakeup, DeadLetter, DeadLetterSelector, LAG_COUNT_MAX, LANES_MAX, LaneLag, Outbox, OutboxLag,
    Relayed, Replayed, Settlement,
};
use sotto_storage::push_registry::Lane;
use sotto_storage::wakeup_quota::WakeupQuota;

use crate::state::{State, WakeRow};
use crate::store::MemoryStore;
use crate::wakes::{Wanted, is_asleep, make_due, urgency_for};

type Key = (TenantId, DeviceId);

#[async_trait]
impl Outbox for MemoryStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        let mut state = self.lock();
        let taken = limit.min(state.outbox.len());
        let rows: Vec<(TenantId, Offset)> = state.outbox.drain(..taken).collect();
        let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
        for &(tenant, offset) in &rows {
            for one in sleepers(&state, tenant, offset, now) {
                let known = wanted.entry((one.tenant, one.device)).or_insert(one);
                if one.urgency > known.urgency {
                    *known = one;
                } else if one.urgency == known.urgency {
                    known.due_since = known.due_since.min(one.due_since);
                }
            }
        }
        let wakeups = make_due(&mut state, wanted.into_values().collect(), now);
        Ok(Relayed { messages: count(rows.len()), wakeups: count(wakeups), full: taken == limit })
    }

    async fn claim(
        &self,
        lane: &Lane,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        let mut state = self.lock();
        for key in claimable(&state, lane, now).into_iter().take(limit) {
            if !is_asleep(&state, key.0, key.1, now) {
                state.wakes.remove(&key);
            }
        }
        let mut claimed = claimable(&state, lane, now);
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

    async fn settle_many(
        &self,
        settlements: &[(ClaimedWakeup, Settlement)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        for (wakeup, settlement) in settlements {
            settle(&mut state, wakeup, *settlement, now);
        }
        Ok(())
    }

    fn set_wakeup_quota(&self, quota: WakeupQuota) {
        self.lock().quota = quota;
    }

    async fn lag(&self, now: UnixMillis) -> Result<OutboxLag, StoreError> {
        let state = self.lock();
        let oldest = state.outbox.front().and_then(|key| state.messages.get(key));
        let lanes: BTreeSet<(u8, Box<str>)> = state
            .wakes
            .keys()
            .map(|key| lane_of(&state, *key))
            .map(|lane| (lane.platform as u8, lane.app))
            .collect();
        Ok(OutboxLag {
            messages: count(state.outbox.len()),
            oldest: oldest.map(|row| row.message.committed_at),
            wakeups_due: count(state.wakes.values().filter(|row| !row.sent).count()),
            dead_letters: count(state.dead_letters.len()),
            lanes: lanes.into_iter().take(LANES_MAX).map(|lane| lane_lag(&state, &lane, now)).collect(),
        })
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(self.lock().dead_letters.iter().rev().take(limit).cloned().collect())
    }

    async fn replay_dead_letters(
        &self,
        selector: DeadLetterSelector,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Replayed, StoreError> {
        let mut state = self.lock();
        let is_meant = |letter: &DeadLetter| match selector {
            DeadLetterSelector::All => true,
            DeadLetterSelector::Tenant(tenant) => letter.tenant == tenant,
            DeadLetterSelector::Device(tenant, device) => (letter.tenant, letter.device) == (tenant, device),
        };
        let mut taken: Vec<DeadLetter> = Vec::new();
        state.dead_letters.retain(|letter| {
            let goes = is_meant(letter) && taken.len() < limit;
            taken.extend(goes.then(|| letter.clone()));
            !goes
        });
        let mut wanted: BTreeMap<Key, Wanted> = BTreeMap::new();
        for DeadLetter { tenant, device, urgency, .. } in &taken {
            let key = (*tenant, *device);
            if state.wakes.contains_key(&key) || !is_asleep(&state, *tenant, *device, now) {
                continue;
            }
            let one = Wanted { tenant: *tenant, device: *device, urgency: *urgency, due_since: now };
            let known = wanted.entry(key).or_insert(one);
            known.urgency = known.urgency.max(*urgency);
        }
        let due = make_due(&mut state, wanted.into_values().collect(), now);
        Ok(Replayed { due: count(due), gone: count(taken.len() - due) })
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
fn sleepers(state: &State, tenant: TenantId, offset: Offset, now: UnixMillis) -> Vec<Wanted> {
    let Some(row) = state.messages.get(&(tenant, offset)) else { return Vec::new() };
    let due_since = row.message.committed_at;
    state
        .sessions
        .values()
        .filter(|session| session.tenant == tenant)
        .filter(|session| session.is_asleep(now) && session.progress.cursor.0 < offset)
        .filter_map(|session| {
            let urgency = urgency_for(state, tenant, session.user, offset, row, now)?;
            Some(Wanted { tenant, device: session.device?, urgency, due_since })
        })
        .filter(|wanted| is_asleep(state, tenant, wanted.device, now))
        .collect()
}

/// The longest waiting first.
fn claimable(state: &State, lane: &Lane, now: UnixMillis) -> Vec<Key> {
    let due = |row: &WakeRow| !row.sent && row.next_attempt <= now;
    let mut keys: Vec<_> = state
        .wakes
        .iter()
        .filter(|(key, row)| due(row) && lane_of(state, **key) == *lane)
        .map(|(&key, row)| (row.next_attempt, key))
        .collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key).collect()
}

fn lane_of(state: &State, key: Key) -> Lane {
    state.registrations.get(&key).expect("a wakeup goes with its registration").registration.lane()
}

fn lane_lag(state: &State, lane: &(u8, Box<str>), now: UnixMillis) -> LaneLag {
    let is_of_lane = |key: Key| {
        let of = lane_of(state, key);
        (of.platform as u8, &of.app) == (lane.0, &lane.1)
    };
    let rows: Vec<(Key, &WakeRow)> =
        state.wakes.iter().filter(|(key, _)| is_of_lane(**key)).map(|(key, row)| (*key, row)).collect();
    let counted = |is_meant: &dyn Fn(&WakeRow) -> bool| {
        count(rows.iter().filter(|(_, row)| is_meant(row)).take(LAG_COUNT_MAX).count())
    };
    let is_due = |row: &WakeRow| !row.sent && row.next_attempt <= now;
    LaneLag {
        lane: lane_of(state, rows[0].0),
        due: counted(&is_due),
        waiting: counted(&|row| !row.sent && !is_due(row) && row.lease == 0),
        leased: counted(&|row| !row.sent && !is_due(row) && row.lease != 0),
        sent: counted(&|row| row.sent),
        oldest_due: rows.iter().filter(|(_, row)| is_due(row)).map(|(_, row)| row.next_attempt).min(),
    }
}

fn lend(state: &mut State, key: Key, lease: u64, lease_until: UnixMillis) -> ClaimedWakeup {
    let registered = state.registrations.get(&key).expect("a wakeup goes with its registration");
    let registration = registered.registration.clone();
    let last_low_sent_at = registered.low_sent_at;
    let row = state.wakes.get_mut(&key).expect("it was just found");
    row.lease = lease;
    row.next_attempt = lease_until;
    ClaimedWakeup {
        tenant: registration.tenant,
        device: registration.device,
        lease,
        attempts: row.attempts,
        due_since: row.due_since,
        urgency: row.urgency,
        platform: registration.platform,
        app: registration.app,
        sealed_token: registration.sealed_token,
        registered_at: registration.registered_at,
        last_low_sent_at,
    }
}

fn settle(state: &mut State, wakeup: &ClaimedWakeup, settlement: Settlement, now: UnixMillis) {
    let key = (wakeup.tenant, wakeup.device);
    let Some(row) = state.wakes.get_mut(&key).filter(|row| row.lease == wakeup.lease) else { return };
    row.lease = 0;
    match settlement {
        Settlement::Sent { at } => {
            row.sent = true;
            row.next_attempt = at;
            if row.urgency == Urgency::Low {
                let registered = state.registrations.get_mut(&key);
                registered.expect("a wakeup goes with its registration").low_sent_at = Some(at);
            }
        }
        Settlement::RetryAt(at) => {
            row.attempts += 1;
            row.next_attempt = at;
        }
        Settlement::Wait(at) => row.next_attempt = at,
        Settlement::TokenInvalid { since, retry_at } => {
            row.next_attempt = now;
            let registered = state.registrations.get(&key).expect("a wakeup goes with its registration");
            if registered.registration.registered_at != wakeup.registered_at {
                // Registered anew in the meantime: the new token has not been tried.
            } else if since.is_some_and(|since| wakeup.registered_at >= since) {
                row.attempts += 1;
                row.next_attempt = retry_at;
            } else {
                drop_registration(state, key, now);
            }
        }
        Settlement::Dead { outcome } => {
            let row = state.wakes.remove(&key).expect("it was just found");
            state.dead_letters.push(DeadLetter {
                tenant: wakeup.tenant,
                device: wakeup.device,
                platform: wakeup.platform,
                app: wakeup.app.clone(),
                urgency: row.urgency,
                attempts: row.attempts.saturating_add(1),
                outcome: outcome.to_owned(),
                died_at: now,
            });
        }
    }
}

/// The registration that the push service has refused goes, and the wakeup with it.
fn drop_registration(state: &mut State, key: Key, now: UnixMillis) {
    state.registrations.remove(&key);
    state.wakes.remove(&key);
    state.audit.push(AuditEvent {
        at: now,
        tenant: Some(key.0),
        actor: None,
        action: AuditAction::PushUnregistered,
        resource: Some(key.1.0),
        allowed: true,
    });
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).expect("a count of rows fits")
}
