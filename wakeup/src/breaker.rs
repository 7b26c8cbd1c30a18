//! Leaves a push service alone while it fails. Pure: time and randomness are arguments.
//!
//! ```text
//!            failures in a row, or a refused credential
//!   Closed ─────────────────────────────────────────────▶ Open
//!     ▲                                                  │  ▲
//!     │ the probe is answered            the wait is over│  │ the probe fails, too
//!     └──────────────────────── HalfOpen ◀───────────────┘  │
//!                                   └───────────────────────┘
//! ```

use std::time::{Duration, Instant};

use crate::limits::{
    BREAKER_BACKOFF, BREAKER_FAILURES_MAX, BREAKER_OPEN_MAX, BREAKER_OPEN_MIN, BREAKER_PROBE_MAX,
};
use crate::pusher::PushOutcome;

/// One for whatever fails as a whole: a service with the credential used for it, or an origin.
#[derive(Debug, Default)]
pub struct Breaker {
    phase: Phase,
    /// In a row, while closed.
    failures: u32,
    /// In a row, without a success between them.
    openings: u32,
}

/// Whether a push may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    Go,
    /// One push alone: what becomes of it decides for the others.
    Probe,
    /// None for so long.
    Wait(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    HalfOpen,
    Open,
}

impl BreakerState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Closed,
    /// Ends by being asked for a permit.
    Open { until: Instant },
    /// A probe is under way, given up at `until`.
    HalfOpen { until: Instant },
}

