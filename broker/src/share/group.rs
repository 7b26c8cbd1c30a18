//! One group of subscribers: its members, and the messages that are not done.

use std::sync::Arc;

use parking_lot::Mutex;
use sotto_auth::Policy;
use sotto_model::limits::{SHARE_MEMBERS_MAX, SHARE_PENDING_BYTES_MAX, SHARE_PENDING_MAX};
use sotto_model::{
    ClientLimits, Cursor, Offset, PacketId, Principal, QoS, Subscription, TopicFilter, UserId,
};
use sotto_storage::session_store::{Inflight, SessionProgress};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::record::Record;
use crate::session_entry::{Delivery, Grant, Loan, SessionEntry, Terms};
use crate::share::distribution::{Distribution, Offered};
use crate::share::name::client_id;
use crate::share::ticket::{Lender, Sequence, Ticket};

pub(crate) struct Group {
    /// As subscribed.
    pub(crate) filter: TopicFilter,
    /// What the router and the log know of the group; its subscription is the filter without the share.
    pub(crate) entry: Arc<SessionEntry>,
    /// Held by whoever makes the group a stored one.
    pub(crate) storing: tokio::sync::Mutex<()>,
    /// Its last member is gone.
    pub(crate) ended: CancellationToken,
    /// Locked by the driver, and by members' connections for a few instructions.
    state: Mutex<State>,
}

struct State {
    distribution: Distribution<Member, Shared>,
    /// Everything of the log up to here was taken, or is not for the group.
    seen: Offset,
    /// The mailbox takes messages: a member is connected.
    live: bool,
    /// It did not always: what the log holds after `seen` is to be read.
    missed: bool,
    /// Subscriptions that are being made: the group is not to end meanwhile.
    holds: usize,
    /// The stored progress is older than the group's.
    unsaved: bool,
    /// And is to be stored at once.
    overdue: bool,
}

struct Member {
    entry: Arc<SessionEntry>,
    subscription: Subscription,
    connected: bool,
}

/// A message of the group.
struct Shared {
    record: Arc<Record>,
    /// `None` where the log will not give it back: it is gone with the process.
    offset: Option<Offset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("group has as many members as it may")]
pub(crate) struct GroupFull;

impl Group {
    /// Begins after `seen`.
    pub(crate) fn new(
        principal: &Principal,
        filter: TopicFilter,
        seen: Offset,
        limits: &ClientLimits,
    ) -> Self {
        let principal = Principal {
            tenant: principal.tenant,
            user: UserId(Uuid::nil()),
            device: None,
            client_id: client_id(&filter),
            topics: principal.topics,
        };
        Self {
            filter,
            entry: Arc::new(SessionEntry::new(principal, limits)),
            storing: tokio::sync::Mutex::new(()),
            ended: CancellationToken::new(),
            state: Mutex::new(State {
                distribution: Distribution::new(),
                seen,
                live: false,
                missed: false,
                holds: 0,
                unsaved: false,
                overdue: false,
            }),
        }
    }

    // ---- members: called under the lock of all groups ----

    /// Keeps the group while a subscription is being made.
    pub(crate) fn hold(&self, entry: &Arc<SessionEntry>) -> Result<(), GroupFull> {
        let mut state = self.state.lock();
        let members = state.distribution.members();
        if members.len() >= SHARE_MEMBERS_MAX && !members.iter().any(|member| member.is(entry)) {
            return Err(GroupFull);
        }
        state.holds += 1;
        Ok(())
    }

    pub(crate) fn release(&self) {
        self.state.lock().holds -= 1;
    }

    /// Adds a member, or replaces its subscription. Returns the group's own subscription.
    pub(crate) fn join(
        self: &Arc<Self>,
        entry: &Arc<SessionEntry>,
        subscription: &Subscription,
    ) -> Subscription {
        entry.desk.join(self.clone());
        let mut state = self.state.lock();
        let before = state.qos();
        let connected = entry.is_live();
        let member = Member { entry: entry.clone(), subscription: subscription.clone(), connected };
        match state.distribution.members_mut().iter_mut().find(|known| known.is(entry)) {
            Some(known) => *known = member,
            None => state.distribution.join(member),
        }
        if before == Some(QoS::AtMostOnce) && state.qos() > before {
            // What was handed out with QoS 0 was not counted, and is not to be read from the log.
            state.seen = state.seen.max(subscription.since);
        }
        let own = self.subscription(&state);
        self.settle(&mut state);
        drop(state);
        self.wake();
        own
    }

