//! How many pushes may be under way to each of many push services, and which of them is left alone.
//!
//! Endpoints are on hosts that users name. One that stalls must not take the slots of all others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::breaker::{Breaker, BreakerState, Permit};
use crate::limits::{ORIGIN_BUSY_WAIT, ORIGIN_IN_FLIGHT_MAX, ORIGIN_IN_FLIGHT_MIN, ORIGINS_MAX};
use crate::pusher::PushOutcome;

/// By origin. An origin may name its user, so there is no way to see them.
#[derive(Clone, Default)]
pub(crate) struct OriginGates(Arc<Mutex<HashMap<String, Gate>>>);

struct Gate {
    breaker: Breaker,
    in_flight: u32,
    in_flight_max: u32,
    used_at: Instant,
}

/// One push under way. Dropped without an outcome, it gives its place back.
pub(crate) struct Pass {
    gates: OriginGates,
    origin: String,
}

impl OriginGates {
    /// How long to wait where there is no way through. `random` is one uniform draw.
    pub(crate) fn enter(&self, origin: String, now: Instant, random: u64) -> Result<Pass, Duration> {
        let mut gates = self.0.lock();
        if gates.len() >= ORIGINS_MAX && !gates.contains_key(&origin) {
            forget_one(&mut gates);
        }
        let gate = gates.entry(origin.clone()).or_insert_with(|| Gate {
            breaker: Breaker::default(),
            in_flight: 0,
            in_flight_max: ORIGIN_IN_FLIGHT_MIN,
            used_at: now,
        });
        gate.used_at = now;
        if gate.in_flight >= gate.in_flight_max {
            return Err(ORIGIN_BUSY_WAIT + spread(random));
        }
        if let Permit::Wait(wait) = gate.breaker.permit(now) {
            return Err(wait + spread(random));
        }
        gate.in_flight += 1;
        Ok(Pass { gates: self.clone(), origin })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Pass {
    /// `random` is one uniform draw.
    pub(crate) fn record(self, outcome: &PushOutcome, now: Instant, random: u64) {
        let mut gates = self.gates.0.lock();
        if let Some(gate) = gates.get_mut(&self.origin) {
            gate.in_flight_max = match outcome {
                PushOutcome::Unavailable(_) => (gate.in_flight_max / 2).max(ORIGIN_IN_FLIGHT_MIN),
                _ => (gate.in_flight_max + 1).min(ORIGIN_IN_FLIGHT_MAX),
            };
            gate.breaker.record(outcome, now, random);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.gates.0.lock().get_mut(&self.origin) {
            gate.in_flight = gate.in_flight.saturating_sub(1);
        }
    }
}

/// The one longest unused of those without a push under way; one that works before one that does not.
fn forget_one(gates: &mut HashMap<String, Gate>) {
    let idle = gates.iter().filter(|(_, gate)| gate.in_flight == 0);
    let key = |gate: &Gate| (gate.breaker.state() != BreakerState::Closed, gate.used_at);
    let unused = idle.min_by_key(|(_, gate)| key(gate)).map(|(origin, _)| origin.clone());
    let unused = unused.expect("fewer pushes are under way than origins are remembered");
    gates.remove(&unused);
}

/// So that not all come back at once.
fn spread(random: u64) -> Duration {
    ORIGIN_BUSY_WAIT.mul_f64(unit(random))
}

#[expect(clippy::cast_precision_loss, reason = "a fraction need not be exact")]
fn unit(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BREAKER_FAILURES_MAX, PUSHES_IN_FLIGHT_MAX};

    const DELIVERED: PushOutcome = PushOutcome::Delivered;
    const UNAVAILABLE: PushOutcome = PushOutcome::Unavailable(None);

    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time is needed")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn passes(gates: &OriginGates, origin: &str, now: Instant) -> Vec<Pass> {
        std::iter::from_fn(|| gates.enter(origin.to_owned(), now, 0).ok()).take(1000).collect()
    }

    #[test]
    fn an_origin_that_nothing_is_known_of_gets_a_few_places_and_more_with_every_answer() {
        let (gates, now) = (OriginGates::default(), origin());
        let first = passes(&gates, "a", now);
        assert_eq!(first.len(), ORIGIN_IN_FLIGHT_MIN as usize);
        assert_eq!(gates.enter("a".into(), now, 0).err(), Some(ORIGIN_BUSY_WAIT));
        assert!(gates.enter("b".into(), now, 0).is_ok(), "another one is not concerned");
        for pass in first {
            pass.record(&DELIVERED, now, 0);
        }
        assert_eq!(passes(&gates, "a", now).len(), 2 * ORIGIN_IN_FLIGHT_MIN as usize);
        for _ in 0..1000 {
            gates.enter("a".into(), now, 0).expect("a place").record(&DELIVERED, now, 0);
        }
        assert_eq!(passes(&gates, "a", now).len(), ORIGIN_IN_FLIGHT_MAX as usize);
    }

    #[test]
    fn an_origin_that_fails_is_left_alone_and_no_other() {
        let (gates, now) = (OriginGates::default(), origin());
        for _ in 0..BREAKER_FAILURES_MAX {
            gates.enter("a".into(), now, 0).expect("a place").record(&UNAVAILABLE, now, 0);
        }
        let wait = gates.enter("a".into(), now, 0).err().expect("none");
        assert!(gates.enter("b".into(), now, 0).is_ok());
        let probe = gates.enter("a".into(), now + wait, 0).expect("a probe");
        assert!(gates.enter("a".into(), now + wait, 0).is_err());
        probe.record(&DELIVERED, now + wait, 0);
        assert!(gates.enter("a".into(), now + wait, 0).is_ok());
    }

    #[test]
    fn a_failure_halves_the_places() {
        let (gates, now) = (OriginGates::default(), origin());
        for _ in 0..1000 {
            gates.enter("a".into(), now, 0).expect("a place").record(&DELIVERED, now, 0);
        }
        gates.enter("a".into(), now, 0).expect("a place").record(&UNAVAILABLE, now, 0);
        assert_eq!(passes(&gates, "a", now).len(), ORIGIN_IN_FLIGHT_MAX as usize / 2);
    }

    #[test]
    fn a_push_that_is_given_up_gives_its_place_back() {
        let (gates, now) = (OriginGates::default(), origin());
        drop(passes(&gates, "a", now));
        assert_eq!(passes(&gates, "a", now).len(), ORIGIN_IN_FLIGHT_MIN as usize);
    }

    #[test]
    fn there_is_a_bound_and_what_is_under_way_is_not_forgotten() {
        let (gates, now) = (OriginGates::default(), origin());
        let busy: Vec<_> = (0..PUSHES_IN_FLIGHT_MAX)
            .map(|n| gates.enter(format!("busy{n}"), now, 0).expect("a place"))
            .collect();
        for n in 0..10 * ORIGINS_MAX {
            let later = now + Duration::from_millis(n as u64);
            let pass = gates.enter(format!("{n}"), later, 0).expect("a place");
            pass.record(&UNAVAILABLE, later, 0);
            assert!(gates.len() <= ORIGINS_MAX);
        }
        assert!((0..busy.len()).all(|n| gates.0.lock().contains_key(&format!("busy{n}"))));
    }

    #[test]
    fn those_that_wait_do_not_all_come_back_at_once() {
        let (gates, now) = (OriginGates::default(), origin());
        let _all = passes(&gates, "a", now);
        assert_eq!(gates.enter("a".into(), now, u64::MAX).err(), Some(2 * ORIGIN_BUSY_WAIT));
    }
}
