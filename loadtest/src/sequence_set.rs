//! Sequence numbers seen, as ranges: a stream without gaps is one range, whatever its length.

use serde::{Deserialize, Serialize};

use crate::limits::SEQUENCE_RANGES_MAX;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SequenceSet {
    /// Sorted; neither overlapping nor touching.
    ranges: Vec<Range>,
    len: u64,
}

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Range {
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Higher than any before.
    InOrder,
    /// New, though a higher one has been before it.
    Late,
    Again,
}

impl SequenceSet {
    pub(crate) fn insert(&mut self, sequence: u32) -> Seen {
        let seen = self.place(sequence);
        if self.ranges.len() > SEQUENCE_RANGES_MAX {
            // The oldest gap is given up: it stays out of `len`, so what is in it counts as lost. Should it
            // come after all, it counts as come again.
            let second = self.ranges.remove(1);
            self.ranges[0].last = second.last;
        }
        seen
    }

    fn place(&mut self, sequence: u32) -> Seen {
        let in_order = match self.ranges.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(sequence) => {
                last.last = sequence;
                self.len += 1;
                return Seen::InOrder;
            }
            Some(last) => sequence > last.last,
            None => true,
        };
        // The first range that ends at or behind the sequence.
        let at = self.ranges.partition_point(|range| range.last < sequence);
        if self.ranges.get(at).is_some_and(|range| range.first <= sequence) {
            return Seen::Again;
        }
        self.len += 1;
        let touches_left = at > 0 && self.ranges[at - 1].last + 1 == sequence;
        let touches_right = self.ranges.get(at).is_some_and(|range| range.first == sequence + 1);
        match (touches_left, touches_right) {
            (true, true) => {
                self.ranges[at - 1].last = self.ranges[at].last;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].last = sequence,
            (false, true) => self.ranges[at].first = sequence,
            (false, false) => self.ranges.insert(at, Range { first: sequence, last: sequence }),
        }
        if in_order { Seen::InOrder } else { Seen::Late }
    }

    pub(crate) fn contains(&self, sequence: u32) -> bool {
        let at = self.ranges.partition_point(|range| range.last < sequence);
        self.ranges.get(at).is_some_and(|range| range.first <= sequence)
    }

    /// First and last of each, ascending.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        self.ranges.iter().map(|range| (range.first, range.last))
    }

    /// How many were inserted, each counted once.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many of `self` are missing from `other`.
    pub(crate) fn missing_from(&self, other: &Self) -> u64 {
        let mut common = 0;
        let (mut mine, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            if first <= last {
                common += u64::from(last - first) + 1;
            }
            if a.last < b.last {
                mine.next();
            } else {
                theirs.next();
            }
        }
        // Gaps that a full set has given up lie inside its ranges.
        let given_up = other.span() - other.len;
        self.len.saturating_sub(common.saturating_sub(given_up))
    }

    fn span(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.last - range.first) + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(sequences: impl IntoIterator<Item = u32>) -> SequenceSet {
        let mut set = SequenceSet::default();
        for sequence in sequences {
            set.insert(sequence);
        }
        set
    }

    #[test]
    fn a_stream_in_order_is_one_range() {
        let set = set(0..100_000);
        assert_eq!(set.ranges, [Range { first: 0, last: 99_999 }]);
        assert_eq!(set.len(), 100_000);
    }

    #[test]
    fn the_last_sequence_of_all_is_counted() {
        let mut set = set([u32::MAX - 1, u32::MAX]);
        assert_eq!(set.insert(u32::MAX), Seen::Again);
        assert_eq!(set.insert(0), Seen::Late);
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn a_set_with_too_many_gaps_forgets_the_oldest_and_counts_it_as_lost() {
        let gaps = u32::try_from(SEQUENCE_RANGES_MAX).expect("a small number") + 10;
        let sent = set(0..gaps * 2);
        let received = set((0..gaps).map(|k| k * 2));
        assert_eq!(received.ranges.len(), SEQUENCE_RANGES_MAX);
        assert_eq!(received.len(), u64::from(gaps));
        assert_eq!(sent.missing_from(&received), u64::from(gaps));
    }

    proptest! {
        #[test]
        fn loss_duplicates_and_lateness_agree_with_a_plain_set(
            arrivals in prop::collection::vec(0..200_u32, 0..400),
            sent in prop::collection::btree_set(0..200_u32, 0..200),
        ) {
            let mut received = SequenceSet::default();
            let mut model = BTreeSet::new();
            for sequence in arrivals {
                let expected = if model.contains(&sequence) {
                    Seen::Again
                } else if model.last().is_some_and(|highest| *highest > sequence) {
                    Seen::Late
                } else {
                    Seen::InOrder
                };
                prop_assert_eq!(received.insert(sequence), expected);
                model.insert(sequence);
            }
            prop_assert_eq!(received.len(), model.len() as u64);
            prop_assert!(received.ranges.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            let lost = sent.difference(&model).count() as u64;
            prop_assert_eq!(set(sent).missing_from(&received), lost);
        }
    }
}
