//! A session that lasts for one message: publish to oneself, receive it, unsubscribe, disconnect.

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::encode::encode_publish;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Packet, Unsubscribe, UnsubscribeFilters};
use tokio::time::timeout;

use crate::client::{Client, ClientError, acknowledge};
use crate::connector::Connected;
use crate::latencies::Latencies;
use crate::payload::Stamp;
use crate::qos_number;
use crate::roster::SeatId;
use crate::run_clock::Micros;
use crate::script::Script;
use crate::template::Template;
use crate::worker::{Role, Session, Worker};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChurnPlan {
    pub(crate) topic: Template,
    #[serde(with = "qos_number")]
    pub(crate) qos: QoS,
    pub(crate) size_bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChurnTally {
    /// From PUBLISH to PUBACK.
    pub(crate) acknowledged: Latencies,
    /// From PUBLISH to its delivery.
    pub(crate) delivered: Latencies,
    pub(crate) unsuback: Latencies,
    /// From when the connection was due to UNSUBACK.
    pub(crate) whole: Latencies,
}

pub(crate) struct Churning {
    plan: ChurnPlan,
    payload: RefCell<Vec<u8>>,
    tally: RefCell<ChurnTally>,
}

impl Script for ChurnPlan {
    type Role = Churning;

    fn cast(self) -> impl Fn() -> Churning + Clone + Send + 'static {
        move || Churning::new(self.clone())
    }
}

impl Churning {
    pub(crate) fn new(plan: ChurnPlan) -> Self {
        let payload = (0..plan.size_bytes).map(|_| rand::random()).collect();
        Self { plan, payload: RefCell::new(payload), tally: RefCell::new(ChurnTally::new()) }
    }

    async fn cycle(
        self: Rc<Self>,
        worker: Rc<Worker>,
        number: u32,
        due: Micros,
        mut client: Client,
    ) -> Result<Client, ClientError> {
        let topic = worker.connector.expand(&self.plan.topic, number);
        let patience = worker.connector.timeout;
        let published = self.publish(&worker, number, &topic, &mut client);
        timeout(patience, published).await.map_err(|_| ClientError::Late("PUBACK and delivery"))??;
        let unsubscribed = self.unsubscribe(&worker, &topic, &mut client);
        timeout(patience, unsubscribed).await.map_err(|_| ClientError::Late("UNSUBACK"))??;
        self.tally.borrow_mut().whole.record(due, worker.now());
        Ok(client)
    }

    /// Until the message is acknowledged and has come back.
    async fn publish(
        &self,
        worker: &Worker,
        number: u32,
        topic: &str,
        client: &mut Client,
    ) -> Result<(), ClientError> {
        let (version, qos) = (client.version(), self.plan.qos);
        let begun = worker.now();
        let stamp = Stamp { run: worker.connector.run, publisher: number, sequence: 0, intended: begun };
        let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::FIRST);
        {
            let mut payload = self.payload.borrow_mut();
            stamp.write(&mut payload);
            encode_publish(version, false, qos, false, topic, packet_id, &[], &payload, client.out());
        }
        worker.counters().sent.add(1);
        let (mut is_acknowledged, mut is_delivered) = (packet_id.is_none(), false);
        if is_acknowledged {
            accept(worker);
        }
        client
            .exchange(|packet, out| {
                match packet {
                    Packet::PubAck(ack) if !is_acknowledged => {
                        if ack.reason.is_error() {
                            worker.counters().refused.add(1);
                            return Err(ClientError::Refused(ack.reason));
                        }
                        is_acknowledged = true;
                        self.tally.borrow_mut().acknowledged.record(begun, worker.now());
                        accept(worker);
                    }
                    Packet::Publish(publish) => {
                        acknowledge(&publish, version, out);
                        if !is_delivered && Stamp::read(publish.payload) == Some(stamp) {
                            is_delivered = true;
                            self.tally.borrow_mut().delivered.record(begun, worker.now());
                            worker.counters().delivered.add(1);
                        }
                    }
                    _ => return Err(ClientError::Unexpected("an answer")),
                }
                Ok((is_acknowledged && is_delivered).then_some(()))
            })
            .await
    }

    async fn unsubscribe(
        &self,
        worker: &Worker,
        topic: &str,
        client: &mut Client,
    ) -> Result<(), ClientError> {
        let (version, begun) = (client.version(), worker.now());
        let mut filters = Vec::new();
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: UnsubscribeFilters::encode(&[topic], &mut filters),
        };
        Packet::Unsubscribe(unsubscribe).encode(version, client.out());
        client
            .exchange(|packet, out| match packet {
                Packet::UnsubAck(_) => Ok(Some(())),
                // As at least once may.
                Packet::Publish(publish) => {
                    acknowledge(&publish, version, out);
                    Ok(None)
                }
                _ => Err(ClientError::Unexpected("an answer")),
            })
            .await?;
        self.tally.borrow_mut().unsuback.record(begun, worker.now());
        Ok(())
    }
}

fn accept(worker: &Worker) {
    worker.counters().accepted.add(1);
    worker.counters().expected.add(1);
}

impl Role for Churning {
    type Outcome = ChurnTally;

    fn filter(&self, client: u32, worker: &Worker) -> Option<(String, QoS)> {
        Some((worker.connector.expand(&self.plan.topic, client), self.plan.qos))
    }

    fn session(
        self: Rc<Self>,
        worker: &Rc<Worker>,
        client: u32,
        due: Micros,
        connected: Connected,
        _: SeatId,
    ) -> Session {
        Box::pin(self.cycle(Rc::clone(worker), client, due, connected.client))
    }

    async fn publish(&self, _: &Worker, _: Micros) {}

    fn sweep_wakes_all(&self) -> bool {
        false
    }

    /// Else a broker that falls behind would be given ever more connections.
    fn keeps_place(&self) -> bool {
        true
    }

    fn outcome(&self) -> ChurnTally {
        self.tally.replace(ChurnTally::new())
    }
}

impl ChurnTally {
    pub(crate) fn new() -> Self {
        Self {
            acknowledged: Latencies::new(),
            delivered: Latencies::new(),
            unsuback: Latencies::new(),
            whole: Latencies::new(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged.add(&other.acknowledged);
        self.delivered.add(&other.delivered);
        self.unsuback.add(&other.unsuback);
        self.whole.add(&other.whole);
    }
}
