//! A clock that stands where it is put.

use std::sync::Arc;
use std::time::Instant;

use sotto_model::{Clock, UnixMillis};

pub(crate) struct FixedClock(Instant);

impl FixedClock {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; it does not move")]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for FixedClock {
    fn draw(&self) -> u64 {
        u64::MAX / 2
    }

    fn now(&self) -> Instant {
        self.0
    }

    fn unix_now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}
