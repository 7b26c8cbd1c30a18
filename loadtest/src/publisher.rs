//! A session that publishes numbered messages.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::encode::encode_publish;
use sotto_mqtt::codec::properties::{Properties, PropertyBuf};
use sotto_mqtt::codec::property::Property;
use sotto_mqtt::packet::{Ack, Packet, Version};
use sotto_mqtt::reason::ReasonCode;

use crate::client::{Client, ClientError, Pass};
use crate::connector::Connected;
use crate::credit::Outstanding;
use crate::inflight::{Inflight, InflightMessage};
use crate::interval::Kind;
use crate::ledger::Published;
use crate::limits::CREDIT_TIMEOUT;
use crate::payload::Stamp;
use crate::roster::{Orders, Phase, SeatId};
use crate::run_clock::Micros;
use crate::sequence_set::SequenceSet;
use crate::stored::publication_id;
use crate::traffic::{Pacing, Traffic, TrafficPlan};
use crate::worker::Worker;

/// The user property under which Sotto takes a message's name.
const PUBLICATION_ID: &str = "sotto-id";

pub(crate) struct Publisher {
    seat: SeatId,
    /// Until it is given back.
    client: Option<Client>,
    state: State,
}

struct State {
    traffic: Rc<Traffic>,
    worker: Rc<Worker>,
    number: u32,
    topic: String,
    /// Of every PUBLISH, encoded.
    properties: PropertyBuf,
    /// Deliveries that one message should become.
    fan_out: u64,
    /// Sequence number of the next message.
    next: u32,
    inflight: Inflight,
    accepted: SequenceSet,
    /// Of QoS 0 in a closed loop.
    outstanding: Outstanding,
    deliveries_seen: u64,
    delivery_seen_at: Micros,
}

impl Publisher {
    pub(crate) fn new(
        traffic: Rc<Traffic>,
        worker: Rc<Worker>,
        seat: SeatId,
        connected: Connected,
        number: u32,
    ) -> Self {
        let plan = &traffic.plan;
        let topic = plan.layout.topic_of(number);
        let window = plan.window.unwrap_or(u16::MAX).min(connected.receive_maximum);
        let fan_out = u64::from(plan.layout.fan_out(topic));
        let state = State {
            topic: plan.topic(topic, &worker.connector),
            properties: properties(plan),
            traffic,
            worker,
            number,
            fan_out,
            next: 0,
            // [MQTT-3.3.4-7]
            inflight: Inflight::new(window),
            accepted: SequenceSet::default(),
            outstanding: Outstanding::new(fan_out),
            deliveries_seen: 0,
            delivery_seen_at: Micros::default(),
        };
        Self { seat, client: Some(connected.client), state }
    }
}

impl Future for Publisher {
    type Output = Result<Client, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { seat, client: slot, state } = self.get_mut();
        let mut client = slot.take().expect("not polled after it was ready");
        let orders = state.worker.roster.attend(*seat, cx);
        if orders.phase == Phase::Stopping {
            return Poll::Ready(Ok(client));
        }
        let polled = state.poll_traffic(&mut client, cx, orders);
        *slot = Some(client);
        polled
    }
}

impl State {
    /// Pending, or why the session has ended.
    fn poll_traffic(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
        orders: Orders,
    ) -> Poll<Result<Client, ClientError>> {
        if orders.must_ping {
            client.ping()?;
        }
        let version = client.version();
        loop {
            let received = client.receive(cx, |packet, out| self.handle(&packet, version, out))?;
            let published = self.publish_what_is_due(client, cx, orders);
            ready!(client.poll_flush(cx))?;
            if received == Pass::Drained && published == Pass::Drained {
                return Poll::Pending;
            }
        }
    }

