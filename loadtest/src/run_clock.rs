//! The run's clock.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Microseconds since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    /// Zero where `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The second it is in, counted from 0.
    pub(crate) fn second(self) -> u64 {
        self.0 / 1_000_000
    }

    #[must_use]
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0 + micros(duration))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    zero: Instant,
}

impl RunClock {
    pub(crate) fn start() -> Self {
        Self { zero: Instant::now() }
    }

    /// Of a run that began then.
    pub(crate) fn of(zero: Instant) -> Self {
        Self { zero }
    }

    pub(crate) fn now(self) -> Micros {
        Micros(micros(self.zero.elapsed()))
    }

    pub(crate) fn instant(self, at: Micros) -> Instant {
        self.zero + Duration::from_micros(at.0)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("a run is shorter than 584,000 years")
}
