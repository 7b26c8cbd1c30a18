//! Connections on their way to CONNACK: each stage has a deadline of its own, kept by the sweep, and work on
//! handshakes goes on for so many at a time.
//!
//! ```text
//! Silent   nothing came yet                          waits for the peer
//! Queued   its first bytes are there                 waits for a slot
//! Tls      handshake, in a slot                      waits for the peer
//! Connect  TLS is done, CONNECT is to come           waits for the peer
//! Exchange enhanced authentication                   waits for the peer
//! Opening  authenticated and opened                  waits for the node
//! ```
//!
//! A slot is for whoever is at work. Who lets the node wait gives it back after [`SLOT_TENTHS_MAX`] and goes on
//! without, so that slots come free however many peers fall silent. When the node is full, one that has let
//! it wait for [`GIVES_WAY_AFTER_TENTHS`] gives way to a newcomer.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::admission::turns::Turns;
use crate::clock::SystemClock;

/// A slow network's first segment may have to be sent again, twice.
const SILENT_TENTHS_MAX: u32 = 100;
/// Behind those that came before, all at work: as long as a patient client waits. One that is not closes.
const QUEUED_TENTHS_MAX: u32 = 600;
/// Two round trips, and a second or two of a slow phone's.
const TLS_TENTHS_MAX: u32 = 100;
/// The WebSocket's upgrade included.
const CONNECT_TENTHS_MAX: u32 = 100;
const EXCHANGE_TENTHS_MAX: u32 = 100;
/// The password's hash, the session's row and what was in flight.
const OPENING_TENTHS_MAX: u32 = 200;
/// From the end of accepting on, for all that wait for their peer.
const STOPPING_TENTHS_MAX: u32 = 20;
/// In a slot without a word from the peer.
const SLOT_TENTHS_MAX: u32 = 20;
const GIVES_WAY_AFTER_TENTHS: u32 = 30;
/// Looked at for one that gives way, the earliest first.
const GIVING_WAY_LOOKS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Silent,
    Queued,
    Tls,
    Connect,
    Exchange,
    Opening,
}

/// Why an arrival ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Gone {
    TimedOut = 1,
    GaveWay,
    Stopping,
}

/// One connection's way in. Dropped, it is over: the connection is live, or gone.
pub(crate) struct Arrival {
    arrivals: Arc<Arrivals>,
    place: Arc<Place>,
    number: u64,
    stage: Stage,
    /// In line for a turn.
    line: PollSemaphore,
}

/// Told to the connection by whoever ends its arrival.
struct Place {
    gone: AtomicU8,
    waker: AtomicWaker,
}

pub(crate) struct Arrivals {
    slots: Arc<Semaphore>,
    slots_max: usize,
    turns: Turns,
    /// Locked by an arrival for each stage it comes to, and by the sweep.
    table: Mutex<Table>,
    /// Made to give way, and not closed yet.
    giving_way: AtomicUsize,
}

/// By number, in the order in which they were accepted.
#[derive(Default)]
struct Table {
    last_number: u64,
    /// Those that wait for their peer.
    on_peer: BTreeMap<u64, Waiting>,
    /// Those that wait for this node.
    on_node: BTreeMap<u64, Waiting>,
    stopping: bool,
}

struct Waiting {
    place: Arc<Place>,
    /// Holds what a newcomer could use.
    gives_way: bool,
    since_tenths: u32,
    deadline_tenths: u32,
    slot: Option<OwnedSemaphorePermit>,
}

impl Stage {
    fn tenths_max(self) -> u32 {
        match self {
            Self::Silent => SILENT_TENTHS_MAX,
            Self::Queued => QUEUED_TENTHS_MAX,
            Self::Tls => TLS_TENTHS_MAX,
            Self::Connect => CONNECT_TENTHS_MAX,
            Self::Exchange => EXCHANGE_TENTHS_MAX,
            Self::Opening => OPENING_TENTHS_MAX,
        }
    }

