//! The end of a connection: the last answers, the will, the session's progress, close_notify.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::Clock;
use sotto_mqtt::handshake::Will;
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::{Session, Violation};
use sotto_storage::session_store::SessionOp;
use sotto_storage::wills::WillEnd;
use tokio::time::Sleep;

use crate::connection::opening::Owned;
use crate::connection::progress::progress;
use crate::connection_id::ConnectionId;
use crate::publishing::{Publication, Published, Stall};
use crate::services::Services;
use crate::session_entry::Command;
use crate::transport::Transport;

/// How long the last commits and the peer's socket are waited for. Of a session that is kept, the commits of
/// QoS 2 messages are waited for as long as it takes.
const ENDING_MAX: Duration = Duration::from_secs(8);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// DISCONNECT from the client.
    Goodbye {
        publish_will: bool,
    },
    /// The socket failed, or closed without DISCONNECT.
    Lost,
    TlsFailure,
    /// Told by the WebSocket's close code.
    WebSocketViolation,
    /// The client broke the protocol. [MQTT-4.13.1-1]
    Violation(Violation),
    /// The client cannot be served.
    Refused(ReasonCode),
    Commanded(Command),
    /// The stored session belongs to a newer generation.
    Fenced,
}

impl Farewell {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Goodbye { .. } => "client_disconnect",
            Self::Lost => "lost",
            Self::TlsFailure => "tls_failure",
            Self::WebSocketViolation => "websocket_violation",
            Self::Violation(violation) => violation.reason.as_str(),
            Self::Refused(reason) => reason.as_str(),
            Self::Commanded(command) => command.reason().as_str(),
            Self::Fenced => "session_taken_over",
        }
    }

    /// What the client is told.
    pub(crate) fn disconnect_reason(self) -> Option<ReasonCode> {
        match self {
            Self::Goodbye { .. } | Self::Lost | Self::TlsFailure | Self::WebSocketViolation => None,
            Self::Violation(violation) => Some(violation.reason),
            Self::Refused(reason) => Some(reason),
            Self::Commanded(command) => Some(command.reason()),
            Self::Fenced => Some(ReasonCode::SessionTakenOver),
        }
    }

    /// In words, for whoever writes the client: never of what a packet held.
    pub(crate) fn why(self) -> Option<&'static str> {
        match self {
            Self::Violation(violation) => Some(violation.what),
            _ => None,
        }
    }

    /// [MQTT-3.1.2-8]
    pub(crate) fn publishes_will(self) -> bool {
        match self {
            Self::Goodbye { publish_will } => publish_will,
            // The user may not publish any more.
            Self::Commanded(Command::Revoked) => false,
            Self::Lost
            | Self::TlsFailure
            | Self::WebSocketViolation
            | Self::Violation(_)
            | Self::Refused(_)
            | Self::Commanded(_)
            | Self::Fenced => true,
        }
    }
}

pub(crate) struct Ending {
    give_up: Pin<Box<Sleep>>,
    session: Option<EndingSession>,
    socket_done: bool,
}

struct EndingSession {
    owned: Owned,
    session: Session,
    connection: ConnectionId,
    services: Arc<Services>,
    will: Option<Box<Publication>>,
    /// What becomes of the will that is kept with the session.
    will_end: Option<WillEnd>,
    warming: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Nothing of the log was waiting to be sent but what the mailbox holds.
    caught_up: bool,
}

impl Ending {
    pub(crate) fn new(
        owned: Owned,
        session: Session,
        connection: ConnectionId,
        services: Arc<Services>,
        will: Option<Box<Will>>,
        caught_up: bool,
        transport: &mut Transport,
    ) -> Self {
        let kept = owned.kept_will.filter(|_| owned.entry.stored().is_some());
        let will_end = kept.map(|_| if will.is_some() { WillEnd::Due } else { WillEnd::Forgotten });
        let outlives = session.negotiated().session_expiry_seconds > 0;
        // What is to wait is kept, and found when it is due. [MQTT-3.1.3-9]
        let will =
            will.filter(|will| kept.is_none() || !outlives || will.delay_seconds == 0).and_then(|will| {
                Publication::of_will(*will, &owned.entry, &*services.clock, kept).ok().map(Box::new)
            });
        // From here on the sweep has no say: this phase has a deadline of its own.
        owned.entry.set_deadline_tenths(0);
        let warming = None;
        let ending =
            EndingSession { owned, session, connection, services, will, will_end, warming, caught_up };
        Self { session: Some(ending), ..Self::without_session(transport) }
    }