impl Breaker {
    /// A probe that was permitted counts as under way: record what becomes of it, or nobody else goes for
    /// `BREAKER_PROBE_MAX`.
    pub fn permit(&mut self, now: Instant) -> Permit {
        match self.phase {
            Phase::Closed => Permit::Go,
            Phase::Open { until } | Phase::HalfOpen { until } if now < until => Permit::Wait(until - now),
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                self.phase = Phase::HalfOpen { until: now + BREAKER_PROBE_MAX };
                Permit::Probe
            }
        }
    }

    /// `random` is one uniform draw.
    pub fn record(&mut self, outcome: &PushOutcome, now: Instant, random: u64) {
        match *outcome {
            // An answer about one device is an answer: the service works.
            PushOutcome::Delivered
            | PushOutcome::RetryAfter(_)
            | PushOutcome::TokenInvalid { .. }
            | PushOutcome::Rejected(_) => self.succeeded(),
            PushOutcome::Unavailable(asked) => self.failed(asked, now, random),
            PushOutcome::CredentialRefused(_) => self.open(None, now, random),
            PushOutcome::Deferred(_) => self.not_tried(now),
        }
    }

    /// As if nothing had ever failed: what failed before says nothing about another credential.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn succeeded(&mut self) {
        // A push that left before the breaker opened says nothing of the service as it is.
        if !matches!(self.phase, Phase::Open { .. }) {
            self.reset();
        }
    }

    fn failed(&mut self, asked: Option<Duration>, now: Instant, random: u64) {
        match self.phase {
            Phase::Closed => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= BREAKER_FAILURES_MAX {
                    self.open(asked, now, random);
                }
            }
            Phase::HalfOpen { .. } => self.open(asked, now, random),
            // Of those that left before it opened, none makes the wait grow; but what the service asks for
            // is heard.
            Phase::Open { until } => {
                let asked = now + asked.unwrap_or_default().min(BREAKER_OPEN_MAX);
                self.phase = Phase::Open { until: until.max(asked) };
            }
        }
    }

    fn open(&mut self, asked: Option<Duration>, now: Instant, random: u64) {
        if let Phase::Open { .. } = self.phase {
            return;
        }
        self.openings = self.openings.saturating_add(1);
        self.failures = 0;
        let wait = BREAKER_OPEN_MIN + BREAKER_BACKOFF.delay(self.openings, random);
        let wait = wait.max(asked.unwrap_or_default()).min(BREAKER_OPEN_MAX);
        self.phase = Phase::Open { until: now + wait };
    }

    /// A probe that never left leaves room for the next one.
    fn not_tried(&mut self, now: Instant) {
        if let Phase::HalfOpen { .. } = self.phase {
            self.phase = Phase::Open { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNAVAILABLE: PushOutcome = PushOutcome::Unavailable(None);
    const HALF: u64 = 1 << 63;

    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time is needed")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..BREAKER_FAILURES_MAX {
            breaker.record(&UNAVAILABLE, now, HALF);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker
    }

    fn wait(breaker: &mut Breaker, now: Instant) -> Duration {
        match breaker.permit(now) {
            Permit::Wait(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not_count_as_one() {
        let now = origin();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 0..BREAKER_FAILURES_MAX - 1 {
                breaker.record(&UNAVAILABLE, now, HALF);
                assert_eq!(breaker.permit(now), Permit::Go);
            }
            breaker.record(&PushOutcome::TokenInvalid { since: None }, now, HALF);
        }
        let mut breaker = opened(now);
        assert_eq!(wait(&mut breaker, now), Duration::from_millis(7500));
    }

    #[test]
    fn a_refused_credential_opens_it_at_once() {
        let now = origin();
        let mut breaker = Breaker::default();
        breaker.record(&PushOutcome::CredentialRefused("refused"), now, 0);
        assert_eq!(wait(&mut breaker, now), BREAKER_OPEN_MIN);
    }

    #[test]
    fn half_open_lets_one_probe_through_and_its_success_closes() {
        let now = origin();
        let mut breaker = opened(now);
        let later = now + wait(&mut breaker, now);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(wait(&mut breaker, later), BREAKER_PROBE_MAX);
        breaker.record(&PushOutcome::Delivered, later, HALF);
        assert_eq!(breaker.permit(later), Permit::Go);
        // The next opening is a first one again.
        let mut breaker = opened(later);
        assert_eq!(wait(&mut breaker, later), Duration::from_millis(7500));
    }

    #[test]
    fn probes_that_fail_are_farther_and_farther_apart_up_to_the_bound() {
        let mut now = origin();
        let mut breaker = opened(now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = wait(&mut breaker, now);
            waits.push(wait.as_secs_f64());
            now += wait;
            assert_eq!(breaker.permit(now), Permit::Probe);
            breaker.record(&UNAVAILABLE, now, HALF);
        }
        assert_eq!(waits, [7.5, 10.0, 15.0, 25.0, 45.0, 85.0, 152.5, 152.5]);
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_another() {
        let now = origin();
        let mut breaker = opened(now);
        let later = now + BREAKER_OPEN_MAX;
        assert_eq!(breaker.permit(later), Permit::Probe);
        let second = Duration::from_secs(1);
        let after = later + BREAKER_PROBE_MAX;
        assert_eq!(wait(&mut breaker, later + BREAKER_PROBE_MAX.saturating_sub(second)), second);
        assert_eq!(breaker.permit(after), Permit::Probe);
    }

    #[test]
    fn a_probe_that_was_not_tried_is_no_failure() {
        let now = origin();
        let mut breaker = opened(now);
        let later = now + BREAKER_OPEN_MAX;
        assert_eq!(breaker.permit(later), Permit::Probe);
        breaker.record(&PushOutcome::Deferred(Duration::from_secs(1)), later, HALF);
        assert_eq!(breaker.permit(later), Permit::Probe);
    }

    #[test]
    fn what_the_service_asks_for_is_obeyed_up_to_the_bound() {
        let now = origin();
        for (asked, waited) in [(1, 5), (60, 60), (3600, 300)] {
            let mut breaker = Breaker::default();
            for _ in 0..BREAKER_FAILURES_MAX {
                breaker.record(&PushOutcome::Unavailable(Some(Duration::from_secs(asked))), now, 0);
            }
            assert_eq!(wait(&mut breaker, now), Duration::from_secs(waited), "{asked}");
        }
        let mut breaker = opened(now);
        breaker.record(&PushOutcome::Unavailable(Some(Duration::from_mins(1))), now, 0);
        assert_eq!(wait(&mut breaker, now), Duration::from_mins(1));
    }

    #[test]
    fn a_straggler_neither_closes_nor_prolongs_an_open_one() {
        let now = origin();
        let mut breaker = opened(now);
        let before = wait(&mut breaker, now);
        breaker.record(&PushOutcome::Delivered, now, HALF);
        for _ in 0..100 {
            breaker.record(&UNAVAILABLE, now, u64::MAX);
            breaker.record(&PushOutcome::CredentialRefused("refused"), now, u64::MAX);
        }
        assert_eq!(wait(&mut breaker, now), before);
    }

    #[test]
    fn a_new_credential_is_tried_at_once() {
        let now = origin();
        let mut breaker = Breaker::default();
        breaker.record(&PushOutcome::CredentialRefused("refused"), now, HALF);
        breaker.reset();
        assert_eq!(breaker.permit(now), Permit::Go);
    }

    fn outcome() -> impl Strategy<Value = PushOutcome> {
        prop_oneof![
            Just(PushOutcome::Delivered),
            Just(PushOutcome::RetryAfter(None)),
            Just(PushOutcome::Rejected("rejected")),
            Just(PushOutcome::CredentialRefused("refused")),
            proptest::option::of(0u64..100_000)
                .prop_map(|asked| PushOutcome::Unavailable(asked.map(Duration::from_secs))),
            (0u64..100).prop_map(|wait| PushOutcome::Deferred(Duration::from_secs(wait))),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_somebody_may_go_within_the_bound(
            steps in proptest::collection::vec((outcome(), any::<u64>(), 0u64..400, any::<bool>()), 0..80),
        ) {
            let mut now = origin();
            let mut breaker = Breaker::default();
            for (outcome, random, seconds, asks) in steps {
                now += Duration::from_secs(seconds);
                if asks {
                    breaker.permit(now);
                }
                breaker.record(&outcome, now, random);
                if let Permit::Wait(wait) = breaker.permit(now) {
                    prop_assert!(wait <= BREAKER_OPEN_MAX.max(BREAKER_PROBE_MAX));
                    prop_assert!(!matches!(breaker.permit(now + wait), Permit::Wait(_)));
                }
            }
        }

        #[test]
        fn while_it_is_not_closed_no_two_go_within_the_least_wait(
            steps in proptest::collection::vec((any::<bool>(), any::<u64>(), 0u64..10_000), 1..80),
        ) {
            let mut now = origin();
            let mut breaker = opened(now);
            let mut last = now;
            for (probe_fails, random, millis) in steps {
                now += Duration::from_millis(millis);
                match breaker.permit(now) {
                    Permit::Go => prop_assert!(false, "nothing has succeeded"),
                    Permit::Probe => {
                        prop_assert!(now - last >= BREAKER_OPEN_MIN);
                        last = now;
                        if probe_fails {
                            breaker.record(&UNAVAILABLE, now, random);
                        }
                    }
                    Permit::Wait(_) => {}
                }
            }
        }
    }
}
