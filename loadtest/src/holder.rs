//! A session that is only held: it pings, and acknowledges what comes.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use sotto_model::QoS;
use sotto_mqtt::packet::Packet;

use crate::client::{Client, ClientError, Pass, acknowledge, complete};
use crate::connector::Connected;
use crate::roster::{Phase, SeatId};
use crate::run_clock::Micros;
use crate::script::Script;
use crate::subscription::Subscription;
use crate::worker::{Role, Session, Worker};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holding {
    pub(crate) subscribe: Option<Subscription>,
}

impl Script for Holding {
    type Role = Self;

    fn cast(self) -> impl Fn() -> Self + Clone + Send + 'static {
        move || self.clone()
    }
}

impl Role for Holding {
    type Outcome = ();

    fn filter(&self, client: u32, worker: &Worker) -> Option<(String, QoS)> {
        let Subscription { filter, qos } = self.subscribe.as_ref()?;
        Some((worker.connector.expand(filter, client), *qos))
    }

    fn session(
        self: Rc<Self>,
        worker: &Rc<Worker>,
        _: u32,
        _: Micros,
        connected: Connected,
        seat: SeatId,
    ) -> Session {
        Box::pin(Holder::new(worker, connected, seat))
    }

    async fn publish(&self, _: &Worker, _: Micros) {}

    fn sweep_wakes_all(&self) -> bool {
        false
    }

    fn outcome(&self) {}
}

pub(crate) struct Holder {
    worker: Rc<Worker>,
    seat: SeatId,
    /// In which it connected.
    round: u32,
    /// Until it is given back.
    client: Option<Client>,
}

impl Holder {
    pub(crate) fn new(worker: &Rc<Worker>, connected: Connected, seat: SeatId) -> Self {
        let round = worker.roster.cut().round;
        Self { worker: Rc::clone(worker), seat, round, client: Some(connected.client) }
    }
}

impl Future for Holder {
    type Output = Result<Client, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut client = self.client.take().expect("not polled after it was ready");
        let orders = self.worker.roster.attend(self.seat, cx);
        let is_over = match orders.phase {
            Phase::Stopping => true,
            Phase::Cut(cut) => cut.round > self.round,
            _ => false,
        };
        if is_over {
            return Poll::Ready(Ok(client));
        }
        let held = poll_held(&mut client, cx, orders.must_ping);
        self.client = Some(client);
        held
    }
}

/// Pending, or why the session has ended.
fn poll_held(
    client: &mut Client,
    cx: &mut Context<'_>,
    must_ping: bool,
) -> Poll<Result<Client, ClientError>> {
    if must_ping {
        client.ping()?;
    }
    let version = client.version();
    loop {
        let received = client.receive(cx, |packet, out| {
            match packet {
                Packet::Publish(publish) => acknowledge(&publish, version, out),
                Packet::PubRel(pubrel) => complete(&pubrel, version, out),
                _ => return Err(ClientError::Unexpected("an answer")),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        ready!(client.poll_flush(cx))?;
        if received == Pass::Drained {
            client.free_buffers();
            return Poll::Pending;
        }
    }
}
