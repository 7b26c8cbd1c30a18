//! The sessions of one thread, as those see them who tell them what to do: the phase of the run, messages
//! that have come due, Keep Alive.
//!
//! One waker and three numbers a session; no timers and no channels of its own.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::run_clock::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Sessions connect and stay.
    Connecting,
    /// Publishers publish; the first message is due at this time.
    Publishing(Micros),
    /// Connections of earlier rounds are cut, at the moment that it names; their clients come back.
    Cut(Cut),
    /// Nothing more is published; what is under way arrives.
    Draining,
    /// Sessions say DISCONNECT and end.
    Stopping,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Publishing(_) => "publishing",
            Self::Cut(_) => "cut",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// The end of all connections at once, from which on a new round counts; round 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    pub(crate) round: u32,
    pub(crate) at: Micros,
}

#[derive(Debug)]
pub(crate) struct Roster {
    phase: Cell<Phase>,
    seats: RefCell<Vec<Seat>>,
    /// Seats that their sessions have left.
    free: RefCell<Vec<u32>>,
}

/// A seat and whose turn it is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeatId {
    index: u32,
    turn: u32,
}

#[derive(Debug)]
struct Seat {
    turn: u32,
    waker: Option<Waker>,
    /// Messages due since the run began.
    due: u64,
    ping_every: Option<Duration>,
    ping_at: Micros,
    must_ping: bool,
}

/// What a session finds when it attends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) phase: Phase,
    pub(crate) due: u64,
    pub(crate) must_ping: bool,
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self { phase: Cell::new(Phase::Connecting), seats: RefCell::default(), free: RefCell::default() }
    }

    /// Half of Keep Alive leaves a PINGREQ time to arrive. [MQTT-3.1.2-20]
    pub(crate) fn take_seat(&self, keep_alive_seconds: u16, now: Micros) -> SeatId {
        let ping_every = (keep_alive_seconds > 0).then(|| Duration::from_secs(keep_alive_seconds.into()) / 2);
        let ping_at = now.plus(ping_every.unwrap_or_default());
        let mut seat = Seat { turn: 0, waker: None, due: 0, ping_every, ping_at, must_ping: false };
        let mut seats = self.seats.borrow_mut();
        let index = if let Some(index) = self.free.borrow_mut().pop() {
            seat.turn = seats[index as usize].turn + 1;
            seats[index as usize] = seat;
            index
        } else {
            seats.push(seat);
            u32::try_from(seats.len() - 1).expect("as many as clients of the run at most")
        };
        SeatId { index, turn: seats[index as usize].turn }
    }

    /// Leaves the session's waker and takes its orders.
    pub(crate) fn attend(&self, id: SeatId, cx: &mut Context<'_>) -> Orders {
        let seat = &mut self.seats.borrow_mut()[id.index as usize];
        match &mut seat.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Orders { phase: self.phase.get(), due: seat.due, must_ping: std::mem::take(&mut seat.must_ping) }
    }

    pub(crate) fn leave(&self, id: SeatId) {
        let seat = &mut self.seats.borrow_mut()[id.index as usize];
        seat.waker = None;
        seat.ping_every = None;
        self.free.borrow_mut().push(id.index);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The last end of all connections.
    pub(crate) fn cut(&self) -> Cut {
        match self.phase.get() {
            Phase::Cut(cut) => cut,
            _ => Cut::default(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        for seat in self.seats.borrow().iter() {
            seat.wake();
        }
    }

    /// One more message of this session is due. A session that has left its seat misses it.
    pub(crate) fn add_due(&self, id: SeatId) {
        let seat = &mut self.seats.borrow_mut()[id.index as usize];
        if seat.turn == id.turn {
            seat.due += 1;
            seat.wake();
        }
    }

    /// Has everyone ping whose time has come, and wakes everyone with `wake_all`.
    pub(crate) fn sweep(&self, now: Micros, wake_all: bool) {
        for seat in self.seats.borrow_mut().iter_mut() {
            let ping_every = seat.ping_every.filter(|_| seat.ping_at <= now);
            if let Some(ping_every) = ping_every {
                seat.must_ping = true;
                seat.ping_at = now.plus(ping_every);
            }
            if ping_every.is_some() || wake_all {
                seat.wake();
            }
        }
    }
}

impl Seat {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicU32);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_session_pings_after_half_its_keep_alive_and_one_without_never() {
        let roster = Roster::new();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        let with = roster.take_seat(10, Micros(0));
        let without = roster.take_seat(0, Micros(0));
        assert!(!roster.attend(with, &mut cx).must_ping);
        assert!(!roster.attend(without, &mut cx).must_ping);
        roster.sweep(Micros(4_999_999), false);
        assert_eq!(bell.0.load(Ordering::Relaxed), 0);
        roster.sweep(Micros(5_000_000), false);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert!(roster.attend(with, &mut cx).must_ping);
        assert!(!roster.attend(with, &mut cx).must_ping, "one sweep asks once");
        assert!(!roster.attend(without, &mut cx).must_ping);
        roster.sweep(Micros(9_000_000), false);
        assert!(!roster.attend(with, &mut cx).must_ping);
    }

    #[test]
    fn a_new_phase_wakes_everyone_who_is_still_there() {
        let roster = Roster::new();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        let (stays, leaves) = (roster.take_seat(0, Micros(0)), roster.take_seat(0, Micros(0)));
        roster.attend(stays, &mut cx);
        roster.attend(leaves, &mut cx);
        roster.leave(leaves);
        roster.enter(Phase::Stopping);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert_eq!(roster.attend(stays, &mut cx).phase, Phase::Stopping);
    }

    #[test]
    fn a_seat_that_was_left_is_taken_again_without_what_is_due_to_who_left_it() {
        let roster = Roster::new();
        let before = roster.take_seat(1, Micros(0));
        roster.add_due(before);
        roster.leave(before);
        let after = roster.take_seat(0, Micros(0));
        assert_eq!(after.index, before.index);
        roster.add_due(before);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(roster.attend(after, &mut cx).due, 0);
        assert_ne!(roster.take_seat(0, Micros(0)).index, after.index);
    }

    #[test]
    fn due_messages_add_up_until_the_session_looks() {
        let roster = Roster::new();
        let seat = roster.take_seat(0, Micros(0));
        roster.add_due(seat);
        roster.add_due(seat);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(roster.attend(seat, &mut cx).due, 2);
    }
}
