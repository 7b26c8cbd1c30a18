//! One client's connection: a future that owns everything it touches.
//!
//! ```text
//! Arriving  TLS, then CONNECT, each under its deadline
//! Authenticating  AUTH to and fro, where CONNECT names a method
//! Opening   authenticate, take over, open the session
//! Live      the session machine between socket, log and mailbox
//! Ending    the last answers, the will, close_notify
//! ```
//!
//! It has no task beside its own, no channel, no timer while it is live, and no buffer while it is idle.

mod authenticating;
mod backlog;
mod ending;
mod lending;
mod lent;
mod live;
mod opening;
mod progress;
mod publishing;
mod receiving;
mod retained;
mod sending;
mod subscribing;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sotto_model::limits::CONNECT_PACKET_BYTES_MAX;
use sotto_model::{ClientLimits, Clock};
use sotto_mqtt::codec::{connect_version, decode};
use sotto_mqtt::handshake::{self, ConnectRequest, Refusal};
use sotto_mqtt::packet::{Packet, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::audit::{AuditAction, AuditEvent};

use crate::admission::{Arrival, Barred, Gone, Room, Stage};
use crate::connection::authenticating::{Authenticating, Step};
use crate::connection::ending::{Ending, Farewell};
use crate::connection::live::{Live, Resting, Turn};
use crate::connection::opening::{Opened, Refused, Shown, open};
use crate::connection_id::ConnectionId;
use crate::listener_name::ListenerName;
use crate::metrics;
use crate::services::Services;
use crate::transport::{Scratch, Transport, TransportError};

/// The User Property of a CONNACK that says how many seconds a client should stay away.
const RETRY_AFTER: &str = "sotto-retry-after";
const RETRY_AFTER_SECONDS_MIN: u32 = 5;
const RETRY_AFTER_SPREAD_SECONDS: u32 = 10;
/// Turns of one poll before other connections of the thread get theirs.
const TURNS_PER_POLL_MAX: u32 = 16;

pub(crate) struct Connection {
    transport: Transport,
    /// Plaintext not yet handled: an incomplete packet, or packets that must wait.
    input: Vec<u8>,
    listener: ListenerName,
    services: Arc<Services>,
    phase: Phase,
    /// One of the connections that the node may hold.
    room: Room,
}

enum Phase {
    Arriving(Box<Arrival>),
    Authenticating(Box<Greeting>),
    Opening(Box<Opening>),
    Live(Box<Live>),
    /// Live, with nothing under way. `None` only while it is looked after.
    Resting(Box<Option<Resting>>),
    Ending(Box<Ending>),
    Over,
}

/// Between CONNECT and CONNACK, with enhanced authentication.
struct Greeting {
    arrival: Box<Arrival>,
    client: Told,
    authenticating: Authenticating,
}

struct Opening {
    arrival: Box<Arrival>,
    client: Told,
    result: Pin<Box<dyn Future<Output = Result<Opened, Refused>> + Send>>,
}

/// What must be known of a client to refuse it.
#[derive(Clone, Copy)]
struct Told {
    version: Version,
    packet_bytes_max: u32,
}

/// Buffers that the connections of a thread share, one poll at a time.
pub(crate) struct Shared {
    pub(crate) scratch: Scratch,
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

/// A shared buffer that a burst made larger than this is given back.
const SHARED_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    static SHARED: RefCell<Shared> =
        RefCell::new(Shared { scratch: Scratch::new(), input: Vec::new(), output: Vec::new() });
}

impl Connection {
    pub(crate) fn new(
        transport: Transport,
        listener: ListenerName,
        arrival: Arrival,
        room: Room,
        services: Arc<Services>,
    ) -> Self {
        metrics::connection_opened(listener);
        Self {
            transport,
            input: Vec::new(),
            listener,
            services,
            phase: Phase::Arriving(Box::new(arrival)),
            room,
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>, shared: &mut Shared) -> Poll<()> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Arriving(arriving) => self.arrive(arriving, cx, shared),
            Phase::Authenticating(greeting) => self.authenticate(greeting, cx, shared),
            Phase::Opening(opening) => self.open(opening, cx, shared),
            Phase::Live(mut live) => match self.live(&mut live, cx, shared) {
                Turn::End(farewell) => self.end(*live, farewell, cx, shared),
                Turn::Wait if live.is_at_rest() => {
                    self.stay(Phase::Resting(Box::new(Some(live.rest()))), Poll::Pending)
                }
                Turn::Wait | Turn::Again => self.stay(Phase::Live(live), Poll::Pending),
            },
            Phase::Resting(mut place) => {
                let Some(resting) = place.take() else { return Poll::Ready(()) };
                let mut live = Live::wake(resting);
                match self.live(&mut live, cx, shared) {
                    Turn::End(farewell) => self.end(live, farewell, cx, shared),
                    Turn::Wait if live.is_at_rest() => {
                        *place = Some(live.rest());
                        self.stay(Phase::Resting(place), Poll::Pending)
                    }
                    Turn::Wait | Turn::Again => self.stay(Phase::Live(Box::new(live)), Poll::Pending),
                }
            }
            Phase::Ending(mut ending) => match ending.poll(&mut self.transport, cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => self.stay(Phase::Ending(ending), Poll::Pending),
            },
            Phase::Over => Poll::Ready(()),
        }
    }

    /// Turns for as long as something moves, and other connections of the thread can wait for theirs.
    fn live(&mut self, live: &mut Live, cx: &mut Context<'_>, shared: &mut Shared) -> Turn {
        for _ in 0..TURNS_PER_POLL_MAX {
            match live.turn(&mut self.transport, &mut self.input, cx, shared) {
                Turn::Again => {}
                over => return over,
            }
        }
        shared.shrink();
        cx.waker().wake_by_ref();
        Turn::Again
    }

    fn end(&mut self, live: Live, farewell: Farewell, cx: &mut Context<'_>, shared: &mut Shared) -> Poll<()> {
        metrics::disconnect(farewell.label());
        self.input = Vec::new();
        let ending = live.end(farewell, &mut self.transport, cx, shared);
        self.stay(Phase::Ending(Box::new(ending)), Poll::Ready(()))
    }

    fn stay(&mut self, phase: Phase, poll: Poll<()>) -> Poll<()> {
        self.phase = phase;
        poll
    }

    /// TLS and CONNECT. Returns `Pending` to wait, `Ready` to go on or, with the phase over, to end.
    fn arrive(&mut self, mut arrival: Box<Arrival>, cx: &mut Context<'_>, shared: &mut Shared) -> Poll<()> {
        if let Poll::Ready(gone) = arrival.poll_gone(cx) {
            metrics::disconnect(gone.as_str());
            return Poll::Ready(());
        }
        if self.transport.is_established() {
            if arrival.stage() == Stage::Tls {
                arrival.reach(Stage::Connect, self.services.clock.tenths());
            }
            match first_packet(&self.input, &self.services.limits) {
                First::Incomplete => {}
                First::NotMqtt => {
                    metrics::disconnect("not_mqtt");
                    return self.part();
                }
                First::Refused(client, reason) => {
                    return self.refuse(client, Refused::because(reason), cx, shared);
                }
                First::Connect(request, len) => {
                    self.input.drain(..len);
                    return self.receive_connect(*request, arrival, cx, shared);
                }
            }
        }
        if !self.transport.is_established() {
            // A step of the handshake, in its turn.
            match self.transport.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return lost_before_connect(&error),
                Poll::Pending => return self.stay(Phase::Arriving(arrival), Poll::Pending),
            }
            if arrival.poll_turn(cx).is_pending() {
                return self.stay(Phase::Arriving(arrival), Poll::Pending);
            }
        }
        match self.transport.poll_read(cx, &mut shared.scratch, &mut self.input) {
            Poll::Pending => self.stay(Phase::Arriving(arrival), Poll::Pending),
            Poll::Ready(Ok(())) => self.stay(Phase::Arriving(arrival), Poll::Ready(())),
            Poll::Ready(Err(error @ TransportError::WebSocket(_))) => {
                // It is told: by the answer to its request, or by a close code.
                let _ = lost_before_connect(&error);
                self.part()
            }
            Poll::Ready(Err(error)) => lost_before_connect(&error),
        }
    }

    /// Whoever may not come in is told so before it costs more.
    fn receive_connect(
        &mut self,
        mut request: ConnectRequest,
        mut arrival: Box<Arrival>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Poll<()> {
        let client = Told::of(&request);
        if let Some(reason) = self.room.turns_away() {
            return self.refuse(client, Refused::because(reason), cx, shared);
        }
        let now_tenths = self.services.clock.tenths();
        if let Some(barred) = self.room.is_barred(now_tenths) {
            return self.refuse_barred(client, barred, cx, shared);
        }
        let Some(authentication) = request.authentication.take() else {
            arrival.reach(Stage::Opening, now_tenths);
            return self.begin_opening(request, None, arrival);
        };
        arrival.reach(Stage::Exchange, now_tenths);
        shared.output.clear();
        let begun = Authenticating::begin(request, &authentication, &self.services, &mut shared.output);
        match begun {
            Ok(next) => self.send_auth(next, client, arrival, cx, shared),
            Err(reason) => self.refuse(client, Refused::because(reason), cx, shared),
        }
    }

    /// Of a window of failures one audit row says so.
    fn refuse_barred(
        &mut self,
        client: Told,
        barred: Barred,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Poll<()> {
        if barred.first {
            self.services.audit.record(AuditEvent {
                at: self.services.clock.unix_now(),
                tenant: None,
                actor: None,
                action: AuditAction::AddressBarred,
                resource: None,
                allowed: false,
            });
        }
        let refused =
            Refused { reason: ReasonCode::QuotaExceeded, retry_after_seconds: Some(barred.seconds) };
        self.refuse(client, refused, cx, shared)
    }

    /// What comes must be AUTH, or DISCONNECT. [MQTT-3.1.2-30]
    fn authenticate(
        &mut self,
        greeting: Box<Greeting>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Poll<()> {
        if let Poll::Ready(gone) = greeting.arrival.poll_gone(cx) {
            metrics::disconnect(gone.as_str());
            return Poll::Ready(());
        }
        if let Poll::Ready(Err(error)) = self.transport.poll_flush(cx) {
            return lost_before_connect(&error);
        }
        let input = std::mem::take(&mut self.input);
        match decode(&input, Version::V5, CONNECT_PACKET_BYTES_MAX) {
            Ok(None) => self.input = input,
            Ok(Some((Packet::Auth(auth), len))) => {
                let Greeting { mut arrival, client, authenticating } = *greeting;
                shared.output.clear();
                let step = authenticating.receive(&auth, &self.services, &mut shared.output);
                self.input.extend_from_slice(&input[len..]);
                return match step {
                    Ok(Step::On(next)) => self.send_auth(next, client, arrival, cx, shared),
                    Ok(Step::Shown(request, shown)) => {
                        arrival.reach(Stage::Opening, self.services.clock.tenths());
                        self.begin_opening(request, Some(Box::new(shown)), arrival)
                    }
                    Err(reason) => self.refuse(client, Refused::because(reason), cx, shared),
                };
            }
            Ok(Some((Packet::Disconnect(_), _))) => {
                metrics::disconnect("client_disconnect");
                let ending = Ending::without_session(&mut self.transport);
                return self.stay(Phase::Ending(Box::new(ending)), Poll::Ready(()));
            }
            Ok(Some(_)) => {
                return self.refuse(greeting.client, Refused::because(ReasonCode::ProtocolError), cx, shared);
            }
            Err(error) => {
                return self.refuse(greeting.client, Refused::because(error.reason), cx, shared);
            }
        }
        match self.transport.poll_read(cx, &mut shared.scratch, &mut self.input) {
            Poll::Pending => self.stay(Phase::Authenticating(greeting), Poll::Pending),
            Poll::Ready(Ok(())) => self.stay(Phase::Authenticating(greeting), Poll::Ready(())),
            Poll::Ready(Err(error)) => lost_before_connect(&error),
        }
    }

    /// Sends the AUTH that `authenticating` has written.
    fn send_auth(
        &mut self,
        authenticating: Authenticating,
        client: Told,
        arrival: Box<Arrival>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Poll<()> {
        match self.transport.write(cx, &mut shared.scratch, &shared.output) {
            Ok(()) => {
                let greeting = Greeting { arrival, client, authenticating };
                self.stay(Phase::Authenticating(Box::new(greeting)), Poll::Ready(()))
            }
            Err(error) => lost_before_connect(&error),
        }
    }

    fn begin_opening(
        &mut self,
        request: ConnectRequest,
        shown: Option<Box<Shown>>,
        arrival: Box<Arrival>,
    ) -> Poll<()> {
        let client = Told::of(&request);
        let result = Box::pin(open(self.services.clone(), ConnectionId::next(), request, shown));
        let opening = Opening { arrival, client, result };
        self.stay(Phase::Opening(Box::new(opening)), Poll::Ready(()))
    }

    fn open(&mut self, mut opening: Box<Opening>, cx: &mut Context<'_>, shared: &mut Shared) -> Poll<()> {
        let result = opening.result.as_mut().poll(cx);
        // A session ticket leaves with CONNACK, unless that is a while.
        if result.is_pending()
            && let Poll::Ready(Err(error)) = self.transport.poll_flush(cx)
        {
            return lost_before_connect(&error);
        }
        match result {
            Poll::Ready(Ok(opened)) => {
                metrics::connect(ReasonCode::Success);
                shared.output.clear();
                let live = Live::begin(opened, self.services.clone(), &mut shared.output);
                let written = self.transport.write(cx, &mut shared.scratch, &shared.output);
                let phase = if shared.output.is_empty() {
                    // The client takes no packet that is as large as its CONNACK.
                    let farewell = Farewell::Goodbye { publish_will: false };
                    Phase::Ending(Box::new(live.end(farewell, &mut self.transport, cx, shared)))
                } else if written.is_ok() {
                    Phase::Live(Box::new(live))
                } else {
                    let ending = live.end(Farewell::Lost, &mut self.transport, cx, shared);
                    Phase::Ending(Box::new(ending))
                };
                self.stay(phase, Poll::Ready(()))
            }
            Poll::Ready(Err(refused)) => self.refuse(opening.client, refused, cx, shared),
            Poll::Pending => match opening.arrival.poll_gone(cx) {
                Poll::Pending => self.stay(Phase::Opening(opening), Poll::Pending),
                Poll::Ready(Gone::TimedOut) => {
                    self.refuse(opening.client, Refused::because(ReasonCode::ServerBusy), cx, shared)
                }
                Poll::Ready(gone @ (Gone::GaveWay | Gone::Stopping)) => {
                    metrics::disconnect(gone.as_str());
                    Poll::Ready(())
                }
            },
        }
    }

    /// CONNACK with a failure, then close. [MQTT-3.1.4-2]
    fn refuse(
        &mut self,
        client: Told,
        refused: Refused,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Poll<()> {
        let Refused { reason, retry_after_seconds } = refused;
        metrics::connect(reason);
        if reason == ReasonCode::BadUserNameOrPassword {
            self.room.note_failed_login(self.services.clock.tenths());
        }
        let retry_after =
            retry_after_seconds.or_else(|| retry_after_seconds_for(reason, &*self.services.clock));
        let retry_after = retry_after.map(|seconds| seconds.to_string());
        let to = self.services.admission.sent_to();
        let refusal = Refusal {
            reason,
            server_reference: to.as_deref().filter(|_| reason == ReasonCode::UseAnotherServer),
            told: retry_after.as_deref().map(|seconds| (RETRY_AFTER, seconds)),
        };
        shared.output.clear();
        handshake::refused(client.version, refusal, client.packet_bytes_max, &mut shared.output);
        match self.transport.write(cx, &mut shared.scratch, &shared.output) {
            Ok(()) => self.part(),
            Err(error) => lost_before_connect(&error),
        }
    }

    /// Sends what is on its way, and closes.
    fn part(&mut self) -> Poll<()> {
        let ending = Ending::without_session(&mut self.transport);
        self.stay(Phase::Ending(Box::new(ending)), Poll::Ready(()))
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        SHARED.with_borrow_mut(|shared| {
            for _ in 0..TURNS_PER_POLL_MAX {
                match this.turn(cx, shared) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if matches!(this.phase, Phase::Over) => return Poll::Ready(()),
                    Poll::Ready(()) => {}
                }
            }
            shared.shrink();
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }
}

impl Told {
    fn of(request: &ConnectRequest) -> Self {
        let negotiated = &request.negotiated;
        Self { version: negotiated.version, packet_bytes_max: negotiated.packet_bytes_max }
    }
}

/// Spread, so that those who are refused together do not come back together.
fn retry_after_seconds_for(reason: ReasonCode, clock: &dyn Clock) -> Option<u32> {
    if !matches!(reason, ReasonCode::ServerBusy | ReasonCode::ServerUnavailable) {
        return None;
    }
    let spread = clock.draw() % u64::from(RETRY_AFTER_SPREAD_SECONDS);
    Some(RETRY_AFTER_SECONDS_MIN + u32::try_from(spread).expect("below the spread"))
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::connection_closed(self.listener);
    }
}

impl Shared {
    fn shrink(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.capacity() > SHARED_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
    }
}

enum First {
    Incomplete,
    /// Nothing that can be answered. [MQTT-3.1.0-1]
    NotMqtt,
    Refused(Told, ReasonCode),
    /// And how long the packet was.
    Connect(Box<ConnectRequest>, usize),
}

fn first_packet(input: &[u8], limits: &ClientLimits) -> First {
    match decode(input, Version::V5, CONNECT_PACKET_BYTES_MAX) {
        Ok(None) => First::Incomplete,
        Ok(Some((Packet::Connect(connect), len))) => match ConnectRequest::accept(&connect, limits) {
            Ok(request) => First::Connect(Box::new(request), len),
            Err(reason) => {
                First::Refused(Told { version: connect.version, packet_bytes_max: u32::MAX }, reason)
            }
        },
        Ok(Some(_)) => First::NotMqtt,
        Err(error) => match connect_version(input) {
            // Of 3.1.1 a CONNECT that breaks the rules is not answered, of version 5 one that cannot be read.
            // [MQTT-3.1.4-1]
            Some(Version::V3) if error.reason != ReasonCode::UnsupportedProtocolVersion => First::NotMqtt,
            Some(Version::V5) if error.reason == ReasonCode::MalformedPacket => First::NotMqtt,
            Some(version) => First::Refused(Told { version, packet_bytes_max: u32::MAX }, error.reason),
            None => First::NotMqtt,
        },
    }
}

fn lost_before_connect(error: &TransportError) -> Poll<()> {
    metrics::disconnect(match error {
        TransportError::Tls(_) => "tls_failure",
        TransportError::WebSocket(_) => "websocket_violation",
        TransportError::Closed | TransportError::Io(_) => "lost_before_connect",
    });
    Poll::Ready(())
}
