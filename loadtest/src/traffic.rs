//! Publishers and subscribers of one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use sotto_model::QoS;

use crate::connector::Connected;
use crate::credit::Credit;
use crate::ledger::Layout;
use crate::message_tally::MessageTally;
use crate::pacer::{Plan, pace};
use crate::publisher::Publisher;
use crate::roster::SeatId;
use crate::run_clock::Micros;
use crate::subscriber::Subscriber;
use crate::template::{RunId, Template};
use crate::worker::{Role, Session, Worker};

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
    publishers: RefCell<Vec<(u32, SeatId)>>,
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

/// Publishers come first in the count of clients, then subscribers.
impl Role for Traffic {
    type Outcome = MessageTally;

    fn filter(&self, client: u32, _: &Worker) -> Option<(String, QoS)> {
        let subscriber = client.checked_sub(self.plan.layout.publishers)?;
        let topic = self.plan.layout.topic_of(subscriber);
        Some((self.plan.topic.expand(topic, self.plan.run), self.plan.qos))
    }

    fn session(
        self: Rc<Self>,
        worker: &Rc<Worker>,
        client: u32,
        connected: Connected,
        seat: SeatId,
    ) -> Session {
        let worker = Rc::clone(worker);
        if let Some(subscriber) = client.checked_sub(self.plan.layout.publishers) {
            return Box::pin(Subscriber::new(self, worker, seat, connected, subscriber));
        }
        self.publishers.borrow_mut().push((client, seat));
        Box::pin(Publisher::new(self, worker, seat, connected, client))
    }

    async fn publish(&self, worker: &Worker, start: Micros) {
        let Pacing::Open(plan) = &self.plan.pacing else { return };
        let mut publishers = self.publishers.borrow().clone();
        publishers.sort_unstable_by_key(|(publisher, _)| *publisher);
        let clock = worker.connector.clock;
        pace(*plan, &publishers, &worker.roster, clock, &worker.timer, start).await;
    }

    fn sweep_wakes_all(&self) -> bool {
        self.plan.qos == QoS::AtMostOnce && matches!(self.plan.pacing, Pacing::Closed { .. })
    }

    fn outcome(&self) -> MessageTally {
        self.tally.replace(MessageTally::new())
    }
}
