//! A session that receives numbered messages and counts them.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sotto_model::QoS;
use sotto_mqtt::packet::{Packet, Publish, Version};

use crate::client::{Client, ClientError, Pass, acknowledge, complete};
use crate::connector::Connected;
use crate::interval::Kind;
use crate::ledger::{Arrival, Received};
use crate::payload::Stamp;
use crate::roster::{Phase, SeatId};
use crate::traffic::{Pacing, Traffic};
use crate::worker::Worker;

pub(crate) struct Subscriber {
    seat: SeatId,
    /// Until it is given back.
    client: Option<Client>,
    state: State,
}

struct State {
    traffic: Rc<Traffic>,
    worker: Rc<Worker>,
    /// Until the session ends.
    received: Option<Received>,
}

impl Subscriber {
    pub(crate) fn new(
        traffic: Rc<Traffic>,
        worker: Rc<Worker>,
        seat: SeatId,
        connected: Connected,
        number: u32,
    ) -> Self {
        let plan = &traffic.plan;
        let shared = traffic.common.shared.as_ref().map(Arc::clone);
        let received = Received::new(plan.layout, plan.run, number, shared);
        let state = State { traffic, worker, received: Some(received) };
        Self { seat, client: Some(connected.client), state }
    }
}

impl Future for Subscriber {
    type Output = Result<Client, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { seat, client: slot, state } = self.get_mut();
        let mut client = slot.take().expect("not polled after it was ready");
        let orders = state.worker.roster.attend(*seat, cx);
        if orders.phase == Phase::Stopping {
            return Poll::Ready(Ok(client));
        }
        let polled = state.poll_traffic(&mut client, cx, orders.must_ping);
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
        must_ping: bool,
    ) -> Poll<Result<Client, ClientError>> {
        if must_ping {
            client.ping()?;
        }
        let version = client.version();
        loop {
            let received = client.receive(cx, |packet, out| self.handle(&packet, version, out))?;
            ready!(client.poll_flush(cx))?;
            if received == Pass::Drained {
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
            Packet::Publish(publish) => {
                self.count(publish);
                acknowledge(publish, version, out);
            }
            Packet::PubRel(pubrel) => complete(pubrel, version, out),
            _ => return Err(ClientError::Unexpected("an answer")),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn count(&mut self, publish: &Publish<'_>) {
        let received = self.received.as_mut().expect("there until the session ends");
        let stamp = Stamp::read(publish.payload);
        if let (Arrival::New, Some(stamp)) = (received.count(stamp), stamp) {
            let plan = &self.traffic.plan;
            let now = self.worker.now();
            let mut tally = self.traffic.tally.borrow_mut();
            tally.delivered.record(stamp.intended, now);
            tally.last_delivery = now;
            drop(tally);
            self.worker.intervals.record(Kind::Delivered, stamp.intended, now);
            self.worker.counters().delivered.add(1);
            if let (QoS::AtMostOnce, Pacing::Closed { .. }) = (plan.qos, &plan.pacing) {
                self.traffic.common.credits[stamp.publisher as usize].add_delivery();
            }
        }
    }
}

impl Drop for State {
    /// Whatever ended the session, what it has received counts.
    fn drop(&mut self) {
        let received = self.received.take();
        self.traffic.tally.borrow_mut().received.extend(received);
    }
}
