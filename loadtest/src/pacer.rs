//! Tells publishers when their messages are due, whether or not the broker keeps up: an open loop.

use serde::{Deserialize, Serialize};

use crate::fine_timer::FineTimer;
use crate::limits::PACER_TICK;
use crate::roster::{Phase, Roster, SeatId};
use crate::run_clock::{Micros, RunClock};
use crate::schedule::Schedule;

/// Message k of the run is message k / P of publisher k mod P.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    pub(crate) publishers: u32,
    /// Messages of the whole run.
    pub(crate) total: u64,
}

impl Plan {
    /// When a publisher's message is due, after the first of all.
    pub(crate) fn due(&self, publisher: u32, sequence: u64) -> Micros {
        self.schedule.due(self.number(publisher, sequence))
    }

    fn number(&self, publisher: u32, sequence: u64) -> u64 {
        sequence * u64::from(self.publishers) + u64::from(publisher)
    }
}

/// Returns when everything has been due, or the phase is over. `publishers` are those of this thread, in
/// ascending order.
pub(crate) async fn pace(
    plan: Plan,
    publishers: &[(u32, SeatId)],
    roster: &Roster,
    clock: RunClock,
    timer: &FineTimer,
    start: Micros,
) {
    for sequence in 0.. {
        for (publisher, seat) in publishers {
            if plan.number(*publisher, sequence) >= plan.total {
                return;
            }
            let due = Micros(start.0 + plan.due(*publisher, sequence).0);
            let now = clock.now();
            if due > now {
                timer.sleep_until(clock.instant(due.max(now.plus(PACER_TICK)))).await;
                if !matches!(roster.phase(), Phase::Publishing(_)) {
                    return;
                }
            }
            roster.add_due(*seat);
        }
        if publishers.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn publishers_take_turns() {
        let plan = Plan { schedule: Schedule::new(1000.0), publishers: 4, total: 100 };
        assert_eq!(plan.due(0, 0), Micros(0));
        assert_eq!(plan.due(3, 0), Micros(3_000));
        assert_eq!(plan.due(0, 1), Micros(4_000));
    }

    #[tokio::test]
    async fn exactly_the_planned_messages_come_due() {
        let roster = Roster::new();
        let clock = RunClock::start();
        let seats: Vec<_> = (0..3).map(|i| (i, roster.take_seat(0, Micros(0)))).collect();
        roster.enter(Phase::Publishing(Micros(0)));
        let plan = Plan { schedule: Schedule::new(20_000.0), publishers: 3, total: 100 };
        let timer = FineTimer::new().expect("a timer");
        pace(plan, &seats, &roster, clock, &timer, clock.now()).await;
        let mut cx = Context::from_waker(Waker::noop());
        let due: Vec<_> = seats.iter().map(|(_, seat)| roster.attend(*seat, &mut cx).due).collect();
        assert_eq!(due, [34, 33, 33]);
    }
}
