//! Which client publishes and which subscribes.

use std::rc::Rc;

use sotto_model::QoS;

use crate::connector::Connected;
use crate::message_tally::MessageTally;
use crate::pacer::pace;
use crate::publisher::Publisher;
use crate::roster::SeatId;
use crate::run_clock::Micros;
use crate::script::Script;
use crate::subscriber::Subscriber;
use crate::traffic::{Common, Pacing, Traffic, TrafficPlan};
use crate::worker::{Role, Session, Worker};

impl Script for TrafficPlan {
    type Role = Traffic;

    fn publishers(&self) -> u32 {
        self.layout.publishers
    }

    fn cast(self) -> impl Fn() -> Traffic + Clone + Send + 'static {
        let common = Common::of(&self);
        move || Traffic::new(self.clone(), common.clone())
    }
}

/// Publishers come first in the count of clients, then subscribers.
impl Role for Traffic {
    type Outcome = MessageTally;

    fn filter(&self, client: u32, worker: &Worker) -> Option<(String, QoS)> {
        let subscriber = self.plan.subscriber(client).filter(|_| self.plan.subscribes)?;
        Some((self.plan.filter(subscriber, &worker.connector), self.plan.qos))
    }

    fn session(
        self: Rc<Self>,
        worker: &Rc<Worker>,
        client: u32,
        _: Micros,
        connected: Connected,
        seat: SeatId,
    ) -> Session {
        let worker = Rc::clone(worker);
        if let Some(subscriber) = self.plan.subscriber(client) {
            return Box::pin(Subscriber::new(self, worker, seat, connected, subscriber));
        }
        let publisher = client - self.plan.first_client;
        self.publishers.borrow_mut().push((publisher, seat));
        Box::pin(Publisher::new(self, worker, seat, connected, publisher))
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
        let shared = self.common.shared.as_ref().map(|shared| shared.take()).unwrap_or_default();
        MessageTally { shared, ..self.tally.replace(MessageTally::new()) }
    }
}
