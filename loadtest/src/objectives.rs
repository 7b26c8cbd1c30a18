//! What a run was asked to achieve.

use serde::Serialize;

use crate::args::CommonArgs;
use crate::latencies::LatencySummary;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Objective {
    pub(crate) name: &'static str,
    pub(crate) limit: f64,
    pub(crate) measured: f64,
    pub(crate) met: bool,
}

/// The limits that were given, of those that a run can be held to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    p99_ms_max: Option<f64>,
    loss_max: Option<u64>,
    rate_min: Option<f64>,
}

impl Limits {
    pub(crate) fn of(args: &CommonArgs) -> Self {
        Self { p99_ms_max: args.max_p99, loss_max: args.max_loss, rate_min: args.min_rate }
    }

    /// A latency of nothing at all meets no limit.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    pub(crate) fn judge(self, latency: LatencySummary, lost: u64, per_second: f64) -> Vec<Objective> {
        let p99_ms = if latency.count == 0 { f64::INFINITY } else { latency.p99_us as f64 / 1000.0 };
        let at_most = |name, limit: Option<f64>, measured: f64| {
            limit.map(|limit| Objective { name, limit, measured, met: measured <= limit })
        };
        let rate = self.rate_min.map(|limit| Objective {
            name: "min_rate",
            limit,
            measured: per_second,
            met: per_second >= limit,
        });
        [
            at_most("max_p99_ms", self.p99_ms_max, p99_ms),
            at_most("max_loss", self.loss_max.map(|loss| loss as f64), lost as f64),
            rate,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(p99_us: u64) -> LatencySummary {
        LatencySummary { count: 1, p99_us, ..LatencySummary::default() }
    }

    #[test]
    fn each_objective_is_met_up_to_and_including_its_limit() {
        let limits = Limits { p99_ms_max: Some(10.0), loss_max: Some(0), rate_min: Some(100.0) };
        assert!(limits.judge(latency(10_000), 0, 100.0).iter().all(|objective| objective.met));
        assert!(limits.judge(latency(10_001), 1, 99.9).iter().all(|objective| !objective.met));
    }

    #[test]
    fn a_run_in_which_nothing_arrived_misses_its_latency() {
        let limits = Limits { p99_ms_max: Some(10.0), ..Limits::default() };
        assert!(!limits.judge(LatencySummary::default(), 0, 0.0)[0].met);
    }

    #[test]
    fn without_limits_there_is_nothing_to_miss() {
        assert_eq!(Limits::default().judge(latency(1), 9, 0.0), []);
    }
}
