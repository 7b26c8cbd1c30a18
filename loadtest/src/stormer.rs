//! A client that comes back: after its connection was cut, after the broker ended it, after a failed attempt.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sotto_model::QoS;

use crate::client::Parting;
use crate::connector::Connected;
use crate::failures::Failures;
use crate::holder::Holder;
use crate::latencies::Latencies;
use crate::roster::{Phase, SeatId};
use crate::run_clock::Micros;
use crate::schedule::Schedule;
use crate::script::Script;
use crate::subscription::Subscription;
use crate::worker::{Away, Role, Session, Worker};

/// What all clients of a storm do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StormPlan {
    pub(crate) subscribe: Option<Subscription>,
    pub(crate) parting: Parting,
    /// From the cut to the first return.
    pub(crate) away: Duration,
    /// Of returns.
    pub(crate) schedule: Schedule,
    pub(crate) jitter: Duration,
    pub(crate) backoff: Backoff,
    /// Beside the time before the first cut.
    pub(crate) rounds: u32,
}

/// Pauses after failed attempts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

/// What has happened from one cut to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RoundTally {
    /// From the cut until a connection was told to end.
    pub(crate) gone: Latencies,
    /// From the cut until a client was back.
    pub(crate) back: Latencies,
    /// From when a client saw that its connection had ended, or could not be made, until it was back.
    pub(crate) recovered: Latencies,
    /// Connections that the broker ended, by reason.
    pub(crate) broken: Failures,
    /// Attempts that failed and were made again, by reason.
    pub(crate) failed: Failures,
    /// Returns whose TLS ticket was accepted.
    pub(crate) resumed: u64,
}

pub(crate) struct Storming {
    plan: StormPlan,
    /// Round 0 is before the first cut.
    rounds: RefCell<Vec<RoundTally>>,
    /// Clients on their way back.
    away: RefCell<HashMap<u32, Absence>>,
}

struct Absence {
    since: Micros,
    by_cut: bool,
    failed: u32,
}

impl Script for StormPlan {
    type Role = Storming;

    fn cast(self) -> impl Fn() -> Storming + Clone + Send + 'static {
        move || Storming::new(self.clone())
    }
}

impl Storming {
    pub(crate) fn new(plan: StormPlan) -> Self {
        let rounds = (0..=plan.rounds).map(|_| RoundTally::new()).collect();
        Self { plan, rounds: RefCell::new(rounds), away: RefCell::default() }
    }
}

impl Role for Storming {
    type Outcome = Vec<RoundTally>;

    fn filter(&self, client: u32, worker: &Worker) -> Option<(String, QoS)> {
        let Subscription { filter, qos } = self.plan.subscribe.as_ref()?;
        Some((worker.connector.expand(filter, client), *qos))
    }

    fn session(
        self: Rc<Self>,
        worker: &Rc<Worker>,
        client: u32,
        _: Micros,
        connected: Connected,
        seat: SeatId,
    ) -> Session {
        if let Some(absence) = self.away.borrow_mut().remove(&client) {
            let mut rounds = self.rounds.borrow_mut();
            let round = &mut rounds[worker.roster.cut().round as usize];
            let back = if absence.by_cut { &mut round.back } else { &mut round.recovered };
            back.record(absence.since, worker.now());
            round.resumed += u64::from(connected.resumed);
        }
        Box::pin(Holder::new(worker, connected, seat))
    }

    async fn publish(&self, _: &Worker, _: Micros) {}

    fn sweep_wakes_all(&self) -> bool {
        false
    }

    fn parting(&self, worker: &Worker) -> Parting {
        if worker.roster.phase() == Phase::Stopping { Parting::Disconnect } else { self.plan.parting }
    }

    fn again(&self, worker: &Worker, client: u32, away: &Away) -> Option<Micros> {
        if worker.roster.phase() == Phase::Stopping {
            return None;
        }
        let (now, cut) = (worker.now(), worker.roster.cut());
        let mut rounds = self.rounds.borrow_mut();
        let round = &mut rounds[cut.round as usize];
        let mut absences = self.away.borrow_mut();
        let by_cut = matches!(away, Away::Left);
        let since = if by_cut { cut.at } else { now };
        let absence = absences.entry(client).or_insert(Absence { since, by_cut, failed: 0 });
        let pause = match away {
            Away::Left => {
                round.gone.record(cut.at, now);
                let at = cut.at.plus(self.plan.away + self.plan.jitter.mul_f64(rand::random()));
                return Some(Micros(at.0 + self.plan.schedule.due(client.into()).0));
            }
            Away::Broken(error) => {
                round.broken.count(error);
                self.plan.backoff.pause(0, rand::random())
            }
            Away::Failed(error) => {
                round.failed.count(error);
                absence.failed += 1;
                self.plan.backoff.pause(absence.failed - 1, rand::random())
            }
        };
        Some(now.plus(pause))
    }

    fn outcome(&self) -> Vec<RoundTally> {
        self.rounds.take()
    }
}

impl Backoff {
    /// After so many failed attempts before; `random` is from 0 to 1.
    fn pause(self, failed: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failed.min(20));
        doubled.min(self.longest).mul_f64(0.5 + random / 2.0)
    }
}

impl RoundTally {
    pub(crate) fn new() -> Self {
        Self {
            gone: Latencies::new(),
            back: Latencies::new(),
            recovered: Latencies::new(),
            broken: Failures::default(),
            failed: Failures::default(),
            resumed: 0,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.gone.add(&other.gone);
        self.back.add(&other.back);
        self.recovered.add(&other.recovered);
        self.broken.add(&other.broken);
        self.failed.add(&other.failed);
        self.resumed += other.resumed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_half_of_each_is_random() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) };
        let pauses = [0, 1, 2, 3, 4, 100].map(|failed| backoff.pause(failed, 1.0).as_secs());
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.pause(2, 0.0), Duration::from_secs(2));
        assert_eq!(backoff.pause(100, 0.0), Duration::from_secs(5));
    }
}
