//! One session as the rest of the node sees it: who it is, what it subscribes to, and its mailbox.
//!
//! An entry lives as long as its session, connected or not. Whoever has something for a session puts it in
//! the mailbox and wakes the connection; the connection alone takes it out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::Waker;

use futures::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use sotto_model::{
    ClientLimits, Offset, PacketId, Principal, QoS, Subscription, SubscriptionOptions, TopicFilter,
};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::session_store::SessionRef;
use tokio::sync::oneshot;

use crate::client_tag::ClientTag;
use crate::connection_id::ConnectionId;
use crate::metrics::subscriptions_changed;
use crate::record::Record;
use crate::share::desk::Desk;
use crate::share::name::is_group;
use crate::share::ticket::Ticket;

/// A message for this session, and how its subscriptions want it.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) record: Arc<Record>,
    pub(crate) grant: Grant,
}

/// A message of a shared subscription, for this session to deliver or to give back.
pub(crate) struct Loan {
    pub(crate) delivery: Delivery,
    pub(crate) ticket: Ticket,
}

/// What a subscription asks for, beside its filter.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) options: SubscriptionOptions,
    pub(crate) identifier: Option<u32>,
}

impl Terms {
    pub(crate) fn of(subscription: &Subscription) -> Self {
        Self { options: subscription.options, identifier: subscription.identifier }
    }
}

/// What the matching subscriptions of one session grant together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The lower of the message's and the highest subscribed. [MQTT-3.3.5-1]
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: SmallVec<[u32; 2]>,
}

/// What the node tells a connection to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Another connection takes the session over. [MQTT-3.1.4-3]
    TakenOver,
    /// The user or the tenant is gone.
    Revoked,
    /// The client was silent for one and a half times its Keep Alive, or does not read. [MQTT-3.1.2-22]
    TimedOut,
    ShutDown,
    /// The node goes, and says which other to use.
    SentElsewhere,
}

impl Command {
    /// What the client has sent is answered before it goes.
    pub(crate) fn waits_for_answers(self) -> bool {
        matches!(self, Self::ShutDown | Self::SentElsewhere)
    }

    pub(crate) fn reason(self) -> ReasonCode {
        match self {
            Self::TakenOver => ReasonCode::SessionTakenOver,
            Self::Revoked => ReasonCode::NotAuthorized,
            Self::TimedOut => ReasonCode::KeepAliveTimeout,
            Self::ShutDown => ReasonCode::ServerShuttingDown,
            Self::SentElsewhere => ReasonCode::UseAnotherServer,
        }
    }
}

/// What became of a message put in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    Taken,
    /// Nobody is connected, or the session reads the log at its own pace: it will come by it there.
    FromLog,
    /// A message that is in no log found no room.
    Dropped,
}

pub(crate) struct SessionEntry {
    pub(crate) principal: Principal,
    pub(crate) tag: ClientTag,
    queue_records_max: u32,
    queue_bytes_max: u32,
    /// Written by the owner (SUBSCRIBE, UNSUBSCRIBE) and at start; read by whoever routes.
    subscriptions: RwLock<Vec<Subscription>>,
    /// Locked by routers, the committer and the owner, for a few instructions each.
    mailbox: Mutex<Mailbox>,
    /// What comes by shared subscriptions.
    pub(crate) desk: Desk<Loan>,
    waker: AtomicWaker,
    /// Tenths of a second on the node's clock after which the sweep ends the connection; 0: never.
    deadline_tenths: AtomicU32,
    /// Where it stands among the [`Deadlines`](crate::deadlines::Deadlines); 0: nowhere.
    deadline_slot: AtomicU32,
    /// `UNSAVED` and `LISTED`.
    progress: AtomicU8,
    /// Outlives its connection.
    stored: AtomicBool,
    /// The mailbox is half full, or the session reads the log: see [`SessionEntry::needs_the_log`].
    crowded: AtomicBool,
}

