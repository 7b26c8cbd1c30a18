//! Durations of one kind, kept as a histogram: microseconds, three significant digits, so that a percentile is
//! at most 0.1 % off; the longest is as exact.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::latency_counts::LatencyCounts;
use crate::limits::LATENCY_MAX;
use crate::run_clock::Micros;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "LatencyCounts", into = "LatencyCounts")]
pub(crate) struct Latencies(Histogram<u64>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let highest = u64::try_from(LATENCY_MAX.as_micros()).expect("an hour fits");
        Self(Histogram::new_with_bounds(1, highest, 3).expect("the bounds are constant and valid"))
    }

    /// Counts the time from when something was due, not from when it was begun: had the load tester waited
    /// for a slow broker before it began, that wait is the broker's.
    pub(crate) fn record(&mut self, intended: Micros, done: Micros) {
        self.record_duration(done.since(intended));
    }

    pub(crate) fn record_duration(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn add_counts(&mut self, counts: &LatencyCounts) {
        for (micros, count) in counts.iter() {
            self.0.saturating_record_n(micros, count);
        }
    }

    /// Exact: added to an empty histogram they make the same one.
    pub(crate) fn counts(&self) -> LatencyCounts {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of all that were counted, as exact as each is.
    #[expect(clippy::cast_precision_loss, reason = "it is displayed")]
    pub(crate) fn sum_us(&self) -> f64 {
        self.0.mean() * self.0.len() as f64
    }

    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.0.len(),
            p50_us: self.0.value_at_quantile(0.5),
            p90_us: self.0.value_at_quantile(0.9),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
        }
    }
}

impl From<LatencyCounts> for Latencies {
    fn from(counts: LatencyCounts) -> Self {
        let mut latencies = Self::new();
        latencies.add_counts(&counts);
        latencies
    }
}

impl From<Latencies> for LatencyCounts {
    fn from(latencies: Latencies) -> Self {
        latencies.counts()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stall_counts_for_everything_that_was_due_during_it() {
        // One message a millisecond; the broker answers at once but for one stall of a second, after which
        // everything held up goes out together. Measured from the sending, one in 1000 would be slow.
        let mut latencies = Latencies::new();
        for k in 0..2000_u64 {
            let due = Micros(k * 1000);
            let done = if (500..1500).contains(&k) { Micros(1_500_000) } else { due };
            latencies.record(due, done);
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 2000);
        assert!(summary.p50_us < 2_000, "{summary:?}");
        assert!((795_000..=805_000).contains(&summary.p90_us), "{summary:?}");
        assert!((975_000..=985_000).contains(&summary.p99_us), "{summary:?}");
    }

    #[test]
    fn what_is_longer_than_the_scale_counts_as_its_end() {
        let mut latencies = Latencies::new();
        latencies.record_duration(Duration::from_hours(100));
        assert_eq!(latencies.summary().count, 1);
        assert!(latencies.summary().max_us >= 3_600_000_000);
    }

    proptest! {
        #[test]
        fn histograms_sent_in_parts_make_the_one_of_a_single_run(
            durations in prop::collection::vec(0..u64::MAX / 2, 0..300),
            parts in 1..5_usize,
        ) {
            let mut single = Latencies::new();
            let mut shares = vec![Latencies::new(); parts];
            for (k, micros) in durations.iter().enumerate() {
                single.record_duration(Duration::from_micros(*micros % 5_000_000_000));
                shares[k % parts].record_duration(Duration::from_micros(*micros % 5_000_000_000));
            }
            let mut merged = Latencies::new();
            for share in &shares {
                let sent = serde_json::to_string(&share.counts()).expect("numbers");
                merged.add_counts(&serde_json::from_str(&sent).expect("as written"));
            }
            prop_assert_eq!(merged.summary(), single.summary());
            prop_assert_eq!(merged.counts(), single.counts());
        }
    }

    #[test]
    fn histograms_of_two_threads_add_up() {
        let (mut a, mut b) = (Latencies::new(), Latencies::new());
        a.record(Micros(0), Micros(10));
        b.record(Micros(0), Micros(30));
        a.add(&b);
        assert_eq!(a.summary().count, 2);
        assert_eq!(a.summary().max_us, 30);
    }
}