    pub(crate) fn without_session(transport: &mut Transport) -> Self {
        transport.close_notify();
        Self { give_up: Box::pin(tokio::time::sleep(ENDING_MAX)), session: None, socket_done: false }
    }

    pub(crate) fn poll(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<()> {
        let given_up = self.give_up.as_mut().poll(cx).is_ready();
        if let Some(ending) = &mut self.session
            && (ending.poll(cx).is_ready() || given_up && ending.may_be_left())
            && let Some(ending) = self.session.take()
        {
            ending.close();
        }
        self.socket_done |= given_up;
        if !self.socket_done {
            self.socket_done = match transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => transport.poll_shutdown(cx).is_ready(),
                Poll::Ready(Err(_)) => true,
                Poll::Pending => false,
            };
        }
        if self.session.is_none() && self.socket_done { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl EndingSession {
    /// Ready when the will is on its way and every PUBLISH received has been decided, so that what is kept
    /// of the session knows all of them.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let entry = &self.owned.entry;
        entry.register_waker(cx.waker());
        let post = entry.take_post();
        let mut unsent = Vec::new();
        for (packet_id, outcome) in post.decided {
            self.session.publish_decided(packet_id, outcome, &mut unsent);
        }
        if let Some(warming) = &mut self.warming {
            if warming.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.warming = None;
        }
        if let Some(will) = self.will.take() {
            match self.services.publish(entry, self.connection, *will, !self.session.is_answered()) {
                Published::Stalled(will, stall) => {
                    self.will = Some(will);
                    let again = match stall {
                        Stall::Budget => self.services.commits.wait_for_room(self.connection, entry),
                        Stall::Key(request) => {
                            let services = self.services.clone();
                            self.warming = Some(Box::pin(async move { services.warm(request).await }));
                            true
                        }
                    };
                    if again {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
                Published::Decided(_) | Published::Denied => {
                    self.will_end = self.will_end.map(|_| WillEnd::Forgotten);
                }
                // The commit removes what is kept of it; without one it stays due.
                Published::Submitted | Published::Closed => {}
            }
        }
        if self.session.is_answered() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Would the next connection's client be answered as if this one were done? Not while a QoS 2 message is
    /// on its way into the store: taken up before it is there, the session would not know its packet
    /// identifier, and take it once more. [MQTT-4.3.3-10]
    fn may_be_left(&self) -> bool {
        let outlives = self.session.negotiated().session_expiry_seconds > 0;
        let is_kept = self.owned.entry.is_stored() && outlives;
        !(is_kept && self.session.is_deciding_exactly_once())
    }

    /// Keeps what is to be kept, and lets go of the session.
    fn close(self) {
        let entry = &self.owned.entry;
        let Some(session) = entry.stored() else { return };
        // Read before the mailbox is: all that was handed out up to here is in the mailbox or was sent.
        let delivered = self.services.tail.log(entry.principal.tenant).delivered();
        let sent = self.session.sent();
        let cursor = if self.caught_up && entry.is_drained() { sent.max(delivered) } else { sent };
        let expiry_seconds = self.session.negotiated().session_expiry_seconds;
        let close = SessionOp::Close {
            session,
            progress: Box::new(progress(&self.session, cursor)),
            expiry_seconds,
            will: self.will_end,
            now: self.services.clock.unix_now(),
        };
        if self.services.sessions.submit(close).is_err() {
            // The session stays marked as connected, and is put right at the next start or CONNECT.
            tracing::error!(event = "session_close_lost", "a session's progress found no room to be written");
        }
        if expiry_seconds == 0 {
            entry.set_stored(None);
        }
    }
}
