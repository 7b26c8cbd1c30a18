//! The one place that reads a clock, and draws what spreads retries.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sotto_model::{Clock, UnixMillis};

/// The machine's clocks; under test also the runtime's, which may be paused.
pub(crate) struct SystemClock {
    started: Instant,
    source: Source,
}

enum Source {
    Machine,
    /// Since `started` it is this time and what the runtime's clock says has passed.
    #[cfg(test)]
    Simulated(UnixMillis, Box<parking_lot::Mutex<rand::rngs::StdRng>>),
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self { started: runtime_now(), source: Source::Machine }
    }

    /// Begins at `unix_now`, and draws the same numbers for the same seed.
    #[cfg(test)]
    pub(crate) fn simulated(unix_now: UnixMillis, seed: u64) -> Self {
        let random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
        Self { started: runtime_now(), source: Source::Simulated(unix_now, Box::new(random.into())) }
    }

    /// Whole tenths of a second since the process started, from 1 on.
    pub(crate) fn tenths(&self) -> u32 {
        let passed = self.now().duration_since(self.started);
        let tenths = passed.as_secs() * 10 + u64::from(passed.subsec_millis() / 100);
        u32::try_from(tenths).unwrap_or(u32::MAX - 1) + 1
    }

    /// Whole seconds since the process started, from 1 on.
    pub(crate) fn seconds(&self) -> u32 {
        u32::try_from(self.now().duration_since(self.started).as_secs()).unwrap_or(u32::MAX - 1) + 1
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        runtime_now()
    }

    #[expect(clippy::disallowed_methods, reason = "the broker's clock is what everyone else is handed")]
    fn unix_now(&self) -> UnixMillis {
        match &self.source {
            Source::Machine => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(since_epoch.as_secs() * 1000 + u64::from(since_epoch.subsec_millis()))
            }
            #[cfg(test)]
            Source::Simulated(began, _) => began.saturating_add(runtime_now().duration_since(self.started)),
        }
    }

    fn draw(&self) -> u64 {
        match &self.source {
            Source::Machine => rand::random(),
            #[cfg(test)]
            Source::Simulated(_, random) => rand::Rng::next_u64(&mut *random.lock()),
        }
    }
}

/// The machine's monotonic clock, but in a test whose runtime has another.
#[expect(clippy::disallowed_methods, reason = "the broker's clock is what everyone else is handed")]
fn runtime_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_with_its_runtime_and_draws_by_its_seed() {
        let clocks = [1, 1, 2].map(|seed| SystemClock::simulated(UnixMillis(1000), seed));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(clocks[0].unix_now(), UnixMillis(101_000));
        assert_eq!(clocks[0].seconds(), 101);
        let [first, same, other] = clocks.map(|clock| clock.draw());
        assert_eq!(first, same);
        assert_ne!(first, other);
    }
}
