//! Which calls fail, and how: drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often calls go wrong, each of a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRates {
    /// Answered with `Unavailable` before they did anything.
    pub unavailable_permille: u16,
    /// Done, and answered with `Unavailable` all the same: what a connection lost during COMMIT looks like.
    pub ambiguous_permille: u16,
    /// Slow: they wait before they do it, and again before they answer.
    pub delayed_permille: u16,
    /// The longest of these waits.
    pub delay_ms_max: u64,
}

impl FaultRates {
    pub const NONE: Self =
        Self { unavailable_permille: 0, ambiguous_permille: 0, delayed_permille: 0, delay_ms_max: 0 };
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) before: Duration,
    pub(crate) is_done: bool,
    pub(crate) after: Duration,
    pub(crate) is_told: bool,
}

pub(crate) struct Faults {
    random: StdRng,
    pub(crate) rates: FaultRates,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), rates: FaultRates::NONE }
    }

    pub(crate) fn draw(&mut self) -> Fate {
        let rates = self.rates;
        let delayed = self.happens(rates.delayed_permille);
        let [before, after] =
            [(); 2].map(|()| if delayed { self.wait(rates.delay_ms_max) } else { Duration::ZERO });
        let is_done = !self.happens(rates.unavailable_permille);
        let is_told = !self.happens(rates.ambiguous_permille);
        Fate { before, is_done, after, is_told }
    }

    fn happens(&mut self, permille: u16) -> bool {
        // Drawn in any case, so that one rate does not shift what is drawn for another.
        self.random.next_u32() % 1000 < u32::from(permille)
    }

    fn wait(&mut self, ms_max: u64) -> Duration {
        Duration::from_millis(self.random.next_u64() % (ms_max + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: FaultRates = FaultRates {
        unavailable_permille: 100,
        ambiguous_permille: 200,
        delayed_permille: 300,
        delay_ms_max: 9,
    };

    fn fates(seed: u64) -> Vec<Fate> {
        let mut faults = Faults::new(seed);
        faults.rates = RATES;
        (0..1000).map(|_| faults.draw()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_every_time() {
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[test]
    fn faults_are_as_frequent_as_they_were_asked_for() {
        let fates = fates(1);
        let count = |is: fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
        assert!((60..140).contains(&count(|fate| !fate.is_done)));
        assert!((150..250).contains(&count(|fate| !fate.is_told)));
        assert!((220..380).contains(&count(|fate| fate.before + fate.after > Duration::ZERO)));
        assert!(fates.iter().all(|fate| fate.before <= Duration::from_millis(9)));
    }
}
