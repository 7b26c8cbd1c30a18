//! How long to wait before trying again.

use std::time::Duration;

/// Exponential, with full jitter: between nothing and a ceiling that doubles with every failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling after the first failure.
    pub base: Duration,
    /// The ceiling never grows beyond this.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row. `random` is one uniform draw.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let ceiling = self.ceiling(failures).as_nanos();
        // A ceiling below 2^64 ns (584 years) times a draw below 2^64 stays within 128 bits.
        let nanos = (ceiling.min(u128::from(u64::MAX)) * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).expect("at most the ceiling, which fits"))
    }

    /// The longest wait after `failures` failures in a row.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1);
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let ceilings: Vec<_> = (1..=8).map(|failures| BACKOFF.ceiling(failures).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(BACKOFF.ceiling(u32::MAX), BACKOFF.cap);
    }

    #[test]
    fn the_draw_spreads_the_wait_over_the_whole_range() {
        assert_eq!(BACKOFF.delay(1, 0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(1, 1 << 63), Duration::from_millis(50));
        assert!(BACKOFF.delay(1, u64::MAX) > Duration::from_micros(99_999));
    }

    proptest! {
        #[test]
        fn a_wait_never_exceeds_its_ceiling(failures: u32, random: u64, base: u32, cap: u32) {
            let backoff = Backoff {
                base: Duration::from_millis(base.into()),
                cap: Duration::from_millis(cap.into()),
            };
            prop_assert!(backoff.delay(failures, random) <= backoff.ceiling(failures));
        }
    }
}
