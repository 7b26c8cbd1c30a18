//! The one place that reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sotto_model::{Clock, UnixMillis};

/// The machine's clocks.
pub(crate) struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the broker's clock is what everyone else is handed")]
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Whole tenths of a second since the process started, from 1 on.
    pub(crate) fn tenths(&self) -> u32 {
        let millis = self.now().duration_since(self.started).as_millis();
        u32::try_from(millis / 100).unwrap_or(u32::MAX - 1) + 1
    }

    /// Whole seconds since the process started, from 1 on.
    pub(crate) fn seconds(&self) -> u32 {
        u32::try_from(self.now().duration_since(self.started).as_secs()).unwrap_or(u32::MAX - 1) + 1
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the broker's clock is what everyone else is handed")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the broker's clock is what everyone else is handed")]
    fn unix_now(&self) -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}
