//! What a sequence of session changes comes to: pure.
//!
//! The rows that the changes touch are loaded and locked, the changes are applied to them here, one after
//! another, and what differs in the end is written, kind by kind. So a transaction costs the same few
//! round trips for one change as for a thousand, and the order of changes to one session is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sotto_model::{
    ClientId, Cursor, DeviceId, Generation, PacketId, SessionId, Subscription, TenantId, UnixMillis, UserId,
};
use sotto_storage::session_store::{
    Inflight, OpenSession, OpenedSession, SessionOp, SessionProgress, SessionRef, SessionReply,
};
use sotto_storage::wills::WillEnd;

use crate::wills::WillChange;

/// A row of `sessions`.
#[derive(Clone)]
pub(crate) struct SessionRow {
    pub(crate) id: SessionId,
    pub(crate) tenant: TenantId,
    pub(crate) client_id: ClientId,
    pub(crate) user: UserId,
    pub(crate) device: Option<DeviceId>,
    pub(crate) generation: Generation,
    pub(crate) connected: bool,
    pub(crate) cursor: Cursor,
    pub(crate) inflight: Vec<Inflight>,
    pub(crate) expiry_seconds: u32,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) wake_check: bool,
    /// Something is kept among the wills.
    pub(crate) has_wills: bool,
}

/// What a session that is to be opened holds beside its row.
#[derive(Default)]
pub(crate) struct Belongings {
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) exactly_once_received: Vec<PacketId>,
}

pub(crate) struct Fold {
    sessions: BTreeMap<SessionId, Folded>,
    by_client: HashMap<(TenantId, ClientId), SessionId>,
    /// For sessions to be made; as many as there are `Open`s.
    fresh_ids: Vec<SessionId>,
    returned_devices: BTreeSet<DeviceId>,
}

struct Folded {
    row: SessionRow,
    belongings: Belongings,
    stored: bool,
    gone: bool,
    changed: bool,
    subscriptions_cleared: bool,
    /// By filter as subscribed; `None`: unsubscribed.
    subscriptions: BTreeMap<String, Option<Subscription>>,
    received: Received,
    /// In their order.
    wills: Vec<WillChange>,
}

/// Changes to the QoS 2 packet ids received. No id is in both sets.
#[derive(Default)]
struct Received {
    /// None of those stored before is left.
    cleared: bool,
    released: BTreeSet<PacketId>,
    added: BTreeSet<PacketId>,
}

/// What is to be written; deletions before insertions.
#[derive(Default)]
pub(crate) struct Writes {
    pub(crate) deleted: Vec<SessionId>,
    pub(crate) created: Vec<SessionRow>,
    pub(crate) updated: Vec<SessionRow>,
    pub(crate) subscriptions_cleared: Vec<SessionId>,
    pub(crate) unsubscribed: Vec<(SessionId, String)>,
    pub(crate) subscribed: Vec<(SessionId, Subscription)>,
    pub(crate) received_cleared: Vec<SessionId>,
    pub(crate) released: Vec<(SessionId, PacketId)>,
    pub(crate) received: Vec<(SessionId, PacketId)>,
    /// Of each session's changes to its wills the first, then the second, and so on.
    pub(crate) wills: Vec<Vec<(SessionId, WillChange)>>,
    /// Devices whose outstanding wakeups are forgotten.
    pub(crate) returned_devices: Vec<DeviceId>,
    /// A session is to be looked at for a wakeup, once this is committed.
    pub(crate) wake_check: bool,
}

impl Fold {
    /// `belongings` are those of every loaded session that an `Open` may take up.
    pub(crate) fn new(
        rows: Vec<SessionRow>,
        mut belongings: HashMap<SessionId, Belongings>,
        fresh_ids: Vec<SessionId>,
    ) -> Self {
        let by_client = rows.iter().map(|row| ((row.tenant, row.client_id.clone()), row.id)).collect();
        let sessions = rows
            .into_iter()
            .map(|row| {
                let belongings = belongings.remove(&row.id).unwrap_or_default();
                (row.id, Folded::new(row, belongings, true))
            })
            .collect();
        Self { sessions, by_client, fresh_ids, returned_devices: BTreeSet::new() }
    }

