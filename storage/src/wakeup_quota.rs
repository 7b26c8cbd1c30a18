//! How many wakeups of one tenant become due, and when.
//!
//! The n-th wakeup is booked a fixed time after the one before it, and becomes due a burst earlier than booked, or
//! at once (GCRA). What is over the quota so becomes due later: it is not lost, stands in no other tenant's way, and
//! messages that come until then find it outstanding. Urgent wakeups are booked among themselves, and move the
//! others back: those never hold an urgent one up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of each tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeupQuota {
    /// 0: no limit.
    pub per_second: u32,
    /// So many may become due at one moment; at least 1.
    pub burst: u32,
}

/// Bookings begin no further ahead than this, so that a clock that was set back, or a quota that was too small, is
/// got over.
pub const BOOKED_AHEAD_MAX: Duration = Duration::from_hours(24);

const MICROS_PER_SECOND: u64 = 1_000_000;

/// A tenant's bookings: where the next ones begin, microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    pub urgent_next_us: u64,
    pub next_us: u64,
}

impl WakeupQuota {
    /// Between two wakeups; `None` without a limit.
    pub fn interval_us(self) -> Option<u64> {
        (self.per_second > 0).then(|| MICROS_PER_SECOND.div_ceil(u64::from(self.per_second)))
    }

    /// How much earlier than booked a wakeup may become due.
    pub fn tolerance_us(self) -> u64 {
        self.interval_us().unwrap_or_default() * u64::from(self.burst.max(1) - 1)
    }
}

impl Booked {
    /// Takes places for so many wakeups, an `interval_us` each. Returns where those of the urgent ones begin and
    /// where those of the others.
    pub fn take(&mut self, urgent: u64, others: u64, interval_us: u64, now_us: u64) -> (u64, u64) {
        let latest_us = now_us.saturating_add(micros(BOOKED_AHEAD_MAX));
        let urgent_from = self.urgent_next_us.clamp(now_us, latest_us);
        let others_from =
            self.next_us.clamp(now_us, latest_us).saturating_add(urgent.saturating_mul(interval_us));
        self.urgent_next_us = urgent_from.saturating_add(urgent.saturating_mul(interval_us));
        self.next_us = others_from.saturating_add(others.saturating_mul(interval_us));
        (urgent_from, others_from)
    }
}

/// A quota that is set while it is used.
#[derive(Debug, Default)]
pub struct SharedWakeupQuota {
    /// Wakeups per second in the upper half, burst in the lower.
    packed: AtomicU64,
}

impl SharedWakeupQuota {
    pub fn set(&self, quota: WakeupQuota) {
        self.packed.store(u64::from(quota.per_second) << 32 | u64::from(quota.burst), Ordering::Relaxed);
    }

    pub fn quota(&self) -> WakeupQuota {
        let packed = self.packed.load(Ordering::Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
        WakeupQuota { per_second: half(packed >> 32), burst: half(packed) }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("a bound of hours")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_800_000_000_000_000;

    #[test]
    fn bookings_follow_one_another_and_begin_no_earlier_than_now() {
        let mut booked = Booked::default();
        assert_eq!(booked.take(0, 3, 100, NOW_US), (NOW_US, NOW_US));
        assert_eq!(booked.take(0, 1, 100, NOW_US), (NOW_US, NOW_US + 300));
        assert_eq!(booked.take(0, 1, 100, NOW_US + 1000), (NOW_US + 1000, NOW_US + 1000));
    }

    #[test]
    fn urgent_bookings_do_not_wait_for_the_others_and_move_them_back() {
        let mut booked = Booked::default();
        booked.take(0, 50, 100, NOW_US);
        assert_eq!(booked.take(2, 1, 100, NOW_US), (NOW_US, NOW_US + 5200));
        assert_eq!(booked.take(1, 0, 100, NOW_US).0, NOW_US + 200);
        assert_eq!(booked.next_us, NOW_US + 5400);
    }

    #[test]
    fn a_booking_far_ahead_is_got_over() {
        let mut booked = Booked { urgent_next_us: u64::MAX, next_us: u64::MAX };
        let ahead_us = micros(BOOKED_AHEAD_MAX);
        assert_eq!(booked.take(0, 1, 100, NOW_US), (NOW_US + ahead_us, NOW_US + ahead_us));
    }

    #[test]
    fn a_quota_comes_back_as_it_was_set() {
        let shared = SharedWakeupQuota::default();
        assert_eq!(shared.quota().interval_us(), None);
        let quota = WakeupQuota { per_second: 300, burst: u32::MAX };
        shared.set(quota);
        assert_eq!(shared.quota(), quota);
        assert_eq!(quota.interval_us(), Some(3334), "never more than the quota");
        assert_eq!(WakeupQuota { per_second: 10, burst: 5 }.tolerance_us(), 400_000);
        assert_eq!(WakeupQuota { per_second: 10, burst: 0 }.tolerance_us(), 0);
    }
}
