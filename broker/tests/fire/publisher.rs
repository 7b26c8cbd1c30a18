//! A client that publishes, and sends again what was not acknowledged, as a good client does.

use std::collections::VecDeque;
use std::sync::Arc;

use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::properties::{Property, PropertyBuf};
use sotto_mqtt::packet::{Packet, Publish, Version};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use crate::dice::{Dice, mix};
use crate::ledger::{Key, Ledger, TopicNumber, payload};
use crate::link::{Link, Place};
use crate::phase::{Phase, changed};
use crate::support::phone::{Heard, Login, ack};

pub(crate) struct Publisher {
    pub(crate) number: usize,
    pub(crate) login: Login,
    pub(crate) version: Version,
    pub(crate) qos: QoS,
    pub(crate) topics: Vec<TopicNumber>,
    /// Messages not yet acknowledged, at most.
    pub(crate) window: usize,
    /// Its messages carry `sotto-id`, and its session ends with its connection.
    pub(crate) names_messages: bool,
    pub(crate) place: Place,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) dice: Dice,
}

struct Outstanding {
    key: Key,
    packet_id: PacketId,
    /// PUBREC has come.
    received: bool,
}

/// Why a connection ended.
enum End {
    Lost,
    Chosen,
    Done,
}

/// Between two messages, ms.
const PACE_MS: (u64, u64) = (20, 120);
/// How long a connection is kept that nothing ends, ms.
const LIFE_MS: (u64, u64) = (1_000, 12_000);

impl Publisher {
    /// Until everything that it sent is acknowledged, after the load was stopped.
    pub(crate) async fn run(mut self) {
        let mut outstanding = VecDeque::new();
        let mut next_id = PacketId::FIRST;
        let mut had_session = false;
        let mut failures = 0;
        loop {
            if *self.phase.borrow() == Phase::Draining && outstanding.is_empty() {
                return;
            }
            let connected = Link::connect(&self.place, &self.login, self.version).await;
            let Some((mut link, present)) = connected else {
                back_off(&mut self.dice, &mut failures).await;
                continue;
            };
            failures = 0;
            if present == self.names_messages && (present || had_session) {
                self.ledger.complain(format!("publisher {}: session present: {present}", self.number));
            }
            had_session = true;
            self.send_again(&mut link, &mut outstanding, &mut next_id).await;
            match self.live(&mut link, &mut outstanding, &mut next_id).await {
                End::Done => return link.disconnect().await,
                End::Chosen if self.dice.one_in(2) => link.disconnect().await,
                End::Chosen | End::Lost => drop(link),
            }
            sleep(self.dice.millis(5, 200)).await;
        }
    }

    /// [MQTT-4.4.0-1]
    async fn send_again(
        &mut self,
        link: &mut Link,
        outstanding: &mut VecDeque<Outstanding>,
        next_id: &mut PacketId,
    ) {
        if self.names_messages {
            for index in 0..outstanding.len() {
                outstanding[index].packet_id = free_id(outstanding, next_id);
            }
        }
        for message in outstanding.iter() {
            if message.received {
                link.send(&Packet::PubRel(ack(message.packet_id))).await;
            } else {
                self.send(link, message, !self.names_messages).await;
            }
        }
    }

    async fn live(
        &mut self,
        link: &mut Link,
        outstanding: &mut VecDeque<Outstanding>,
        next_id: &mut PacketId,
    ) -> End {
        let end_of_life = sleep(self.dice.millis(LIFE_MS.0, LIFE_MS.1));
        tokio::pin!(end_of_life);
        let next_message = sleep(self.dice.millis(PACE_MS.0, PACE_MS.1));
        tokio::pin!(next_message);
        let mut running = *self.phase.borrow() == Phase::Running;
        loop {
            if !running && outstanding.is_empty() {
                return End::Done;
            }
            tokio::select! {
                heard = link.next() => {
                    if matches!(heard, Heard::Closed | Heard::Disconnect(_)) {
                        return End::Lost;
                    }
                    self.hear(heard, link, outstanding).await;
                }
                () = &mut next_message, if running && outstanding.len() < self.window => {
                    let topic = self.topics[self.dice.index(self.topics.len())];
                    let key = self.ledger.sending(self.number, topic, self.qos);
                    let packet_id = free_id(outstanding, next_id);
                    let message = Outstanding { key, packet_id, received: false };
                    self.send(link, &message, false).await;
                    outstanding.push_back(message);
                    let pause = self.dice.millis(PACE_MS.0, PACE_MS.1);
                    next_message.set(sleep(pause));
                }
                () = &mut end_of_life, if running => return End::Chosen,
                phase = changed(&mut self.phase) => running = phase == Phase::Running,
            }
        }
    }

    async fn hear(&self, heard: Heard, link: &mut Link, outstanding: &mut VecDeque<Outstanding>) {
        let (packet_id, reason, is_pubrec) = match heard {
            Heard::PubAck(packet_id, reason) => (packet_id, reason, false),
            Heard::PubRec(packet_id, reason) => (packet_id, reason, true),
            Heard::PubComp(packet_id) => {
                outstanding.retain(|message| message.packet_id != packet_id || !message.received);
                return;
            }
            other => return self.ledger.complain(format!("publisher {} heard {other:?}", self.number)),
        };
        // Answers come in the order of what they answer. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
        let first = outstanding.iter().position(|message| !message.received);
        let Some(at) = first.filter(|at| outstanding[*at].packet_id == packet_id) else {
            let number = self.number;
            return self
                .ledger
                .complain(format!("publisher {number}: an answer out of order, {packet_id:?}"));
        };
        if reason.is_error() || is_pubrec != (self.qos == QoS::ExactlyOnce) {
            self.ledger.complain(format!("publisher {}: PUBLISH was answered {reason:?}", self.number));
        }
        self.ledger.acknowledged(outstanding[at].key);
        if is_pubrec {
            outstanding[at].received = true;
            link.send(&Packet::PubRel(ack(packet_id))).await;
        } else {
            outstanding.remove(at);
        }
    }

    async fn send(&self, link: &mut Link, message: &Outstanding, dup: bool) {
        let (topic, qos) = self.ledger.topic_and_qos(message.key);
        let mut properties = PropertyBuf::new();
        let id = name(message.key).to_string();
        if self.names_messages {
            properties.push(Property::UserProperty("sotto-id", &id));
        }
        let payload = payload(message.key);
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic: self.ledger.topic(topic),
            packet_id: Some(message.packet_id),
            properties: properties.as_properties(),
            payload: &payload,
        };
        link.send(&Packet::Publish(publish)).await;
    }
}

/// The same whenever the message is sent.
fn name(key: Key) -> Uuid {
    let Key { publisher, sequence } = key;
    Uuid::from_u64_pair(mix(publisher as u64 + 1), mix(sequence as u64 + 1))
}

fn free_id(outstanding: &VecDeque<Outstanding>, next_id: &mut PacketId) -> PacketId {
    while outstanding.iter().any(|message| message.packet_id == *next_id) {
        *next_id = next_id.next();
    }
    let free = *next_id;
    *next_id = next_id.next();
    free
}

/// Waits longer after each failure in a row, up to a second or so.
pub(crate) async fn back_off(dice: &mut Dice, failures: &mut u32) {
    let ceiling_ms = (50 << (*failures).min(4)).max(60);
    *failures += 1;
    sleep(dice.millis(25, ceiling_ms)).await;
}
