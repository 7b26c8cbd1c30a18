//! How far the run has come: counted by the threads that do the work, read by the one that watches.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Only sums matter, and only roughly in time: relaxed everywhere.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One thread's; aligned so that no two threads write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) connected: Counter,
    pub(crate) connect_failed: Counter,
    /// Sessions that have ended, in order or not.
    pub(crate) ended: Counter,
    pub(crate) sent: Counter,
    /// Messages that count as sent: at QoS 0 written, else acknowledged.
    pub(crate) accepted: Counter,
    /// Acknowledged with an error.
    pub(crate) refused: Counter,
    /// Deliveries that the accepted messages should become.
    pub(crate) expected: Counter,
    /// Deliveries, each once.
    pub(crate) delivered: Counter,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) connected: u64,
    pub(crate) connect_failed: u64,
    pub(crate) ended: u64,
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
}

impl Totals {
    pub(crate) fn of<'a>(threads: impl IntoIterator<Item = &'a Counters>) -> Self {
        threads.into_iter().fold(Self::default(), |sum, thread| Self {
            connected: sum.connected + thread.connected.load(),
            connect_failed: sum.connect_failed + thread.connect_failed.load(),
            ended: sum.ended + thread.ended.load(),
            sent: sum.sent + thread.sent.load(),
            accepted: sum.accepted + thread.accepted.load(),
            refused: sum.refused + thread.refused.load(),
            expected: sum.expected + thread.expected.load(),
            delivered: sum.delivered + thread.delivered.load(),
        })
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connected: self.connected + other.connected,
            connect_failed: self.connect_failed + other.connect_failed,
            ended: self.ended + other.ended,
            sent: self.sent + other.sent,
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            expected: self.expected + other.expected,
            delivered: self.delivered + other.delivered,
        }
    }

    pub(crate) fn live(self) -> u64 {
        self.connected.saturating_sub(self.ended)
    }

    /// Nothing is under way any more.
    pub(crate) fn is_settled(self) -> bool {
        self.sent <= self.accepted + self.refused && self.expected <= self.delivered
    }
}