    /// What was lent to the member and has not been taken goes to the others. Returns the group's own
    /// subscription as it is without the member; `None` without members.
    pub(crate) fn leave(self: &Arc<Self>, entry: &Arc<SessionEntry>) -> Option<Subscription> {
        let mut state = self.state.lock();
        state.distribution.leave(|member| member.is(entry));
        self.settle(&mut state);
        let own = (!state.distribution.members().is_empty()).then(|| self.subscription(&state));
        drop(state);
        let lender: Arc<dyn Lender> = self.clone();
        drop(entry.desk.leave(&lender, |loan: &Loan| loan.ticket.is_of(&lender)));
        self.wake();
        own
    }

    /// A member's connection has begun, or ended.
    pub(crate) fn set_connected(&self, entry: &Arc<SessionEntry>, connected: bool) {
        let mut state = self.state.lock();
        if let Some(member) = state.distribution.members_mut().iter_mut().find(|member| member.is(entry)) {
            member.connected = connected;
        }
        self.settle(&mut state);
        drop(state);
        self.wake();
    }

    /// Nobody is a member, or about to be one.
    pub(crate) fn is_vacant(&self) -> bool {
        let state = self.state.lock();
        state.holds == 0 && state.distribution.members().is_empty()
    }

    /// Is something to be kept for a member whose session outlives its connection?
    pub(crate) fn is_to_be_stored(&self) -> bool {
        let state = self.state.lock();
        state.holds > 0 || state.distribution.members().iter().any(Member::is_stored)
    }

    /// Goes on where an earlier process was: `records` are what it had not done.
    pub(crate) fn restore(&self, progress: &SessionProgress, records: Vec<Arc<Record>>) {
        let mut state = self.state.lock();
        state.seen = progress.cursor.0;
        state.missed = true;
        for record in records {
            state.add(record.offset(), record);
        }
        drop(state);
        self.wake();
    }

    /// The mailbox takes messages while a member is connected. Messages that come while nobody is are in the
    /// log, or for nobody.
    fn settle(&self, state: &mut State) {
        let connected = state.distribution.members().iter().any(|member| member.connected);
        if connected && !state.live {
            self.entry.go_live(state.missed);
        } else if !connected && state.live {
            self.entry.go_away();
            state.missed = true;
        }
        state.live = connected;
    }

    fn subscription(&self, state: &State) -> Subscription {
        let mut members = state.distribution.members().iter();
        let first = members.next().expect("asked for while there are members");
        let mut own =
            Subscription { identifier: None, filter: self.filter.unshared(), ..first.subscription.clone() };
        own.options.no_local = false;
        own.options.qos = state.qos().unwrap_or(own.options.qos);
        own.since = members.map(|member| member.subscription.since).fold(own.since, Offset::min);
        self.entry.subscribe(own.clone());
        own
    }

    // ---- messages: called by the driver ----

    /// Somebody has room, and there is room for what is not done.
    pub(crate) fn wants_more(&self) -> bool {
        let state = self.state.lock();
        state.distribution.len() < SHARE_PENDING_MAX
            && state.distribution.bytes() < SHARE_PENDING_BYTES_MAX
            && state.distribution.members().iter().any(|member| member.entry.desk.is_open())
    }

    /// A message with an offset comes in the log's order; one that was seen is passed over.
    pub(crate) fn take(&self, record: Arc<Record>, offset: Option<Offset>) {
        let mut state = self.state.lock();
        if let Some(offset) = offset {
            if offset <= state.seen {
                return;
            }
            state.seen = offset;
        }
        state.unsaved = true;
        state.add(offset, record);
    }