/// The stored progress is older than the session's.
const UNSAVED: u8 = 1;
/// It is on the list of those that are [`Unsaved`](crate::unsaved::Unsaved).
const LISTED: u8 = 2;

struct Mailbox {
    owner: Option<ConnectionId>,
    /// The connection that waits for the session to be free.
    successor: Option<oneshot::Sender<()>>,
    session: Option<SessionRef>,
    queue: VecDeque<Delivery>,
    queued_bytes: u32,
    /// Set once the owner takes live messages.
    live: bool,
    /// The session reads the log from its cursor: messages of the log are not queued.
    behind: bool,
    decided: Vec<(PacketId, ReasonCode)>,
    command: Option<Command>,
}

/// What the owner found in its mailbox.
#[derive(Default)]
pub(crate) struct Post {
    pub(crate) decided: Vec<(PacketId, ReasonCode)>,
    pub(crate) command: Option<Command>,
    pub(crate) behind: bool,
}

impl SessionEntry {
    pub(crate) fn new(principal: Principal, limits: &ClientLimits) -> Self {
        let bounded = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        Self {
            tag: ClientTag::of(&principal.client_id),
            principal,
            queue_records_max: bounded(limits.queue_records_max),
            queue_bytes_max: bounded(limits.queue_bytes_max),
            subscriptions: RwLock::new(Vec::new()),
            mailbox: Mutex::new(Mailbox {
                owner: None,
                successor: None,
                session: None,
                queue: VecDeque::new(),
                queued_bytes: 0,
                live: false,
                behind: false,
                decided: Vec::new(),
                command: None,
            }),
            desk: Desk::new(),
            waker: AtomicWaker::new(),
            deadline_tenths: AtomicU32::new(0),
            deadline_slot: AtomicU32::new(0),
            progress: AtomicU8::new(0),
            stored: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
        }
    }

    // ---- ownership: called by the registry ----

    /// Makes `connection` the owner if there is none; otherwise tells the owner to go and returns what
    /// resolves when it has. Only the last to ask is served.
    pub(crate) fn claim(&self, connection: ConnectionId) -> Result<(), oneshot::Receiver<()>> {
        let mut mailbox = self.mailbox.lock();
        if mailbox.owner.is_none() {
            mailbox.owner = Some(connection);
            return Ok(());
        }
        let (free, freed) = oneshot::channel();
        mailbox.successor = Some(free);
        mailbox.command = Some(Command::TakenOver);
        drop(mailbox);
        self.waker.wake();
        Err(freed)
    }

    /// The owner lets go: what was queued for it is forgotten, and whoever waits is told.
    pub(crate) fn release(&self, connection: ConnectionId) {
        let mut mailbox = self.mailbox.lock();
        if mailbox.owner != Some(connection) {
            return;
        }
        mailbox.owner = None;
        mailbox.close();
        mailbox.decided = Vec::new();
        mailbox.command = None;
        self.note_crowd(&mailbox);
        self.deadline_tenths.store(0, Ordering::Relaxed);
        self.set_saved();
        if let Some(successor) = mailbox.successor.take() {
            // A successor that has given up is gone; the entry is free all the same.
            let _ = successor.send(());
        }
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.owner().is_some()
    }

    pub(crate) fn owner(&self) -> Option<ConnectionId> {
        self.mailbox.lock().owner
    }

    pub(crate) fn set_stored(&self, session: Option<SessionRef>) {
        self.mailbox.lock().session = session;
        self.stored.store(session.is_some(), Ordering::Relaxed);
    }

    pub(crate) fn stored(&self) -> Option<SessionRef> {
        self.mailbox.lock().session
    }