    fn waits_for_peer(self) -> bool {
        !matches!(self, Self::Queued | Self::Opening)
    }
}

impl Gone {
    /// For metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "arrival_timeout",
            Self::GaveWay => "gave_way",
            Self::Stopping => "stopping",
        }
    }
}

impl Arrival {
    /// `None` when the node takes nobody any more.
    pub(super) fn begin(arrivals: Arc<Arrivals>, gives_way: bool, now_tenths: u32) -> Option<Self> {
        let place = Arc::new(Place { gone: AtomicU8::new(0), waker: AtomicWaker::new() });
        let mut table = arrivals.table.lock();
        if table.stopping {
            return None;
        }
        table.last_number += 1;
        let number = table.last_number;
        let deadline_tenths = now_tenths + SILENT_TENTHS_MAX;
        let place_of = place.clone();
        let waiting =
            Waiting { place: place_of, gives_way, since_tenths: now_tenths, deadline_tenths, slot: None };
        table.on_peer.insert(number, waiting);
        drop(table);
        let line = arrivals.turns.line_up();
        Some(Self { arrivals, place, number, stage: Stage::Silent, line })
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Goes on to `stage`, with its deadline. Who was ended meanwhile stays so.
    pub(crate) fn reach(&mut self, stage: Stage, now_tenths: u32) {
        self.reach_with(stage, now_tenths, None);
    }

    fn reach_with(&mut self, stage: Stage, now_tenths: u32, slot: Option<OwnedSemaphorePermit>) {
        let mut table = self.arrivals.table.lock();
        let Some(mut waiting) = table.of(self.stage).remove(&self.number) else { return };
        let hurried = table.stopping && stage.waits_for_peer();
        let tenths_max = if hurried { STOPPING_TENTHS_MAX } else { stage.tenths_max() };
        waiting.since_tenths = now_tenths;
        waiting.deadline_tenths = now_tenths + tenths_max;
        waiting.slot = slot.or(waiting.slot);
        self.stage = stage;
        table.of(stage).insert(self.number, waiting);
    }

    /// Goes on to `Tls` in a slot, in its turn; the error says why it ended instead.
    pub(crate) async fn take_slot(&mut self, clock: &SystemClock) -> Result<(), Gone> {
        let slots = self.arrivals.slots.clone();
        let slot = if let Ok(slot) = slots.clone().try_acquire_owned() {
            slot
        } else {
            self.reach(Stage::Queued, clock.tenths());
            tokio::select! {
                biased;
                gone = self.gone() => return Err(gone),
                slot = slots.acquire_owned() => slot.expect("the semaphore is never closed"),
            }
        };
        self.reach_with(Stage::Tls, clock.tenths(), Some(slot));
        Ok(())
    }

    /// Ready for one step of the handshake.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.arrivals.turns.poll_turn(&mut self.line, cx)
    }

    /// Ready when it must end.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Gone> {
        if let Some(gone) = self.place.gone() {
            return Poll::Ready(gone);
        }
        self.place.waker.register(cx.waker());
        // It may have been told between the two.
        self.place.gone().map_or(Poll::Pending, Poll::Ready)
    }

    pub(crate) async fn gone(&self) -> Gone {
        poll_fn(|cx| self.poll_gone(cx)).await
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut table = self.arrivals.table.lock();
        let waiting = table.of(self.stage).remove(&self.number);
        if self.place.gone() == Some(Gone::GaveWay) {
            self.arrivals.gave_way();
        }
        drop(table);
        // After the lock: who is next in line for the slot is woken.
        drop(waiting);
    }
}

