//! The real time, for emulators beside a real broker.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sotto_model::{Clock, UnixMillis};

pub struct WallClock;

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
impl Clock for WallClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_now(&self) -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
        UnixMillis(u64::try_from(since_epoch.as_millis()).expect("it is not that much later"))
    }

    /// Nothing here is spread.
    fn draw(&self) -> u64 {
        u64::MAX / 2
    }
}
