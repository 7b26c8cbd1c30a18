//! What a run was asked to achieve.

use std::fmt;

use serde::Serialize;

use crate::latencies::LatencySummary;
use crate::objective_args::ObjectiveArgs;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Objective {
    pub(crate) name: &'static str,
    /// What it was measured of.
    pub(crate) of: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) limit: f64,
    /// `None`: there was nothing to measure, so it is missed.
    pub(crate) measured: Option<f64>,
    pub(crate) met: bool,
}

/// What an objective can be held against; each says of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) latency_of: &'static str,
    pub(crate) latency: LatencySummary,
    pub(crate) lost_of: &'static str,
    pub(crate) lost: u64,
    pub(crate) rate_of: &'static str,
    pub(crate) per_second: f64,
    /// `None` where nothing is delivered.
    pub(crate) duplicates: Option<u64>,
    /// `None` without a look at the broker.
    pub(crate) bytes_per_connection: Option<f64>,
}

/// The limits that were given, of those that a run can be held to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    p99_ms_max: Option<f64>,
    p999_ms_max: Option<f64>,
    loss_max: Option<u64>,
    duplicates_max: Option<u64>,
    rate_min: Option<f64>,
    bytes_per_connection_max: Option<f64>,
}

impl Limits {
    pub(crate) fn of(args: &ObjectiveArgs) -> Self {
        Self {
            p99_ms_max: args.max_p99,
            p999_ms_max: args.max_p999,
            loss_max: args.max_loss,
            duplicates_max: args.max_duplicates,
            rate_min: args.min_rate,
            bytes_per_connection_max: args.max_memory_per_connection,
        }
    }

    /// A latency of nothing at all meets no limit.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    pub(crate) fn judge(self, measured: Measured) -> Vec<Objective> {
        let at_most = |name, of, unit, limit: Option<f64>, measured: Option<f64>| {
            let met = limit.zip(measured).is_some_and(|(limit, measured)| measured <= limit);
            limit.map(|limit| Objective { name, of, unit, limit, measured, met })
        };
        let count = |count: Option<u64>| count.map(|count| count as f64);
        let Measured { latency_of, latency, lost_of, lost, rate_of, per_second, .. } = measured;
        let ms = |micros: u64| (latency.count > 0).then(|| micros as f64 / 1000.0);
        let rate = self.rate_min.map(|limit| Objective {
            name: "min_rate",
            of: rate_of,
            unit: "/s",
            limit,
            measured: Some(per_second),
            met: per_second >= limit,
        });
        [
            at_most("max_p99_ms", latency_of, " ms", self.p99_ms_max, ms(latency.p99_us)),
            at_most("max_p999_ms", latency_of, " ms", self.p999_ms_max, ms(latency.p999_us)),
            at_most("max_loss", lost_of, "", count(self.loss_max), Some(lost as f64)),
            at_most(
                "max_duplicates",
                "deliveries repeated",
                "",
                count(self.duplicates_max),
                count(measured.duplicates),
            ),
            rate,
            at_most(
                "max_memory_per_connection",
                "the broker's memory",
                " bytes",
                self.bytes_per_connection_max,
                measured.bytes_per_connection,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What was measured, of what, and the limit.
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, unit, limit, .. } = self;
        match self.measured {
            Some(measured) if measured.fract() == 0.0 => {
                write!(f, "{of} {measured}{unit}, limit {limit}{unit}")
            }
            Some(measured) => write!(f, "{of} {measured:.2}{unit}, limit {limit}{unit}"),
            None => write!(f, "{of} was not measured, limit {limit}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(p99_us: u64, lost: u64, per_second: f64) -> Measured {
        Measured {
            latency_of: "delivery",
            latency: LatencySummary { count: 1, p99_us, p999_us: p99_us * 2, ..LatencySummary::default() },
            lost_of: "deliveries lost",
            lost,
            rate_of: "deliveries",
            per_second,
            duplicates: Some(lost),
            bytes_per_connection: Some(4500.0),
        }
    }

    #[test]
    fn each_objective_is_met_up_to_and_including_its_limit() {
        let limits = Limits {
            p99_ms_max: Some(10.0),
            p999_ms_max: Some(20.0),
            loss_max: Some(0),
            duplicates_max: Some(0),
            rate_min: Some(100.0),
            bytes_per_connection_max: Some(4500.0),
        };
        let judged = limits.judge(measured(10_000, 0, 100.0));
        assert_eq!(judged.len(), 6);
        assert!(judged.iter().all(|objective| objective.met), "{judged:?}");
        let limits = Limits { bytes_per_connection_max: Some(4499.9), ..limits };
        let judged = limits.judge(measured(10_001, 1, 99.9));
        assert!(judged.iter().all(|objective| !objective.met), "{judged:?}");
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let limits = Limits {
            p99_ms_max: Some(10.0),
            duplicates_max: Some(9),
            bytes_per_connection_max: Some(1e9),
            ..Limits::default()
        };
        let nothing = Measured {
            latency: LatencySummary::default(),
            duplicates: None,
            bytes_per_connection: None,
            ..measured(1, 0, 0.0)
        };
        let judged = limits.judge(nothing);
        assert_eq!(judged.len(), 3);
        assert!(judged.iter().all(|objective| !objective.met && objective.measured.is_none()));
        assert_eq!(judged[0].to_string(), "delivery was not measured, limit 10 ms");
    }

    #[test]
    fn without_limits_there_is_nothing_to_miss() {
        assert_eq!(Limits::default().judge(measured(1, 9, 0.0)), []);
    }

    #[test]
    fn an_objective_says_what_it_is_about() {
        let limits = Limits { p99_ms_max: Some(10.0), loss_max: Some(3), ..Limits::default() };
        let judged = limits.judge(measured(1234, 5, 1.0));
        let said: Vec<_> = judged.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["delivery 1.23 ms, limit 10 ms", "deliveries lost 5, limit 3"]);
    }
}
