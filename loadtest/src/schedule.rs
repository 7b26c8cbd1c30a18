//! When things are due, decided before the run: an open loop.

use serde::{Deserialize, Serialize};

use crate::run_clock::Micros;

/// Things numbered from 0, one every `1/rate` seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Schedule {
    per_second: f64,
}

impl Schedule {
    /// A rate of 0 has everything due at once.
    pub(crate) fn new(per_second: f64) -> Self {
        Self { per_second }
    }

    /// When thing `k` is due, as time after the first.
    pub(crate) fn due(self, k: u64) -> Micros {
        if self.per_second == 0.0 {
            return Micros(0);
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "53 bits number every message of a run, and a run is far shorter than 2^53 microseconds"
        )]
        let due = (k as f64 * 1e6 / self.per_second) as u64;
        Micros(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_keeps_its_rate_without_drift() {
        let schedule = Schedule::new(3.0);
        assert_eq!(schedule.due(0), Micros(0));
        assert_eq!(schedule.due(1), Micros(333_333));
        assert_eq!(schedule.due(3_000_000), Micros(1_000_000_000_000));
    }

    #[test]
    fn everything_is_due_at_once_at_rate_zero() {
        assert_eq!(Schedule::new(0.0).due(u64::MAX), Micros(0));
    }
}
