//! What one thread's publishers and subscribers have seen.

use serde::{Deserialize, Serialize};

use crate::latencies::Latencies;
use crate::ledger::{Published, Received};
use crate::run_clock::Micros;
use crate::shared_sequences::SharedTally;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MessageTally {
    /// From when a message was due to when it was encoded: the load tester's own lateness, and the time
    /// that a full window or a full socket held it up.
    pub(crate) held_up: Latencies,
    /// From when a message was due to its PUBACK or PUBCOMP.
    pub(crate) acknowledged: Latencies,
    /// From when a message was due to each first delivery of it.
    pub(crate) delivered: Latencies,
    pub(crate) last_delivery: Micros,
    pub(crate) published: Vec<Published>,
    pub(crate) received: Vec<Received>,
    /// By the members of shared subscriptions.
    pub(crate) shared: SharedTally,
}

impl MessageTally {
    pub(crate) fn new() -> Self {
        Self {
            held_up: Latencies::new(),
            acknowledged: Latencies::new(),
            delivered: Latencies::new(),
            last_delivery: Micros::default(),
            published: Vec::new(),
            received: Vec::new(),
            shared: SharedTally::default(),
        }
    }

    /// Of all threads.
    pub(crate) fn sum(threads: impl IntoIterator<Item = Self>) -> Self {
        threads.into_iter().fold(Self::new(), |mut sum, thread| {
            sum.add(thread);
            sum
        })
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.received.iter().map(|subscriber| subscriber.duplicates).sum::<u64>() + self.shared.again()
    }

    pub(crate) fn reordered(&self) -> u64 {
        self.received.iter().map(|subscriber| subscriber.reordered).sum()
    }

    pub(crate) fn foreign(&self) -> u64 {
        self.received.iter().map(|subscriber| subscriber.foreign).sum()
    }

    fn add(&mut self, other: Self) {
        self.held_up.add(&other.held_up);
        self.acknowledged.add(&other.acknowledged);
        self.delivered.add(&other.delivered);
        self.last_delivery = self.last_delivery.max(other.last_delivery);
        self.published.extend(other.published);
        self.received.extend(other.received);
        self.shared.join(other.shared);
    }
}