    /// `None` when a session is to be made and no id is left for it.
    pub(crate) fn apply(&mut self, op: &SessionOp) -> Option<SessionReply> {
        let reply = match op {
            SessionOp::Open(open) => {
                return self.open(open).map(|opened| SessionReply::Opened(Box::new(opened)));
            }
            SessionOp::Subscribe(session, subscriptions) => self.change(*session, |folded| {
                for subscription in subscriptions {
                    folded.subscribe(subscription);
                }
            }),
            SessionOp::Unsubscribe(session, filters) => self.change(*session, |folded| {
                for filter in filters {
                    folded.subscriptions.insert(filter.as_subscribed().to_owned(), None);
                }
            }),
            SessionOp::Save(session, progress) => self.change(*session, |folded| folded.save(progress)),
            SessionOp::Release(session, packet_ids) => {
                self.change(*session, |folded| folded.release(packet_ids))
            }
            SessionOp::Close { session, progress, expiry_seconds, will, now } => {
                self.change(*session, |folded| folded.close(progress, *expiry_seconds, *will, *now))
            }
            SessionOp::Delete(session) => self.change(*session, Folded::delete),
        };
        Some(reply)
    }

    fn change(&mut self, session: SessionRef, change: impl FnOnce(&mut Folded)) -> SessionReply {
        match self.sessions.get_mut(&session.id) {
            Some(folded) if !folded.gone && session.generation >= folded.row.generation => {
                change(folded);
                SessionReply::Done
            }
            _ => SessionReply::Fenced,
        }
    }

    fn open(&mut self, open: &OpenSession) -> Option<OpenedSession> {
        let key = (open.tenant, open.client_id.clone());
        let stored = self.by_client.get(&key).copied().filter(|id| !self.sessions[id].gone);
        let present = match stored.and_then(|id| self.sessions.get_mut(&id)) {
            Some(folded) => {
                // A client id that another user held is the same text, not the same client.
                let discarded =
                    open.clean_start || folded.has_expired(open.now) || folded.row.user != open.user;
                if discarded {
                    folded.discard(open);
                } else if folded.row.has_wills {
                    folded.wills.push(WillChange::TakeUp(open.now));
                }
                !discarded
            }
            None => false,
        };
        let id = if let Some(id) = stored {
            id
        } else {
            let id = self.fresh_ids.pop()?;
            self.sessions.insert(id, Folded::new(new_row(id, open), Belongings::default(), false));
            self.by_client.insert(key, id);
            id
        };
        let folded = self.sessions.get_mut(&id).expect("found or made above");
        folded.take_up(open);
        self.returned_devices.extend(open.device);
        Some(OpenedSession {
            session: SessionRef { id, generation: folded.row.generation },
            present,
            progress: folded.progress(),
            subscriptions: folded.current_subscriptions(),
        })
    }

    pub(crate) fn into_writes(self) -> Writes {
        let mut writes =
            Writes { returned_devices: self.returned_devices.into_iter().collect(), ..Writes::default() };
        for (id, mut folded) in self.sessions {
            for (round, change) in std::mem::take(&mut folded.wills).into_iter().enumerate() {
                if writes.wills.len() <= round {
                    writes.wills.push(Vec::new());
                }
                writes.wills[round].push((id, change));
            }
            if folded.gone {
                if folded.stored {
                    // What belongs to it goes by foreign key.
                    writes.deleted.push(id);
                }
                continue;
            }
            folded.write(id, &mut writes);
        }
        writes
    }
}

impl Folded {
    fn new(row: SessionRow, belongings: Belongings, stored: bool) -> Self {
        Self {
            row,
            belongings,
            stored,
            gone: false,
            changed: false,
            subscriptions_cleared: false,
            subscriptions: BTreeMap::new(),
            received: Received::default(),
            wills: Vec::new(),
        }
    }

    fn has_expired(&self, now: UnixMillis) -> bool {
        !self.row.connected && self.row.expires_at.is_some_and(|at| at <= now)
    }

    /// [MQTT-3.1.2-4]
    fn discard(&mut self, open: &OpenSession) {
        if self.row.has_wills {
            self.wills.push(WillChange::End);
        }
        self.row.cursor = Cursor(open.head);
        self.row.inflight.clear();
        self.belongings = Belongings::default();
        self.subscriptions_cleared = true;
        self.subscriptions.clear();
        self.received = Received { cleared: true, ..Received::default() };
    }

