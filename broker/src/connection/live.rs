//! A connection whose session is open: the one loop that drives the session machine.
//!
//! Input is handled in `receiving` and `publishing`, output in `sending`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sotto_auth::ScramLogin;
use sotto_model::{PacketId, TopicPolicy};
use sotto_mqtt::handshake::Welcome;
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::Session;
use sotto_storage::session_store::SessionOp;
use tokio::sync::oneshot;

use crate::connection::Shared;
use crate::connection::backlog::{Backlog, Pace};
use crate::connection::ending::{Ending, Farewell};
use crate::connection::lent::Lent;
use crate::connection::opening::{Opened, Owned};
use crate::connection::progress::progress;
use crate::connection::subscribing::{Fenced, Subscribed, Unsubscribed};
use crate::connection_id::ConnectionId;
use crate::publishing::Publication;
use crate::services::Services;
use crate::session_entry::Command;
use crate::transport::Transport;

/// Bytes of packets gathered for one write.
pub(super) const WRITE_BYTES_MAX: usize = 64 * 1024;
/// A client that takes nothing of what is sent to it for this long is given up.
const WRITE_STALL_SECONDS: u32 = 30;
/// Progress is kept no more often than this; the sweep sees to it that it is kept at all.
const SAVE_AFTER_SECONDS: u32 = 2;
/// A client that is sent away is given so long to be answered: a store may be away.
const ANSWERS_SECONDS_MAX: u32 = 3;
/// Of a second.
const TENTHS: u32 = 10;
/// What a turn came to.
pub(crate) enum Turn {
    /// Something moved: there may be more to do.
    Again,
    Wait,
    End(Farewell),
}

/// The node sends its clients away.
#[derive(Clone, Copy)]
pub(super) struct Leaving {
    command: Command,
    since_seconds: u32,
}

/// Something that input must wait for.
pub(super) enum Work {
    Subscribed(Result<Subscribed, Fenced>),
    Unsubscribed(Result<Unsubscribed, Fenced>),
    /// A key was fetched, or could not be.
    Warmed,
    /// What the device asked for was done or refused.
    Asked {
        packet_id: Option<PacketId>,
        outcome: ReasonCode,
    },
}

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) struct Live {
    pub(super) owned: Owned,
    pub(super) session: Session,
    pub(super) connection: ConnectionId,
    pub(super) services: Arc<Services>,
    pub(super) work: Option<BoxFuture<Work>>,
    /// PUBREL packets being made durable, and those that came meanwhile.
    pub(super) release: Option<BoxFuture<Result<Vec<PacketId>, Fenced>>>,
    pub(super) to_release: Vec<PacketId>,
    /// QoS 2 messages whose sending or release is being made durable.
    pub(super) keeping: Option<BoxFuture<Result<Vec<PacketId>, Fenced>>>,
    /// A PUBLISH that must wait, with all input behind it.
    pub(super) stalled: Option<Box<Publication>>,
    /// The last message that is retained, or of QoS 0 behind such a one: resolves when the store has decided.
    pub(super) committing: Option<oneshot::Receiver<()>>,
    pub(super) backlog: Backlog,
    pub(super) lent: Vec<Lent>,
    /// An authentication that the client began anew.
    pub(super) login: Option<Box<ScramLogin>>,
    pub(super) last_packet_tenths: u32,
    /// Since when the socket has taken nothing of what is kept for it.
    pub(super) blocked_since_seconds: Option<u32>,
    pub(super) was_paused: bool,
    /// Nothing more is read: it ends once what was read is answered.
    pub(super) leaving: Option<Leaving>,
    pub(super) last_saved_seconds: u32,
}

/// A connection with nothing under way: what a phone's is but for moments. It is a quarter of the size.
pub(crate) struct Resting {
    owned: Owned,
    session: sotto_mqtt::session::Resting,
    services: Arc<Services>,
    last_packet_tenths: u32,
    last_saved_seconds: u32,
}

/// The User Property of a CONNACK that says at which offset history starts, to a session that comes too late.
const HISTORY_FROM: &str = "sotto-history-from";

