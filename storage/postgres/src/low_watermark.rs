//! Where a scan of a queue begins.
//!
//! Rows leave a queue at its low end, and until vacuum has been there every scan from the beginning steps
//! over the dead ones (2 ms become 9 within seconds, 26 under an old snapshot). So a scan begins where the
//! last one got to. Rows that became visible behind that place, out of order, are found by a scan from the
//! beginning every [`QUEUE_RESCAN_MS`].

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sotto_model::UnixMillis;
use sotto_storage::outbox::LANES_MAX;
use sotto_storage::push_registry::Lane;

use crate::limits::QUEUE_RESCAN_MS;

#[derive(Default)]
pub(crate) struct LowWatermark {
    /// Locked for a look or a store; two scans at once may both begin at the same place.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reached: i64,
    scanned_from_start_at: Option<UnixMillis>,
}

impl LowWatermark {
    /// The value at and after which to scan.
    pub(crate) fn start(&self, now: UnixMillis) -> i64 {
        let mut state = self.state.lock();
        let fresh = state.scanned_from_start_at.is_some_and(|at| at <= now && now.0 - at.0 < QUEUE_RESCAN_MS);
        if !fresh {
            state.scanned_from_start_at = Some(now);
            state.reached = 0;
        }
        state.reached
    }

    /// The next scan begins at the beginning.
    pub(crate) fn reset(&self) {
        *self.state.lock() = State::default();
    }

    pub(crate) fn reached(&self, value: i64) {
        let mut state = self.state.lock();
        state.reached = state.reached.max(value);
    }
}

/// One for each lane of wakeups.
#[derive(Default)]
pub(crate) struct LaneWatermarks {
    /// Locked to find one. At most [`LANES_MAX`]: with one more all are forgotten, which costs each lane a scan
    /// from the beginning.
    lanes: Mutex<HashMap<Lane, Arc<LowWatermark>>>,
}

impl LaneWatermarks {
    pub(crate) fn of(&self, lane: &Lane) -> Arc<LowWatermark> {
        let mut lanes = self.lanes.lock();
        if lanes.len() >= LANES_MAX && !lanes.contains_key(lane) {
            lanes.clear();
        }
        lanes.entry(lane.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_goes_on_where_the_last_one_got_to_until_a_rescan_is_due() {
        let scan = LowWatermark::default();
        assert_eq!(scan.start(UnixMillis(1000)), 0);
        scan.reached(40);
        assert_eq!(scan.start(UnixMillis(1000 + QUEUE_RESCAN_MS - 1)), 40);
        assert_eq!(scan.start(UnixMillis(1000 + QUEUE_RESCAN_MS)), 0);
    }

    #[test]
    fn a_clock_set_back_scans_from_the_start() {
        let scan = LowWatermark::default();
        scan.start(UnixMillis(1000));
        scan.reached(40);
        assert_eq!(scan.start(UnixMillis(10)), 0);
    }
}
