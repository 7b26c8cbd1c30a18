//! Where one session takes messages of its shared subscriptions, no more than its client has room for.
//!
//! Unlike the mailbox it never falls behind: what finds no room here is for another member.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sotto_model::limits::SHARE_LOANS_WAITING_MAX;

use crate::share::ticket::Lender;

pub(crate) struct Desk<L> {
    /// Has lenders.
    used: AtomicBool,
    /// Takes another message: a hint that saves groups the lock.
    open: AtomicBool,
    /// `None` without lenders. Locked by groups to lend, and by the session's owner.
    counter: Mutex<Option<Box<Counter<L>>>>,
}

struct Counter<L> {
    lenders: Vec<Arc<dyn Lender>>,
    queue: VecDeque<L>,
    /// How many the client has room for; 0 while nobody is connected.
    room: usize,
}

impl<L> Desk<L> {
    pub(crate) fn new() -> Self {
        Self { used: AtomicBool::new(false), open: AtomicBool::new(false), counter: Mutex::new(None) }
    }

    // ---- called by groups ----

    pub(crate) fn join(&self, lender: Arc<dyn Lender>) {
        let mut counter = self.counter.lock();
        let counter = counter.get_or_insert_with(|| {
            Box::new(Counter { lenders: Vec::new(), queue: VecDeque::new(), room: 0 })
        });
        if !counter.lenders.iter().any(|known| Arc::ptr_eq(known, &lender)) {
            counter.lenders.push(lender);
        }
        self.used.store(true, Ordering::Relaxed);
    }

    /// Returns what `mine` says was lent by the lender and has not been taken.
    #[must_use]
    pub(crate) fn leave(&self, lender: &Arc<dyn Lender>, mine: impl Fn(&L) -> bool) -> Vec<L> {
        let mut place = self.counter.lock();
        let Some(counter) = place.as_mut() else { return Vec::new() };
        counter.lenders.retain(|known| !Arc::ptr_eq(known, lender));
        let (back, kept): (VecDeque<L>, VecDeque<L>) =
            std::mem::take(&mut counter.queue).into_iter().partition(mine);
        counter.queue = kept;
        if counter.lenders.is_empty() && counter.queue.is_empty() {
            *place = None;
            self.used.store(false, Ordering::Relaxed);
            self.open.store(false, Ordering::Relaxed);
        }
        Vec::from(back)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// `Ok(true)`: the owner has to be woken.
    pub(crate) fn lend(&self, loan: L) -> Result<bool, L> {
        let mut place = self.counter.lock();
        match place.as_mut() {
            Some(counter) if counter.has_room() => {
                counter.queue.push_back(loan);
                self.open.store(counter.has_room(), Ordering::Relaxed);
                Ok(counter.queue.len() == 1)
            }
            _ => Err(loan),
        }
    }

    // ---- called by the owner ----

    /// Is there anything to be done here at all?
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// How many messages the client has room for. Returns those for which there is none any more; wakes the
    /// groups when there is room again.
    #[must_use]
    pub(crate) fn set_room(&self, room: usize) -> Vec<L> {
        let mut place = self.counter.lock();
        let Some(counter) = place.as_mut() else { return Vec::new() };
        counter.room = room.min(SHARE_LOANS_WAITING_MAX);
        let kept = counter.queue.len().min(counter.room);
        let back = counter.queue.split_off(kept);
        let open = counter.has_room();
        if open && !self.open.swap(true, Ordering::Relaxed) {
            counter.lenders.iter().for_each(|lender| lender.wake());
        } else {
            self.open.store(open, Ordering::Relaxed);
        }
        Vec::from(back)
    }

    pub(crate) fn take(&self) -> Option<L> {
        let mut place = self.counter.lock();
        let counter = place.as_mut()?;
        let loan = counter.queue.pop_front();
        // What is taken is on its way to the client: `set_room` says when there is room for more.
        counter.room -= usize::from(loan.is_some());
        if counter.queue.is_empty() {
            counter.queue = VecDeque::new();
        }
        loan
    }
}

impl<L> Counter<L> {
    fn has_room(&self) -> bool {
        self.queue.len() < self.room
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::share::ticket::Sequence;

    #[derive(Default)]
    struct Group {
        woken: AtomicUsize,
    }

    impl Lender for Group {
        fn done(&self, _: Sequence) {}

        fn handed_over(&self, _: Sequence) {}

        fn give_back(&self, _: Sequence) {}

        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn desk() -> (Desk<u32>, Arc<Group>) {
        let (desk, group) = (Desk::new(), Arc::new(Group::default()));
        desk.join(group.clone());
        (desk, group)
    }

    #[test]
    fn no_more_is_lent_than_the_client_has_room_for() {
        let (desk, _) = desk();
        assert_eq!(desk.lend(1), Err(1), "nobody is connected");
        assert!(desk.set_room(2).is_empty());
        assert_eq!([desk.lend(1), desk.lend(2), desk.lend(3)], [Ok(true), Ok(false), Err(3)]);
        assert!(!desk.is_open());
        assert_eq!(desk.take(), Some(1));
        assert_eq!(desk.lend(3), Err(3), "the first is with the client");
    }

    #[test]
    fn what_finds_no_room_any_more_comes_back_and_the_oldest_stays() {
        let (desk, _) = desk();
        assert!(desk.set_room(3).is_empty());
        assert!((1..=3).all(|loan| desk.lend(loan).is_ok()));
        assert_eq!(desk.set_room(1), [2, 3]);
        assert_eq!(desk.take(), Some(1));
    }

    #[test]
    fn groups_are_woken_when_there_is_room_again_and_not_before() {
        let (desk, group) = desk();
        let woken = || group.woken.load(Ordering::Relaxed);
        assert!(desk.set_room(1).is_empty());
        assert!(desk.set_room(1).is_empty());
        assert_eq!(woken(), 1);
        assert_eq!(desk.lend(1), Ok(true));
        assert!(desk.set_room(1).is_empty());
        assert_eq!(woken(), 1, "the room is taken");
        assert_eq!(desk.take(), Some(1));
        assert!(desk.set_room(1).is_empty());
        assert_eq!(woken(), 2);
    }

    #[test]
    fn a_group_that_is_left_gets_back_its_own() {
        let (desk, group) = desk();
        let other: Arc<dyn Lender> = Arc::new(Group::default());
        desk.join(other.clone());
        assert!(desk.set_room(4).is_empty());
        assert!((1..=4).all(|loan| desk.lend(loan).is_ok()));
        assert_eq!(desk.leave(&other, |loan| loan % 2 == 0), [2, 4]);
        assert!(desk.is_used());
        let group: Arc<dyn Lender> = group;
        assert_eq!(desk.leave(&group, |_| true), [1, 3]);
        assert!(!desk.is_used());
    }
}
