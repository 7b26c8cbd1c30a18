//! What the publishers and subscribers of one thread share.

use std::cell::RefCell;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sotto_model::QoS;

use crate::connector::Connector;
use crate::credit::Credit;
use crate::ledger::Layout;
use crate::message_tally::MessageTally;
use crate::pacer::Plan;
use crate::qos_number;
use crate::roster::SeatId;
use crate::shared_sequences::SharedSequences;
use crate::template::{Place, RunId, Template};

/// What every thread of a run is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrafficPlan {
    pub(crate) layout: Layout,
    /// The client that is publisher 0; the others follow, then the subscribers.
    pub(crate) first_client: u32,
    /// Subscribers subscribe; else their sessions have done so before.
    pub(crate) subscribes: bool,
    pub(crate) topic: Template,
    /// Name of the shared subscription.
    pub(crate) share: Option<String>,
    pub(crate) run: RunId,
    #[serde(with = "qos_number")]
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Of MQTT 5.
    pub(crate) message_expiry_seconds: Option<u32>,
    /// Each message bears a name of its own, to be looked up in Sotto's database.
    pub(crate) named: bool,
    pub(crate) size_bytes: usize,
    /// Messages a publisher may have outstanding; `None`: as many as the broker receives.
    pub(crate) window: Option<u16>,
    pub(crate) pacing: Pacing,
}

impl TrafficPlan {
    /// Publishers come first in the count of clients.
    pub(crate) fn subscriber(&self, client: u32) -> Option<u32> {
        (client - self.first_client).checked_sub(self.layout.publishers)
    }

    /// A topic may name its first publisher.
    pub(crate) fn topic(&self, topic: u32, connector: &Connector) -> String {
        let place = Place { number: topic, run: self.run, ..Place::default() };
        if !self.topic.names_client() {
            return self.topic.expand(place);
        }
        let publisher = connector.credentials.identity(self.first_client + topic, self.run);
        let user = publisher.username.as_deref().unwrap_or_default();
        self.topic.expand(Place { client_id: &publisher.client_id, user, ..place })
    }

    pub(crate) fn filter(&self, subscriber: u32, connector: &Connector) -> String {
        let filter = match self.layout.subscription_of(subscriber) {
            Some(topic) => self.topic(topic, connector),
            None => self.topic.expand_to_filter(self.run),
        };
        match &self.share {
            Some(name) => format!("$share/{name}/{filter}"),
            None => filter,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Pacing {
    /// Messages go out when they are due.
    Open(Plan),
    /// A publisher has a full window of messages outstanding, always.
    Closed { window: u16 },
}

/// What all publishers and subscribers of one process share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// Of a closed loop, one for each publisher of the run.
    pub(crate) credits: Arc<[Credit]>,
    /// What the members of shared subscriptions have received.
    pub(crate) shared: Option<Arc<SharedSequences>>,
}

pub(crate) struct Traffic {
    pub(crate) plan: TrafficPlan,
    pub(crate) common: Common,
    pub(crate) tally: RefCell<MessageTally>,
    /// The payload of every message, with the header of the last.
    pub(crate) payload: RefCell<Vec<u8>>,
    /// Those of this thread, by client and seat.
    pub(crate) publishers: RefCell<Vec<(u32, SeatId)>>,
}

impl Common {
    pub(crate) fn of(plan: &TrafficPlan) -> Self {
        let publishers = plan.layout.publishers;
        let credits = if matches!(plan.pacing, Pacing::Closed { .. }) { publishers } else { 0 };
        Self {
            credits: (0..credits).map(|_| Credit::default()).collect(),
            shared: plan.share.is_some().then(|| Arc::new(SharedSequences::new(publishers))),
        }
    }
}

impl Traffic {
    pub(crate) fn new(plan: TrafficPlan, common: Common) -> Self {
        // Bytes that do not compress, as encrypted payloads do not.
        let payload = (0..plan.size_bytes).map(|_| rand::random()).collect();
        Self {
            plan,
            common,
            tally: RefCell::new(MessageTally::new()),
            payload: RefCell::new(payload),
            publishers: RefCell::new(Vec::new()),
        }
    }
}