impl Arrivals {
    pub(super) fn new(slots_max: usize, turns_max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots_max)),
            slots_max,
            turns: Turns::new(turns_max),
            table: Mutex::default(),
            giving_way: AtomicUsize::new(0),
        }
    }

    pub(super) async fn pace(&self) {
        self.turns.give_back().await;
    }

    pub(super) fn giving_way(&self) -> usize {
        self.giving_way.load(Ordering::Relaxed)
    }

    fn gave_way(&self) {
        self.giving_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends one that has let the node wait for long enough, of the first to come.
    pub(super) fn make_way(&self, now_tenths: u32) -> bool {
        let mut table = self.table.lock();
        let mut looked_at = table.on_peer.iter().take(GIVING_WAY_LOOKS_MAX);
        let silent = looked_at.find(|(_, waiting)| {
            waiting.gives_way && waiting.is_silent_for(GIVES_WAY_AFTER_TENTHS, now_tenths)
        });
        let Some(number) = silent.map(|(number, _)| *number) else { return false };
        let waiting = table.on_peer.remove(&number);
        if let Some(waiting) = &waiting {
            // Before the lock is open: it is counted until its arrival is dropped.
            self.giving_way.fetch_add(1, Ordering::Relaxed);
            waiting.place.end(Gone::GaveWay);
        }
        drop(table);
        waiting.is_some()
    }

    /// Ends who is past a deadline, and takes back the slots of those who let the node wait.
    pub(super) fn sweep(&self, now_tenths: u32) {
        let mut table = self.table.lock();
        let Table { on_peer, on_node, stopping, .. } = &mut *table;
        let cause = if *stopping { Gone::Stopping } else { Gone::TimedOut };
        let is_late = |_: &u64, waiting: &mut Waiting| waiting.deadline_tenths <= now_tenths;
        let late: Vec<_> = on_peer
            .extract_if(.., is_late)
            .map(|(_, waiting)| (waiting, cause))
            .chain(on_node.extract_if(.., is_late).map(|(_, waiting)| (waiting, Gone::TimedOut)))
            .collect();
        let slots: Vec<_> = on_peer
            .values_mut()
            .filter(|waiting| waiting.is_silent_for(SLOT_TENTHS_MAX, now_tenths))
            .filter_map(|waiting| waiting.slot.take())
            .collect();
        drop(table);
        drop(slots);
        for (waiting, cause) in late {
            waiting.place.end(cause);
        }
    }

    /// No more begin. Ends who has said nothing, or waits in line; the others are given a little time.
    pub(super) fn stop(&self, now_tenths: u32) {
        let mut table = self.table.lock();
        table.stopping = true;
        let Table { on_peer, on_node, .. } = &mut *table;
        let has_no_slot = |_: &u64, waiting: &mut Waiting| waiting.slot.is_none();
        let ended: Vec<_> = on_peer.extract_if(.., has_no_slot).map(|(_, waiting)| waiting).collect();
        for waiting in on_peer.values_mut().chain(on_node.values_mut()) {
            waiting.deadline_tenths = waiting.deadline_tenths.min(now_tenths + STOPPING_TENTHS_MAX);
        }
        drop(table);
        for waiting in ended {
            waiting.place.end(Gone::Stopping);
        }
    }

    pub(super) fn len(&self) -> usize {
        let table = self.table.lock();
        table.on_peer.len() + table.on_node.len()
    }

    pub(super) fn slots_taken(&self) -> usize {
        self.slots_max - self.slots.available_permits()
    }
}

impl Table {
    fn of(&mut self, stage: Stage) -> &mut BTreeMap<u64, Waiting> {
        if stage.waits_for_peer() { &mut self.on_peer } else { &mut self.on_node }
    }
}

impl Waiting {
    fn is_silent_for(&self, tenths: u32, now_tenths: u32) -> bool {
        self.since_tenths + tenths <= now_tenths
    }
}

impl Place {
    fn gone(&self) -> Option<Gone> {
        match self.gone.load(Ordering::Acquire) {
            1 => Some(Gone::TimedOut),
            2 => Some(Gone::GaveWay),
            3 => Some(Gone::Stopping),
            _ => None,
        }
    }

    fn end(&self, cause: Gone) {
        self.gone.store(cause as u8, Ordering::Release);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests;