    /// Returns how many messages no member may have.
    pub(crate) fn hand_out(self: &Arc<Self>, policy: &Policy) -> usize {
        let mut state = self.state.lock();
        let denied = state.distribution.hand_out(|member, sequence, shared| {
            // Decided for each message and member, and once more when it is sent.
            if !may_receive(policy, &member.entry.principal, shared) {
                return Offered::Denied;
            }
            if !member.entry.desk.is_open() {
                return Offered::Full;
            }
            let grant = Grant::of(Terms::of(&member.subscription), &shared.record);
            let delivery = Delivery { record: shared.record.clone(), grant };
            let ticket = Ticket::new(self.clone(), sequence);
            match member.entry.lend(Loan { delivery, ticket }) {
                Ok(()) => Offered::Taken,
                Err(loan) => {
                    loan.ticket.void();
                    Offered::Full
                }
            }
        });
        denied.len()
    }

    pub(crate) fn seen(&self) -> Offset {
        self.state.lock().seen
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state.lock().live
    }

    /// Nothing of the log at or before `offset` that was not taken is for the group.
    pub(crate) fn pass_over(&self, offset: Offset) {
        let mut state = self.state.lock();
        if offset > state.seen {
            state.seen = offset;
            state.unsaved = true;
        }
    }

    pub(crate) fn is_unsaved(&self) -> bool {
        self.state.lock().unsaved
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.state.lock().overdue
    }

    /// What is to be stored. What is taken from here on is unsaved.
    pub(crate) fn progress(&self) -> SessionProgress {
        let mut state = self.state.lock();
        state.unsaved = false;
        state.overdue = false;
        let pending = state.distribution.pending();
        let logged = pending.into_iter().filter_map(|shared| Some((shared.offset?, &shared.record.message)));
        // A group has no packet ids: they number what is kept.
        let mut next = PacketId::FIRST;
        let inflight = logged.map(|(offset, message)| {
            let packet_id = next;
            next = next.next();
            Inflight { packet_id, offset, qos: message.qos, retain: message.retain, released: false }
        });
        SessionProgress {
            cursor: Cursor(state.seen),
            inflight: inflight.collect(),
            exactly_once_received: Vec::new(),
        }
    }
}

impl Lender for Group {
    fn done(&self, sequence: Sequence) {
        let mut state = self.state.lock();
        let was_full = state.distribution.len() >= SHARE_PENDING_MAX
            || state.distribution.bytes() >= SHARE_PENDING_BYTES_MAX;
        let is_first = state.distribution.done(sequence) && !std::mem::replace(&mut state.unsaved, true);
        drop(state);
        if was_full || is_first {
            self.wake();
        }
    }

    fn handed_over(&self, sequence: Sequence) {
        let mut state = self.state.lock();
        state.distribution.done(sequence);
        state.unsaved = true;
        state.overdue = true;
        drop(state);
        self.wake();
    }

    fn give_back(&self, sequence: Sequence) {
        self.state.lock().distribution.give_back(sequence);
        self.wake();
    }

    fn wake(&self) {
        self.entry.wake();
    }
}

impl State {
    /// The highest QoS of a member.
    fn qos(&self) -> Option<QoS> {
        self.distribution.members().iter().map(|member| member.subscription.options.qos).max()
    }

    fn add(&mut self, offset: Option<Offset>, record: Arc<Record>) {
        let bytes = record.message.bytes();
        self.distribution.add(Shared { record, offset }, bytes);
    }
}

impl Member {
    fn is(&self, entry: &Arc<SessionEntry>) -> bool {
        Arc::ptr_eq(&self.entry, entry)
    }

    fn is_stored(&self) -> bool {
        self.entry.is_stored() && self.subscription.options.qos != QoS::AtMostOnce
    }
}

fn may_receive(policy: &Policy, principal: &Principal, shared: &Shared) -> bool {
    let offset = shared.record.offset().unwrap_or(Offset(u64::MAX));
    policy.may_receive(principal, &shared.record.message.topic, offset)
}