impl Live {
    /// Begins with CONNACK in `out`, or with nothing when the client takes none.
    pub(crate) fn begin(opened: Opened, services: Arc<Services>, out: &mut Vec<u8>) -> Self {
        let Opened {
            owned,
            mut session,
            present,
            assigned_client_id,
            authentication_data,
            inflight,
            history,
        } = opened;
        let principal = &owned.entry.principal;
        let inbox = (principal.topics == TopicPolicy::Membership).then(|| format!("u/{}/", principal.user));
        let history_from = history.map(|start| start.first_held().0.to_string());
        let welcome = Welcome {
            session_present: present,
            assigned_client_id: assigned_client_id.as_deref(),
            response_information: inbox.as_deref(),
            authentication_data: &authentication_data,
            told: history_from.as_deref().map(|from| (HISTORY_FROM, from)),
        };
        session.negotiated().accepted(welcome, out);
        if !out.is_empty() {
            session.resend_releases(out);
        }
        if owned.entry.is_stored() {
            session.keep_exactly_once();
        }
        owned.entry.go_live(present);
        services.router.set_connected(&owned.entry, true);
        let pace = if present { Pace::Behind } else { Pace::Live };
        let (tenths, seconds) = (services.clock.tenths(), services.clock.seconds());
        Self::new(owned, session, services, tenths, seconds, Backlog::new(pace, inflight))
    }

    pub(crate) fn turn(
        &mut self,
        transport: &mut Transport,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Turn {
        let unsent_bytes = transport.unsent_bytes();
        let blocked = match transport.poll_flush(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(_)) => return Turn::End(Farewell::Lost),
            Poll::Pending => true,
        };
        if transport.unsent_bytes() < unsent_bytes {
            // Slow is not stalled.
            self.blocked_since_seconds = None;
        }
        let mut output = std::mem::take(&mut shared.output);
        output.clear();
        let turn = self.exchange(transport, input, blocked, cx, shared, &mut output);
        let written =
            if output.is_empty() { Ok(()) } else { transport.write(cx, &mut shared.scratch, &output) };
        shared.output = output;
        if written.is_err() {
            return Turn::End(Farewell::Lost);
        }
        if matches!(turn, Turn::Wait) {
            self.settle();
        }
        self.set_deadline(transport);
        turn
    }

    /// Nothing is under way, so that the connection can [`rest`](Live::rest).
    pub(crate) fn is_at_rest(&mut self) -> bool {
        self.leaving.is_none()
            && self.session.is_at_rest()
            && self.backlog.is_empty()
            && self.work.is_none()
            && self.release.is_none()
            && self.to_release.is_empty()
            && self.keeping.is_none()
            && self.stalled.is_none()
            && !self.is_committing()
            && self.lent.is_empty()
            && self.login.is_none()
            && self.blocked_since_seconds.is_none()
            && !self.was_paused
    }

    /// Only of one that is at rest.
    pub(crate) fn rest(self) -> Resting {
        Resting {
            owned: self.owned,
            session: self.session.rest(),
            services: self.services,
            last_packet_tenths: self.last_packet_tenths,
            last_saved_seconds: self.last_saved_seconds,
        }
    }

    /// The connection as it went to rest.
    pub(crate) fn wake(resting: Resting) -> Self {
        let Resting { owned, session, services, last_packet_tenths, last_saved_seconds } = resting;
        Self::new(
            owned,
            Session::wake(session),
            services,
            last_packet_tenths,
            last_saved_seconds,
            Backlog::none(),
        )
    }

    fn new(
        owned: Owned,
        session: Session,
        services: Arc<Services>,
        last_packet_tenths: u32,
        last_saved_seconds: u32,
        backlog: Backlog,
    ) -> Self {
        Self {
            connection: owned.connection,
            owned,
            session,
            services,
            work: None,
            release: None,
            to_release: Vec::new(),
            keeping: None,
            stalled: None,
            committing: None,
            backlog,
            lent: Vec::new(),
            login: None,
            last_packet_tenths,
            blocked_since_seconds: None,
            was_paused: false,
            leaving: None,
            last_saved_seconds,
        }
    }

