//! Whose deadline may have passed: a wheel of half-second slots, so that a look costs what is due and not
//! what is connected.
//!
//! A session stands in one slot, at or before its deadline. A deadline that moves away, as a Keep Alive's does
//! with every packet, moves nothing here: when its slot comes round, the session is put where it belongs by
//! then. One that draws nearer stands in a second slot, and counts in that alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::session_entry::SessionEntry;

/// Of a second.
const SLOT_TENTHS: u32 = 5;
const SLOTS: u32 = 128;
/// A session stands no further ahead than this, and no more slots than this are taken at once: together less than
/// a lap, so that what is taken and what is entered meanwhile never share a slot.
const AHEAD_MAX: u32 = 64;
const TAKEN_MAX: u32 = 63;

pub(crate) struct Deadlines {
    /// Locked by sessions to enter, and by the sweep to take what is due.
    slots: [Mutex<Vec<Weak<SessionEntry>>>; SLOTS as usize],
    /// The first slot that is not yet taken, counted from the clock's start.
    next: AtomicU32,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { slots: std::array::from_fn(|_| Mutex::new(Vec::new())), next: AtomicU32::new(0) }
    }

    /// The time by which something must move; 0: none.
    pub(crate) fn set(&self, entry: &Arc<SessionEntry>, deadline_tenths: u32) {
        entry.set_deadline_tenths(deadline_tenths);
        if deadline_tenths != 0 && entry.stands_after(slot_of(deadline_tenths)) {
            self.enter(entry, deadline_tenths);
        }
    }

    fn enter(&self, entry: &Arc<SessionEntry>, deadline_tenths: u32) {
        loop {
            let next = self.next.load(Ordering::Acquire);
            // What is further away is looked at on the way: then memory of a session that has gone is given back,
            // too.
            let number = slot_of(deadline_tenths).clamp(next, next + AHEAD_MAX);
            let mut slot = self.slot(number).lock();
            // The sweep moves on before it takes a slot: it finds what comes here, or this finds it moved on.
            if self.next.load(Ordering::Acquire) <= number {
                entry.stand_in(number);
                slot.push(Arc::downgrade(entry));
                return;
            }
        }
    }

    /// Calls `late` for each session whose deadline has passed: again with every look, until it has none.
    pub(crate) fn look(&self, now_tenths: u32, mut late: impl FnMut(&SessionEntry)) {
        let last = now_tenths / SLOT_TENTHS;
        loop {
            let first = self.next.load(Ordering::Acquire);
            if first > last {
                return;
            }
            let end = last.min(first + TAKEN_MAX - 1);
            self.next.store(end + 1, Ordering::Release);
            for number in first..=end {
                let due = std::mem::take(&mut *self.slot(number).lock());
                for entry in due.iter().filter_map(Weak::upgrade) {
                    let Some(deadline) = entry.leave(number) else { continue };
                    if now_tenths >= deadline {
                        late(&entry);
                    }
                    self.enter(&entry, deadline.max(now_tenths + 1));
                }
            }
        }
    }

    fn slot(&self, number: u32) -> &Mutex<Vec<Weak<SessionEntry>>> {
        &self.slots[(number % SLOTS) as usize]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.lock().len()).sum()
    }
}

/// The first at whose time the deadline has passed.
fn slot_of(deadline_tenths: u32) -> u32 {
    deadline_tenths.div_ceil(SLOT_TENTHS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sotto_model::{ClientId, ClientLimits, Principal, TenantId, TopicPolicy, UserId};
    use uuid::Uuid;

    use super::*;

    fn entry() -> Arc<SessionEntry> {
        let principal = Principal {
            tenant: TenantId(Uuid::from_u128(1)),
            user: UserId(Uuid::from_u128(2)),
            device: None,
            client_id: ClientId::parse("alice/phone").expect("a client id"),
            topics: TopicPolicy::Membership,
        };
        Arc::new(SessionEntry::new(principal, &ClientLimits::DEFAULT))
    }

    fn late_at(deadlines: &Deadlines, now_tenths: u32) -> usize {
        let mut late = 0;
        deadlines.look(now_tenths, |_| late += 1);
        late
    }

    #[test]
    fn a_deadline_that_moves_away_is_not_met_before_its_time() {
        let (deadlines, entry) = (Deadlines::new(), entry());
        let mut first_late = None;
        for now in 1..2000 {
            if now < 1000 {
                deadlines.set(&entry, now + 300);
            }
            if late_at(&deadlines, now) > 0 {
                first_late.get_or_insert(now);
            }
            assert_eq!(deadlines.len(), 1);
        }
        assert_eq!(first_late, Some(1300));
        assert!(late_at(&deadlines, 2010) > 0, "it is told of again");
        deadlines.set(&entry, 0);
        assert_eq!(late_at(&deadlines, 3000), 0);
    }

    #[test]
    fn a_session_that_has_gone_takes_no_memory_a_lap_later() {
        let deadlines = Deadlines::new();
        for number in 0..100 {
            deadlines.set(&entry(), 1_000_000 + number);
        }
        assert_eq!(deadlines.len(), 100);
        assert_eq!(late_at(&deadlines, SLOTS * SLOT_TENTHS), 0);
        assert_eq!(deadlines.len(), 0);
    }

    #[test]
    fn a_sweep_that_was_held_up_misses_none() {
        let (deadlines, entry) = (Deadlines::new(), entry());
        deadlines.set(&entry, 10_000);
        assert!(late_at(&deadlines, 20_000) > 0);
        deadlines.set(&entry, 30_000);
        assert_eq!(late_at(&deadlines, 29_999), 0);
        assert!(late_at(&deadlines, 30_000) > 0);
        assert_eq!(deadlines.len(), 1);
    }

    proptest! {
        /// Told of in the first look after a slot's time, and never before the deadline.
        #[test]
        fn every_deadline_is_met_in_its_time(
            sets in proptest::collection::vec((1_u32..400, proptest::option::of(0_u32..2000)), 1..60),
        ) {
            let (deadlines, entry) = (Deadlines::new(), entry());
            let (mut now, mut deadline) = (1_u32, 0_u32);
            for (passes, set) in sets {
                if let Some(ahead) = set {
                    deadline = if ahead == 0 { 0 } else { now + ahead };
                    deadlines.set(&entry, deadline);
                }
                for _ in 0..passes {
                    now += 1;
                    let late = late_at(&deadlines, now) > 0;
                    let is_due = deadline != 0 && now >= slot_of(deadline) * SLOT_TENTHS;
                    prop_assert_eq!(late, is_due && now % SLOT_TENTHS == 0, "at {}, by {}", now, deadline);
                }
            }
        }
    }
}
