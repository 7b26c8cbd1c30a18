//! A clock that moves when told, for unit tests and those in `tests` alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sotto_model::{Clock, UnixMillis};

/// Moves when told.
pub(crate) struct ManualClock {
    origin: Instant,
    advanced_ms: AtomicU64,
}

/// Sun, 06 Nov 1994 08:49:37 GMT
const START: UnixMillis = UnixMillis(784_111_777_000);

impl ManualClock {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed")]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), advanced_ms: AtomicU64::new(0) })
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).expect("a test's time");
        self.advanced_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    fn advanced(&self) -> Duration {
        Duration::from_millis(self.advanced_ms.load(Ordering::SeqCst))
    }
}

impl Clock for ManualClock {
    fn draw(&self) -> u64 {
        u64::MAX / 2
    }

    fn now(&self) -> Instant {
        self.origin + self.advanced()
    }

    fn unix_now(&self) -> UnixMillis {
        START.saturating_add(self.advanced())
    }
}