    fn take_up(&mut self, open: &OpenSession) {
        self.row.user = open.user;
        self.row.device = open.device;
        self.row.generation = self.row.generation.next();
        self.row.connected = true;
        self.row.expiry_seconds = open.expiry_seconds;
        self.row.expires_at = None;
        self.row.wake_check = false;
        if let Some(will) = &open.will {
            self.wills.push(WillChange::Keep(open.tenant, will.clone()));
            self.row.has_wills = true;
        }
        self.changed = true;
    }

    fn delete(&mut self) {
        if self.row.has_wills {
            self.wills.push(WillChange::End);
        }
        self.gone = true;
    }

    fn subscribe(&mut self, subscription: &Subscription) {
        let filter = subscription.filter.as_subscribed().to_owned();
        self.subscriptions.insert(filter, Some(subscription.clone()));
    }

    fn save(&mut self, progress: &SessionProgress) {
        self.row.cursor = progress.cursor;
        self.row.inflight.clone_from(&progress.inflight);
        self.received.add(&progress.exactly_once_received);
        self.changed = true;
    }

    fn release(&mut self, packet_ids: &[PacketId]) {
        self.received.release(packet_ids);
    }

    fn close(
        &mut self,
        progress: &SessionProgress,
        expiry_seconds: u32,
        will: Option<WillEnd>,
        now: UnixMillis,
    ) {
        self.wills.extend(will.map(|end| match end {
            WillEnd::Due => WillChange::MakeDue { expiry_seconds, now },
            WillEnd::Forgotten => WillChange::Forget,
        }));
        if expiry_seconds == 0 {
            self.gone = true;
            return;
        }
        self.save(progress);
        self.row.connected = false;
        self.row.expiry_seconds = expiry_seconds;
        self.row.expires_at = expires_at(expiry_seconds, now);
        self.row.wake_check = self.row.device.is_some();
    }

    fn progress(&self) -> SessionProgress {
        SessionProgress {
            cursor: self.row.cursor,
            inflight: self.row.inflight.clone(),
            exactly_once_received: self.received.after(&self.belongings.exactly_once_received),
        }
    }

    fn current_subscriptions(&self) -> Vec<Subscription> {
        let replaced: HashSet<&str> = self.subscriptions.keys().map(String::as_str).collect();
        let stored = self.belongings.subscriptions.iter();
        stored
            .filter(|subscription| !replaced.contains(subscription.filter.as_subscribed()))
            .chain(self.subscriptions.values().flatten())
            .cloned()
            .collect()
    }

    fn write(self, id: SessionId, writes: &mut Writes) {
        writes.wake_check |= self.changed && self.row.wake_check;
        if !self.stored {
            writes.created.push(self.row);
        } else if self.changed {
            writes.updated.push(self.row);
        }
        if self.subscriptions_cleared && self.stored {
            writes.subscriptions_cleared.push(id);
        }
        for (filter, subscription) in self.subscriptions {
            match subscription {
                Some(subscription) => writes.subscribed.push((id, subscription)),
                None => writes.unsubscribed.push((id, filter)),
            }
        }
        let Received { cleared, released, added } = self.received;
        if cleared && self.stored {
            writes.received_cleared.push(id);
        }
        writes.released.extend(released.into_iter().map(|packet_id| (id, packet_id)));
        writes.received.extend(added.into_iter().map(|packet_id| (id, packet_id)));
    }
}

impl Received {
    fn add(&mut self, packet_ids: &[PacketId]) {
        self.released.retain(|id| !packet_ids.contains(id));
        self.added.extend(packet_ids);
    }

    fn release(&mut self, packet_ids: &[PacketId]) {
        self.added.retain(|id| !packet_ids.contains(id));
        self.released.extend(packet_ids);
    }

