//! Time and chance as arguments: only the binary's crate reads a clock or draws a number.

use std::time::{Duration, Instant};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where the running program takes its time from, and what spreads its retries.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Instant;
    fn unix_now(&self) -> UnixMillis;
    /// One uniform draw, for [`Backoff::delay`](crate::Backoff::delay).
    fn draw(&self) -> u64;
}