    fn handle(
        &mut self,
        packet: &Packet<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<ControlFlow<()>, ClientError> {
        match packet {
            Packet::PubAck(ack) if self.traffic.plan.qos == QoS::AtLeastOnce => self.settle(ack)?,
            Packet::PubRec(ack) if ack.reason.is_error() => self.settle(ack)?,
            Packet::PubRec(ack) => {
                let message = self.inflight.find(ack.packet_id);
                message.ok_or(ClientError::Unexpected("PUBREC"))?.released = true;
                // [MQTT-4.3.3-4]
                let pubrel = Ack {
                    packet_id: ack.packet_id,
                    reason: ReasonCode::Success,
                    properties: Properties::EMPTY,
                };
                Packet::PubRel(pubrel).encode(version, out);
            }
            Packet::PubComp(ack) if self.inflight.find(ack.packet_id).is_some_and(|m| m.released) => {
                self.settle(ack)?;
            }
            _ => return Err(ClientError::Unexpected("an answer")),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A message is done: accepted, or refused.
    fn settle(&mut self, ack: &Ack<'_>) -> Result<(), ClientError> {
        let message = self.inflight.remove(ack.packet_id);
        let message = message.ok_or(ClientError::Unexpected("an acknowledgement"))?;
        if ack.reason.is_error() {
            self.worker.counters().refused.add(1);
            return Ok(());
        }
        let now = self.worker.now();
        self.traffic.tally.borrow_mut().acknowledged.record(message.intended, now);
        self.worker.intervals.record(Kind::Acknowledged, message.intended, now);
        self.accept(message.sequence);
        Ok(())
    }

    fn accept(&mut self, sequence: u32) {
        self.accepted.insert(sequence);
        let counters = self.worker.counters();
        counters.accepted.add(1);
        counters.expected.add(self.fan_out);
    }

    fn publish_what_is_due(&mut self, client: &mut Client, cx: &mut Context<'_>, orders: Orders) -> Pass {
        let Phase::Publishing(start) = orders.phase else { return Pass::Drained };
        while self.may_publish(cx, orders.due) {
            if client.is_congested() {
                return Pass::Stopped;
            }
            self.publish(client, start);
        }
        Pass::Drained
    }

    fn may_publish(&mut self, cx: &mut Context<'_>, due: u64) -> bool {
        // The last sequence number of all is left unused, so that the next one exists.
        if self.next == u32::MAX || self.inflight.is_full() {
            return false;
        }
        let qos = self.traffic.plan.qos;
        match &self.traffic.plan.pacing {
            Pacing::Open(_) => u64::from(self.next) < due,
            Pacing::Closed { .. } if qos != QoS::AtMostOnce => true,
            Pacing::Closed { window } => {
                let credits = &self.traffic.common.credits;
                let deliveries = credits[self.number as usize].deliveries(cx.waker());
                let now = self.worker.now();
                if self.outstanding.count(deliveries) < u64::from(*window) {
                    self.deliveries_seen = deliveries;
                    self.delivery_seen_at = now;
                    return true;
                }
                if self.deliveries_seen != deliveries {
                    self.deliveries_seen = deliveries;
                    self.delivery_seen_at = now;
                }
                let given_up = now.since(self.delivery_seen_at) >= CREDIT_TIMEOUT;
                if given_up {
                    self.outstanding.forgive(deliveries);
                }
                given_up
            }
        }
    }

    fn publish(&mut self, client: &mut Client, start: Micros) {
        let traffic = Rc::clone(&self.traffic);
        let plan = &traffic.plan;
        let now = self.worker.now();
        let sequence = self.next;
        self.next += 1;
        let intended = match &plan.pacing {
            Pacing::Open(schedule) => Micros(start.0 + schedule.due(self.number, sequence.into()).0),
            // It became due when the window opened.
            Pacing::Closed { .. } => now,
        };
        let packet_id = self.packet_id(plan.qos, sequence, intended);
        let mut payload = traffic.payload.borrow_mut();
        Stamp { run: plan.run, publisher: self.number, sequence, intended }.write(&mut payload);
        let version = client.version();
        let mut name = PropertyBuf::new();
        if plan.named {
            let id = publication_id(plan.run, self.number, sequence).to_string();
            name.push(Property::UserProperty(PUBLICATION_ID, &id));
        }
        encode_publish(
            version,
            false,
            plan.qos,
            plan.retain,
            &self.topic,
            packet_id,
            &[self.properties.as_properties().as_bytes(), name.as_properties().as_bytes()],
            &payload,
            client.out(),
        );
        traffic.tally.borrow_mut().held_up.record(intended, now);
        self.worker.counters().sent.add(1);
        if packet_id.is_none() {
            self.outstanding.add_sent();
            self.accept(sequence);
        }
    }

    fn packet_id(&mut self, qos: QoS, sequence: u32, intended: Micros) -> Option<PacketId> {
        if qos == QoS::AtMostOnce {
            return None;
        }
        let message = InflightMessage { sequence, intended, released: false };
        Some(self.inflight.insert(message).expect("asked before whether there is room"))
    }
}

fn properties(plan: &TrafficPlan) -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    if let Some(seconds) = plan.message_expiry_seconds {
        properties.push(Property::MessageExpiryInterval(seconds));
    }
    properties
}

impl Drop for State {
    /// Whatever ended the session, what it has done counts.
    fn drop(&mut self) {
        let accepted = std::mem::take(&mut self.accepted);
        self.traffic.tally.borrow_mut().published.push(Published {
            publisher: self.number,
            sent: self.next,
            accepted,
        });
    }
}
