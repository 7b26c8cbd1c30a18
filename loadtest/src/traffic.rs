//! What the publishers and subscribers of one thread share.

use std::cell::RefCell;
use std::sync::Arc;

use sotto_model::QoS;

use crate::credit::Credit;
use crate::ledger::Layout;
use crate::message_tally::MessageTally;
use crate::pacer::Plan;
use crate::roster::SeatId;
use crate::template::{RunId, Template};

/// What every thread of a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct TrafficPlan {
    pub(crate) layout: Layout,
    pub(crate) topic: Template,
    pub(crate) run: RunId,
    pub(crate) qos: QoS,
    pub(crate) size_bytes: usize,
    pub(crate) pacing: Pacing,
}

#[derive(Clone, Debug)]
pub(crate) enum Pacing {
    /// Messages go out when they are due.
    Open(Plan),
    /// A publisher has so many messages outstanding, always.
    Closed {
        window: u16,
        /// One for each publisher of the run.
        credits: Arc<[Credit]>,
    },
}

pub(crate) struct Traffic {
    pub(crate) plan: TrafficPlan,
    pub(crate) tally: RefCell<MessageTally>,
    /// The payload of every message, with the header of the last.
    pub(crate) payload: RefCell<Vec<u8>>,
    /// Those of this thread, by client and seat.
    pub(crate) publishers: RefCell<Vec<(u32, SeatId)>>,
}

impl Traffic {
    pub(crate) fn new(plan: TrafficPlan) -> Self {
        // Bytes that do not compress, as encrypted payloads do not.
        let payload = (0..plan.size_bytes).map(|_| rand::random()).collect();
        Self {
            plan,
            tally: RefCell::new(MessageTally::new()),
            payload: RefCell::new(payload),
            publishers: RefCell::new(Vec::new()),
        }
    }
}
