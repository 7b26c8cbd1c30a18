//! What the members of shared subscriptions have received together.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sequence_bits::SequenceBits;
use crate::sequence_set::SequenceSet;

/// Of one process: one set for each publisher of the run, locked by whichever member receives a message of it.
#[derive(Debug)]
pub(crate) struct SharedSequences(Box<[Mutex<SequenceBits>]>);

/// Of any number of processes: those that have received anything, by publisher.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SharedTally {
    sets: BTreeMap<u32, SequenceBits>,
    /// Received in more than one of the parts that were joined.
    again: u64,
}

impl SharedSequences {
    pub(crate) fn new(publishers: u32) -> Self {
        Self((0..publishers).map(|_| Mutex::default()).collect())
    }

    /// Whether it was not received here before.
    pub(crate) fn insert(&self, publisher: u32, sequence: u32) -> bool {
        lock(&self.0[publisher as usize]).insert(sequence)
    }

    /// What has been received since it was last taken: members of other threads may receive more.
    pub(crate) fn take(&self) -> SharedTally {
        let taken = (0..).zip(&self.0).map(|(publisher, set)| (publisher, std::mem::take(&mut *lock(set))));
        SharedTally { sets: taken.filter(|(_, set)| !set.is_empty()).collect(), again: 0 }
    }
}

fn lock(set: &Mutex<SequenceBits>) -> MutexGuard<'_, SequenceBits> {
    // A set is never left half changed.
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedTally {
    pub(crate) fn join(&mut self, other: Self) {
        self.again += other.again;
        for (publisher, set) in other.sets {
            self.again += self.sets.entry(publisher).or_default().join(&set);
        }
    }

    /// Received in more than one part: each part has counted them as new.
    pub(crate) fn again(&self) -> u64 {
        self.again
    }

    /// How many of a publisher's messages that count as sent nobody has received.
    pub(crate) fn lost(&self, publisher: u32, accepted: &SequenceSet) -> u64 {
        self.sets.get(&publisher).map_or(accepted.len(), |set| set.missing(accepted))
    }
}