    /// Ends the session's part: what is left is for `Ending` to see through.
    pub(crate) fn end(
        mut self,
        farewell: Farewell,
        transport: &mut Transport,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Ending {
        if let Some(reason) = farewell.disconnect_reason() {
            shared.output.clear();
            let to =
                (reason == ReasonCode::UseAnotherServer).then(|| self.services.admission.sent_to()).flatten();
            self.session.disconnect(reason, farewell.why(), to.as_deref(), &mut shared.output);
            // A peer that is gone misses nothing.
            let _ = transport.write(cx, &mut shared.scratch, &shared.output);
        }
        // Nobody will decide what was not handed over.
        if let Some(packet_id) = self.stalled.take().and_then(|publication| publication.packet_id()) {
            self.session.publish_abandoned(packet_id);
        }
        self.end_lending();
        let will = if farewell.publishes_will() { self.session.take_will() } else { None };
        let caught_up = self.backlog.is_caught_up();
        Ending::new(self.owned, self.session, self.connection, self.services, will, caught_up, transport)
    }

    fn exchange(
        &mut self,
        transport: &mut Transport,
        input: &mut Vec<u8>,
        blocked: bool,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Turn {
        self.owned.entry.register_waker(cx.waker());
        let post = self.owned.entry.take_post();
        let decided =
            post.decided.into_iter().map(|(packet_id, outcome)| self.decide(packet_id, outcome, out));
        // All of them, whatever becomes of one.
        if let Err(farewell) = decided.fold(Ok(()), Result::and) {
            return Turn::End(farewell);
        }
        if let Some(command) = post.command {
            // A client that comes back at once has perhaps said goodbye before: its will is withdrawn.
            match self.take_input(transport, input, cx, shared, out) {
                Err(goodbye @ Farewell::Goodbye { .. }) => return Turn::End(goodbye),
                Ok(_) if command.waits_for_answers() => self.leave(command),
                Ok(_) | Err(_) => return Turn::End(Farewell::Commanded(self.last_command(command))),
            }
        }
        if post.behind {
            // What the mailbox still holds is in no log, and older than what it sent away.
            self.backlog.mailbox_first |= self.backlog.pace == Pace::Live;
            // Also while rejoining: the mailbox ran over again.
            self.backlog.pace = Pace::Behind;
        }
        if let Err(farewell) = self.poll_work(cx, out) {
            return Turn::End(farewell);
        }
        let mut moved = match self.retry_stalled(out) {
            Ok(again) => again,
            Err(farewell) => return Turn::End(farewell),
        };
        self.note_pressure(blocked);
        if blocked {
            self.send_lent(blocked, out);
        } else {
            match self.take_input(transport, input, cx, shared, out) {
                Ok(read) => moved |= read,
                Err(farewell) => return Turn::End(farewell),
            }
            moved |= self.send_backlog(cx, out);
            moved |= self.send_live(out);
            moved |= self.send_lent(blocked, out);
            match self.send_kept(cx, out) {
                Ok(sent) => moved |= sent,
                Err(Fenced) => return Turn::End(Farewell::Fenced),
            }
            // What was cut short is continued, even if neither the socket nor the client has anything to say.
            moved |= out.len() >= WRITE_BYTES_MAX;
        }
        match self.leaving {
            Some(leaving) if !blocked && self.is_answered() => {
                Turn::End(Farewell::Commanded(leaving.command))
            }
            _ if moved => Turn::Again,
            _ => Turn::Wait,
        }
    }

    fn leave(&mut self, command: Command) {
        self.leaving.get_or_insert(Leaving { command, since_seconds: self.services.clock.seconds() });
    }

    /// Who was to leave and was not answered in time leaves all the same, for the same reason.
    fn last_command(&self, command: Command) -> Command {
        match self.leaving {
            Some(leaving) if command == Command::TimedOut => leaving.command,
            _ => command,
        }
    }

    fn is_answered(&self) -> bool {
        self.work.is_none() && self.stalled.is_none() && self.session.is_answered()
    }

    /// Nothing moves: gives memory back and keeps progress.
    fn settle(&mut self) {
        self.session.shrink();
        if !self.owned.entry.is_unsaved() {
            return;
        }
        let now = self.services.clock.seconds();
        if now >= self.last_saved_seconds + SAVE_AFTER_SECONDS {
            self.last_saved_seconds = now;
            self.save();
        }
    }

    fn note_pressure(&mut self, blocked: bool) {
        if !blocked {
            self.blocked_since_seconds = None;
        }
        // Time during which the client was not listened to does not count against it.
        let paused = !self.takes_input();
        if self.was_paused && !paused {
            self.last_packet_tenths = self.services.clock.tenths();
        }
        self.was_paused = paused;
    }

    /// The time by which something must move.
    fn set_deadline(&mut self, transport: &Transport) {
        let blocked_since = transport
            .has_unsent()
            .then(|| *self.blocked_since_seconds.get_or_insert_with(|| self.services.clock.seconds()));
        let keep_alive = u32::from(self.session.negotiated().keep_alive);
        let deadline = match blocked_since {
            Some(since) => (since + WRITE_STALL_SECONDS) * TENTHS,
            None if keep_alive == 0 || !self.takes_input() => 0,
            // One and a half times the Keep Alive, and not a moment less. [MQTT-3.1.2-22]
            None => self.last_packet_tenths + keep_alive * TENTHS * 3 / 2 + 1,
        };
        let deadline = match self.leaving {
            Some(leaving) => (leaving.since_seconds + ANSWERS_SECONDS_MAX) * TENTHS,
            None => deadline,
        };
        self.services.deadlines.set(&self.owned.entry, deadline);
    }

    fn save(&self) {
        let entry = &self.owned.entry;
        if let Some(session) = entry.stored() {
            let progress = progress(&self.session, self.session.sent());
            let op = SessionOp::Save(session, Box::new(progress));
            if self.services.sessions.submit(op).is_err() {
                return;
            }
        }
        entry.set_saved();
    }
}