    /// Outlives its connection.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Relaxed)
    }

    // ---- posting: called by whoever has something for the session ----

    pub(crate) fn post(&self, delivery: Delivery) -> Posted {
        let logged = delivery.record.commit.is_some();
        let mut mailbox = self.mailbox.lock();
        if !mailbox.live {
            return if logged { Posted::FromLog } else { Posted::Dropped };
        }
        // A message of the log granted QoS 0 is not read again: it goes the way of those in no log.
        let again = logged && delivery.grant.qos != QoS::AtMostOnce;
        if again && mailbox.behind {
            return Posted::FromLog;
        }
        let bytes = bytes_of(&delivery);
        let full = mailbox.queue.len() >= self.queue_records_max as usize
            || mailbox.queued_bytes.saturating_add(bytes) > self.queue_bytes_max && !mailbox.queue.is_empty();
        if full && !again {
            return Posted::Dropped;
        }
        if full {
            // It reads the log from its cursor on; what is in no log stays.
            let kept = |delivery: &Delivery| {
                delivery.record.commit.is_none() || delivery.grant.qos == QoS::AtMostOnce
            };
            mailbox.queue.retain(kept);
            mailbox.queue.shrink_to_fit();
            mailbox.queued_bytes = mailbox.queue.iter().map(bytes_of).fold(0, u32::saturating_add);
            mailbox.behind = true;
            self.note_crowd(&mailbox);
            drop(mailbox);
            self.waker.wake();
            return Posted::FromLog;
        }
        mailbox.queue.push_back(delivery);
        mailbox.queued_bytes = mailbox.queued_bytes.saturating_add(bytes);
        self.note_crowd(&mailbox);
        let first = mailbox.queue.len() == 1;
        drop(mailbox);
        if first {
            self.waker.wake();
        }
        Posted::Taken
    }

    /// Fails when the client has no room.
    pub(crate) fn lend(&self, loan: Loan) -> Result<(), Loan> {
        if self.desk.lend(loan)? {
            self.waker.wake();
        }
        Ok(())
    }

    /// A QoS 1 or 2 message that were in no log might find no room here, or overtake what is read from the
    /// log: it is stored, so that the session comes by it at its own pace. The other half of the mailbox is
    /// for those that are on their way.
    pub(crate) fn needs_the_log(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    fn note_crowd(&self, mailbox: &Mailbox) {
        let crowded = mailbox.behind
            || mailbox.queue.len() >= self.queue_records_max as usize / 2
            || mailbox.queued_bytes >= self.queue_bytes_max / 2;
        self.crowded.store(crowded, Ordering::Relaxed);
    }

    /// A PUBLISH of this connection was committed or refused.
    pub(crate) fn decide(&self, connection: ConnectionId, packet_id: PacketId, outcome: ReasonCode) {
        let mut mailbox = self.mailbox.lock();
        if mailbox.owner != Some(connection) {
            return;
        }
        mailbox.decided.push((packet_id, outcome));
        let first = mailbox.decided.len() == 1;
        drop(mailbox);
        if first {
            self.waker.wake();
        }
    }

    pub(crate) fn command(&self, command: Command) {
        let mut mailbox = self.mailbox.lock();
        if mailbox.owner.is_none() {
            return;
        }
        mailbox.command.get_or_insert(command);
        drop(mailbox);
        self.waker.wake();
    }

    /// The same, for one connection alone.
    pub(crate) fn command_to(&self, connection: ConnectionId, command: Command) {
        let mut mailbox = self.mailbox.lock();
        if mailbox.owner != Some(connection) {
            return;
        }
        mailbox.command.get_or_insert(command);
        drop(mailbox);
        self.waker.wake();
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    // ---- called by the sweep ----

    /// It stands in that slot, and in no other that counts.
    pub(crate) fn stand_in(&self, slot: u32) {
        self.deadline_slot.store(slot, Ordering::SeqCst);
    }

    /// Its deadline, if it stood there and has one. Between a deadline that is set and the slot that is looked
    /// at, and a slot that is left and the deadline that is looked at, one sees the other.
    pub(crate) fn leave(&self, slot: u32) -> Option<u32> {
        self.deadline_slot.compare_exchange(slot, 0, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        Some(self.deadline_tenths.load(Ordering::SeqCst)).filter(|deadline| *deadline != 0)
    }

    /// False: it is on the list of those that are unsaved no more.
    pub(crate) fn stays_unsaved(&self) -> bool {
        self.progress.compare_exchange(LISTED, 0, Ordering::AcqRel, Ordering::Relaxed).is_err()
    }

    // ---- called by the owner ----

    pub(crate) fn register_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn set_deadline_tenths(&self, deadline: u32) {
        if self.deadline_tenths.load(Ordering::Relaxed) != deadline {
            self.deadline_tenths.store(deadline, Ordering::SeqCst);
        }
    }

    /// Does it stand nowhere, or too late to be looked at in time?
    pub(crate) fn stands_after(&self, slot: u32) -> bool {
        let standing = self.deadline_slot.load(Ordering::SeqCst);
        standing == 0 || standing > slot
    }

    pub(crate) fn is_unsaved(&self) -> bool {
        self.progress.load(Ordering::Relaxed) & UNSAVED != 0
    }

    /// True when it is to be put on the list.
    pub(crate) fn set_unsaved(&self) -> bool {
        // It may be so with every packet, and seldom is new.
        self.progress.load(Ordering::Relaxed) != UNSAVED | LISTED
            && self.progress.fetch_or(UNSAVED | LISTED, Ordering::AcqRel) & LISTED == 0
    }

    pub(crate) fn set_saved(&self) {
        self.progress.fetch_and(!UNSAVED, Ordering::AcqRel);
    }

    /// From here on live messages are queued; with `behind`, those of the log are not, and are to be read.
    pub(crate) fn go_live(&self, behind: bool) {
        let mut mailbox = self.mailbox.lock();
        mailbox.live = true;
        mailbox.behind = behind;
        self.note_crowd(&mailbox);
    }

    /// Nothing is queued from here on, and what was is forgotten.
    pub(crate) fn go_away(&self) {
        let mut mailbox = self.mailbox.lock();
        mailbox.close();
        self.note_crowd(&mailbox);
    }

    pub(crate) fn is_live(&self) -> bool {
        self.mailbox.lock().live
    }

    /// The owner has read the log up to its head: messages committed from here on are queued. It must look
    /// at the head once more, for what was committed in between.
    pub(crate) fn rejoin(&self) {
        let mut mailbox = self.mailbox.lock();
        mailbox.behind = false;
        self.note_crowd(&mailbox);
    }

    pub(crate) fn take_post(&self) -> Post {
        let mut mailbox = self.mailbox.lock();
        Post {
            decided: std::mem::take(&mut mailbox.decided),
            command: mailbox.command.take(),
            behind: mailbox.behind,
        }
    }

    pub(crate) fn next_delivery(&self) -> Option<Delivery> {
        let mut mailbox = self.mailbox.lock();
        let delivery = mailbox.queue.pop_front()?;
        mailbox.queued_bytes = mailbox.queued_bytes.saturating_sub(bytes_of(&delivery));
        if mailbox.queue.is_empty() {
            mailbox.queue = VecDeque::new();
        }
        self.note_crowd(&mailbox);
        Some(delivery)
    }

    /// Is there nothing queued, and nothing to be read from the log?
    pub(crate) fn is_drained(&self) -> bool {
        let mailbox = self.mailbox.lock();
        mailbox.queue.is_empty() && !mailbox.behind
    }

    // ---- subscriptions ----

    /// The offset since which the session holds a subscription of this filter.
    pub(crate) fn holds_since(&self, filter: &TopicFilter) -> Option<Offset> {
        let subscriptions = self.subscriptions.read();
        subscriptions.iter().find(|known| known.filter == *filter).map(|known| known.since)
    }

    /// Returns whether the filter is new to the session.
    pub(crate) fn subscribe(&self, subscription: Subscription) -> bool {
        let mut subscriptions = self.subscriptions.write();
        let known = subscriptions.iter_mut().find(|known| known.filter == subscription.filter);
        if let Some(known) = known {
            // The subscription is replaced; what it already held for it holds. [MQTT-3.8.4-3]
            let since = known.since;
            *known = Subscription { since, ..subscription };
            return false;
        }
        // Most sessions have one or a few, and keep them.
        if subscriptions.len() == subscriptions.capacity() {
            let more = subscriptions.len() / 2 + 1;
            subscriptions.reserve_exact(more);
        }
        subscriptions.push(subscription);
        self.count_subscriptions(0, 1);
        true
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> Option<Subscription> {
        let mut subscriptions = self.subscriptions.write();
        let at = subscriptions.iter().position(|known| known.filter.as_subscribed() == filter)?;
        let gone = subscriptions.swap_remove(at);
        subscriptions.shrink_to_fit();
        self.count_subscriptions(1, 0);
        Some(gone)
    }

    pub(crate) fn set_subscriptions(&self, subscriptions: Vec<Subscription>) -> Vec<Subscription> {
        let count = subscriptions.len();
        let before = std::mem::replace(&mut *self.subscriptions.write(), subscriptions);
        self.count_subscriptions(before.len(), count);
        before
    }

    /// What a group subscribes to, its members have been counted with.
    fn count_subscriptions(&self, before: usize, after: usize) {
        if !is_group(&self.principal) {
            subscriptions_changed(before, after);
        }
    }

    pub(crate) fn with_subscriptions<T>(&self, read: impl FnOnce(&[Subscription]) -> T) -> T {
        read(&self.subscriptions.read())
    }

    /// What the session's own subscriptions grant for a message; `None` where none matches.
    pub(crate) fn grant(&self, record: &Record) -> Option<Grant> {
        self.grant_by(record, |known| known.filter.share_name().is_none())
    }

    /// The same of those that it shares.
    pub(crate) fn grant_shared(&self, record: &Record) -> Option<Grant> {
        self.grant_by(record, |known| known.filter.share_name().is_some())
    }

    fn grant_by(&self, record: &Record, counts: impl Fn(&Subscription) -> bool) -> Option<Grant> {
        self.with_subscriptions(|subscriptions| {
            let matching = subscriptions.iter().filter(|known| {
                counts(known)
                    && known.filter.matches(&record.message.topic)
                    && self.takes(known.options, record)
            });
            let mut grant: Option<Grant> = None;
            for known in matching {
                match &mut grant {
                    None => grant = Some(Grant::of(Terms::of(known), record)),
                    Some(grant) => grant.merge(Terms::of(known), record),
                }
            }
            grant
        })
    }

    /// With No Local a session does not get what its own client published. [MQTT-3.8.3-3]
    pub(crate) fn takes(&self, options: SubscriptionOptions, record: &Record) -> bool {
        !options.no_local || record.message.publisher != self.tag
    }
}

fn bytes_of(delivery: &Delivery) -> u32 {
    u32::try_from(delivery.record.message.bytes()).unwrap_or(u32::MAX)
}

impl Mailbox {
    fn close(&mut self) {
        self.live = false;
        self.behind = false;
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
    }
}

impl Grant {
    pub(crate) fn of(terms: Terms, record: &Record) -> Self {
        Self {
            qos: terms.options.qos.min(record.message.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: record.message.retain && terms.options.retain_as_published,
            identifiers: terms.identifier.into_iter().collect(),
        }
    }

    /// Overlapping subscriptions: one copy, at the highest QoS, with every identifier.
    pub(crate) fn merge(&mut self, terms: Terms, record: &Record) {
        self.qos = self.qos.max(terms.options.qos.min(record.message.qos));
        self.retain |= record.message.retain && terms.options.retain_as_published;
        self.identifiers.extend(terms.identifier);
    }
}

#[cfg(test)]
mod tests;
