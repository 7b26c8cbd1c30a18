//! What one thread has seen in one second of the run: latencies of that second alone.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::latencies::Latencies;
use crate::latency_counts::LatencyCounts;
use crate::limits::INTERVALS_UNREAD_MAX;
use crate::run_clock::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From when a connection was due to its last step.
    Connect,
    /// From when a message was due to its PUBACK or PUBCOMP.
    Acknowledged,
    /// From when a message was due to its delivery.
    Delivered,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// Of the run's clock.
    pub(crate) second: u64,
    /// By [`Kind`].
    pub(crate) latencies: [LatencyCounts; 3],
}

/// Seconds that are over and nobody has read. The thread that works locks it once a second, the one that
/// records the run as often.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntervalQueue(Arc<Mutex<Vec<Interval>>>);

impl IntervalQueue {
    pub(crate) fn take(&self) -> Vec<Interval> {
        std::mem::take(&mut self.0.lock())
    }

    pub(crate) fn push(&self, interval: Interval) {
        let mut unread = self.0.lock();
        let is_full = unread.len() >= INTERVALS_UNREAD_MAX;
        match unread.last_mut() {
            Some(last) if is_full => last.add(&interval),
            _ => unread.push(interval),
        }
    }
}

impl Interval {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(theirs);
        }
    }
}

/// One thread's.
#[derive(Debug)]
pub(crate) struct IntervalRecorder {
    current: RefCell<Current>,
    closed: IntervalQueue,
}

#[derive(Debug)]
struct Current {
    second: u64,
    latencies: [Latencies; 3],
}

impl IntervalRecorder {
    pub(crate) fn new(closed: IntervalQueue) -> Self {
        let latencies = std::array::from_fn(|_| Latencies::new());
        Self { current: RefCell::new(Current { second: 0, latencies }), closed }
    }

    pub(crate) fn record(&self, kind: Kind, intended: Micros, done: Micros) {
        self.close_before(done);
        self.current.borrow_mut().latencies[kind as usize].record(intended, done);
    }

    /// Hands over what was seen until the second that `now` is in.
    pub(crate) fn close_before(&self, now: Micros) {
        let mut current = self.current.borrow_mut();
        if now.second() > current.second {
            current.close(&self.closed);
            current.second = now.second();
        }
    }

    /// Hands over what has been seen so far.
    pub(crate) fn close(&self) {
        self.current.borrow_mut().close(&self.closed);
    }
}

impl Current {
    fn close(&mut self, closed: &IntervalQueue) {
        if self.latencies.iter().all(Latencies::is_empty) {
            return;
        }
        let latencies = self.latencies.each_ref().map(Latencies::counts);
        closed.push(Interval { second: self.second, latencies });
        self.latencies.iter_mut().for_each(Latencies::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, micros: u64) -> Micros {
        Micros(seconds * 1_000_000 + micros)
    }

    #[test]
    fn a_latency_belongs_to_the_second_in_which_it_ended() {
        let queue = IntervalQueue::default();
        let recorder = IntervalRecorder::new(queue.clone());
        recorder.record(Kind::Delivered, at(2, 999_900), at(3, 0));
        recorder.record(Kind::Delivered, at(3, 0), at(3, 50));
        recorder.record(Kind::Connect, at(3, 0), at(5, 0));
        assert_eq!(queue.take().iter().map(|interval| interval.second).collect::<Vec<_>>(), [3]);
        recorder.close();
        let last = queue.take();
        assert_eq!(last[0].second, 5);
        assert_eq!(last[0].latencies[Kind::Connect as usize].total(), 1);
        assert_eq!(last[0].latencies[Kind::Delivered as usize].total(), 0);
        recorder.close();
        assert_eq!(queue.take(), [], "what was handed over is not handed over again");
    }

    #[test]
    fn what_nobody_reads_is_kept_together_in_the_last_second() {
        let queue = IntervalQueue::default();
        let recorder = IntervalRecorder::new(queue.clone());
        let seconds = INTERVALS_UNREAD_MAX as u64 + 5;
        (0..seconds).for_each(|second| recorder.record(Kind::Connect, at(second, 0), at(second, 7)));
        recorder.close();
        let unread = queue.take();
        assert_eq!(unread.len(), INTERVALS_UNREAD_MAX);
        let connects = unread.iter().map(|interval| interval.latencies[0].total()).sum::<u64>();
        assert_eq!(connects, seconds);
    }
}
