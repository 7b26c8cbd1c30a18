//! What one thread's publishers and subscribers have seen.

use crate::latencies::Latencies;
use crate::ledger::{Published, Received};

#[derive(Debug)]
pub(crate) struct MessageTally {
    /// From when a message was due to when it was encoded: the load tester's own lateness, and the time
    /// that a full window or a full socket held it up.
    pub(crate) held_up: Latencies,
    /// From when a message was due to its PUBACK or PUBCOMP.
    pub(crate) acknowledged: Latencies,
    /// From when a message was due to each first delivery of it.
    pub(crate) delivered: Latencies,
    pub(crate) published: Vec<Published>,
    pub(crate) received: Vec<Received>,
}

impl MessageTally {
    pub(crate) fn new() -> Self {
        Self {
            held_up: Latencies::new(),
            acknowledged: Latencies::new(),
            delivered: Latencies::new(),
            published: Vec::new(),
            received: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.held_up.add(&other.held_up);
        self.acknowledged.add(&other.acknowledged);
        self.delivered.add(&other.delivered);
        self.published.extend(other.published);
        self.received.extend(other.received);
    }
}