    /// What is received, where `before` was stored. In ascending order.
    fn after(&self, before: &[PacketId]) -> Vec<PacketId> {
        let kept = before.iter().filter(|id| !self.cleared && !self.released.contains(id));
        kept.chain(&self.added).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn new_row(id: SessionId, open: &OpenSession) -> SessionRow {
    SessionRow {
        id,
        tenant: open.tenant,
        client_id: open.client_id.clone(),
        user: open.user,
        device: open.device,
        generation: Generation(0),
        connected: true,
        cursor: Cursor(open.head),
        inflight: Vec::new(),
        expiry_seconds: open.expiry_seconds,
        expires_at: None,
        wake_check: false,
        has_wills: false,
    }
}

/// `None`: never.
fn expires_at(expiry_seconds: u32, now: UnixMillis) -> Option<UnixMillis> {
    (expiry_seconds != u32::MAX).then(|| now.saturating_add(Duration::from_secs(expiry_seconds.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_model::{Offset, QoS, RetainHandling, SubscriptionOptions, TopicFilter};
    use uuid::Uuid;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn open(client: &str) -> OpenSession {
        OpenSession {
            tenant: TenantId(Uuid::from_u128(1)),
            client_id: ClientId::parse(client).expect("client id"),
            user: UserId(Uuid::from_u128(2)),
            device: Some(DeviceId(Uuid::from_u128(3))),
            clean_start: false,
            expiry_seconds: 60,
            head: Offset(7),
            will: None,
            now: NOW,
        }
    }

    fn subscription(filter: &str) -> Subscription {
        Subscription {
            filter: TopicFilter::parse(filter).expect("filter"),
            options: SubscriptionOptions {
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::SendAtSubscribe,
            },
            identifier: None,
            since: Offset(0),
        }
    }

    fn opened(reply: Option<SessionReply>) -> OpenedSession {
        match reply {
            Some(SessionReply::Opened(opened)) => *opened,
            _ => panic!("an opened session was expected"),
        }
    }

    fn fold() -> Fold {
        Fold::new(Vec::new(), HashMap::new(), vec![SessionId(3), SessionId(2), SessionId(1)])
    }

    #[test]
    fn a_session_made_changed_and_taken_up_in_one_go_is_written_once() {
        let mut fold = fold();
        let first = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
        assert!(!first.present);
        fold.apply(&SessionOp::Subscribe(first.session, vec![subscription("x"), subscription("y")]));
        fold.apply(&SessionOp::Unsubscribe(first.session, vec![subscription("x").filter]));
        let second = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
        assert!(second.present);
        assert_eq!(second.session.generation, first.session.generation.next());
        assert_eq!(second.subscriptions, [subscription("y")]);
        let writes = fold.into_writes();
        assert_eq!((writes.created.len(), writes.updated.len()), (1, 0));
        assert_eq!(writes.created[0].generation, second.session.generation);
    }

    #[test]
    fn what_acts_for_an_older_generation_is_fenced() {
        let mut fold = fold();
        let first = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
        let second = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
        let stale = fold.apply(&SessionOp::Delete(first.session));
        assert!(matches!(stale, Some(SessionReply::Fenced)));
        let done = fold.apply(&SessionOp::Delete(second.session));
        assert!(matches!(done, Some(SessionReply::Done)));
        let gone = fold.apply(&SessionOp::Subscribe(second.session, Vec::new()));
        assert!(matches!(gone, Some(SessionReply::Fenced)));
    }

    #[test]
    fn a_session_deleted_and_opened_again_has_another_id() {
        let mut fold = fold();
        let first = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
        fold.apply(&SessionOp::Delete(first.session));
        let second = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
        assert!(!second.present);
        assert_ne!(first.session.id, second.session.id);
        let writes = fold.into_writes();
        assert!(writes.deleted.is_empty());
        assert_eq!(writes.created.len(), 1);
    }

    #[test]
    fn clean_start_and_expiry_discard_what_was_stored() {
        for (clean_start, now) in [(true, NOW), (false, UnixMillis(NOW.0 + 60_000))] {
            let mut fold = fold();
            let first = opened(fold.apply(&SessionOp::Open(Box::new(open("a")))));
            fold.apply(&SessionOp::Subscribe(first.session, vec![subscription("x")]));
            let progress = SessionProgress { cursor: Cursor(Offset(5)), ..SessionProgress::default() };
            fold.apply(&SessionOp::Close {
                session: first.session,
                progress: Box::new(progress),
                expiry_seconds: 60,
                will: None,
                now: NOW,
            });
            let again = OpenSession { clean_start, now, ..open("a") };
            let second = opened(fold.apply(&SessionOp::Open(Box::new(again))));
            assert!(!second.present);
            assert!(second.subscriptions.is_empty());
            assert_eq!(second.progress.cursor, Cursor(Offset(7)));
        }
    }
}
