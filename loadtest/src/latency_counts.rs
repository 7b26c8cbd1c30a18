//! A histogram as the list of its values: how often each was seen. Small enough to be kept for every second
//! of a run and to be sent between processes, and added up without loss.

use serde::{Deserialize, Serialize};

/// Ascending: microseconds, how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LatencyCounts(Vec<(u64, u64)>);

impl LatencyCounts {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Eight significant bits, rounded up: at most 0.8 % more than they were.
    pub(crate) fn coarse(&self) -> Self {
        self.iter().map(|(micros, count)| (round_up(micros), count)).collect()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(&other.0);
        *self = all.into_iter().collect();
    }

    /// Zero without any.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "far fewer than 2^53, and not negative"
        )]
        let wanted = ((self.total() as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map_or_else(|| self.max(), |(micros, _)| micros)
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.last().map_or(0, |(micros, _)| *micros)
    }
}

/// In any order, the same value any number of times.
impl FromIterator<(u64, u64)> for LatencyCounts {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(counts: I) -> Self {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(micros, _)| *micros);
        counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        Self(counts)
    }
}

fn round_up(micros: u64) -> u64 {
    let spare_bits = (u64::BITS - micros.leading_zeros()).saturating_sub(8);
    micros | ((1 << spare_bits) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let counts: LatencyCounts = (1..=100).rev().map(|micros| (micros, 1)).collect();
        assert_eq!([50.0, 99.0, 99.9, 100.0].map(|percent| counts.percentile(percent)), [50, 99, 100, 100]);
        assert_eq!(LatencyCounts::default().percentile(99.0), 0);
    }

    #[test]
    fn small_values_stay_as_they_are() {
        let counts: LatencyCounts = [(1, 2), (255, 3), (256, 4)].into_iter().collect();
        assert_eq!(counts.coarse(), [(1, 2), (255, 3), (257, 4)].into_iter().collect());
    }

    proptest! {
        #[test]
        fn rounding_adds_less_than_one_percent(micros: u64) {
            let rounded = round_up(micros);
            prop_assert!(rounded >= micros);
            prop_assert!(rounded - micros <= micros / 128);
        }

        #[test]
        fn adding_is_the_same_as_counting_together(
            a in prop::collection::vec((0..50_u64, 1..9_u64), 0..40),
            b in prop::collection::vec((0..50_u64, 1..9_u64), 0..40),
        ) {
            let together: LatencyCounts = a.iter().chain(&b).copied().collect();
            let mut added: LatencyCounts = a.into_iter().collect();
            added.add(&b.into_iter().collect());
            prop_assert_eq!(added.total(), together.total());
            prop_assert_eq!(added, together);
        }
    }
}
