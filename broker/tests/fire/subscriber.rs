//! A client that receives: each message of QoS 2 once, whatever is repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Packet, Subscribe, SubscribeFilters, Version};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::ledger::{Key, Ledger, TopicNumber};
use crate::link::{Link, Place};
use crate::phase::{Phase, changed};
use crate::publisher::back_off;
use crate::support::phone::{Heard, Login, Message, ack};

pub(crate) struct Subscriber {
    pub(crate) number: usize,
    pub(crate) login: Login,
    pub(crate) version: Version,
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    /// Those that the filter matches.
    pub(crate) topics: Vec<TopicNumber>,
    /// How long it thinks about each message.
    pub(crate) slowness: Duration,
    pub(crate) place: Place,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) dice: Dice,
}

/// QoS 2 messages whose PUBREL has not come.
type Unreleased = HashMap<PacketId, Key>;

/// How long a connection is kept that nothing ends, ms.
const LIFE_MS: (u64, u64) = (500, 10_000);

impl Subscriber {
    /// Makes the session and its subscription, before anything is published.
    pub(crate) async fn subscribe(&self) {
        let connected = Link::connect(&self.place, &self.login, self.version).await;
        let (mut link, present) = connected.expect("the broker serves");
        assert!(!present, "a new session");
        subscribe(&mut link, &self.filter, self.qos).await;
        link.disconnect().await;
    }

    /// Until the load is over.
    pub(crate) async fn run(mut self) {
        let mut unreleased = Unreleased::new();
        let mut failures = 0;
        while *self.phase.borrow() != Phase::Over {
            let Some((mut link, present)) = Link::connect(&self.place, &self.login, self.version).await
            else {
                back_off(&mut self.dice, &mut failures).await;
                continue;
            };
            failures = 0;
            if !present {
                self.ledger.complain(format!("{} found its session gone", self.name()));
            }
            let said_goodbye = self.live(&mut link, &mut unreleased).await;
            if said_goodbye {
                link.disconnect().await;
            } else {
                drop(link);
            }
            sleep(self.dice.millis(5, 1_500)).await;
        }
    }

    /// True where it is to end with DISCONNECT.
    async fn live(&mut self, link: &mut Link, unreleased: &mut Unreleased) -> bool {
        let end_of_life = sleep(self.dice.millis(LIFE_MS.0, LIFE_MS.1));
        tokio::pin!(end_of_life);
        let mut phase = *self.phase.borrow();
        loop {
            tokio::select! {
                heard = link.next() => match heard {
                    Heard::Publish(message) => {
                        if phase == Phase::Running && !self.slowness.is_zero() {
                            sleep(self.slowness).await;
                        }
                        self.take(&message, link, unreleased).await;
                    }
                    Heard::PubRel(packet_id) => {
                        unreleased.remove(&packet_id);
                        link.send(&Packet::PubComp(ack(packet_id))).await;
                    }
                    Heard::Closed | Heard::Disconnect(_) => return false,
                    other => self.ledger.complain(format!("{} heard {other:?}", self.name())),
                },
                () = &mut end_of_life, if phase == Phase::Running => return self.dice.one_in(2),
                now = changed(&mut self.phase) => {
                    phase = now;
                    if phase == Phase::Over {
                        return true;
                    }
                }
            }
        }
    }

    async fn take(&self, message: &Message, link: &mut Link, unreleased: &mut Unreleased) {
        let Some(key) = self.ledger.recognize(&self.name(), &message.topic, &message.payload) else { return };
        let Some(packet_id) = message.packet_id else {
            return self.ledger.complain(format!("{} got {key:?} with QoS 0", self.name()));
        };
        if message.qos != QoS::ExactlyOnce {
            self.ledger.received(self.number, &self.name(), key, message.qos);
            return link.send(&Packet::PubAck(ack(packet_id))).await;
        }
        match unreleased.insert(packet_id, key) {
            None => self.ledger.received(self.number, &self.name(), key, message.qos),
            Some(known) if known == key => {}
            Some(known) => {
                let name = self.name();
                self.ledger.complain(format!("{name} got {key:?} under the packet id of {known:?}"));
            }
        }
        link.send(&Packet::PubRec(ack(packet_id))).await;
    }

    fn name(&self) -> String {
        format!("subscriber {}", self.number)
    }
}

pub(crate) async fn subscribe(link: &mut Link, filter: &str, qos: QoS) {
    let options = SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let mut raw = Vec::new();
    let filters = SubscribeFilters::encode(&[(filter, options)], &mut raw);
    let packet_id = PacketId::FIRST;
    link.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::EMPTY, filters })).await;
    assert_eq!(link.next().await, Heard::SubAck(packet_id, vec![qos as u8]));
}
