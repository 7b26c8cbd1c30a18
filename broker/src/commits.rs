//! What follows a commit: the tail, the fan-out, the publisher's answer. And who waits for room to commit.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sotto_model::{MessageId, PacketId, QoS, UnixMillis};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::StoreError;
use sotto_storage::committer::{CommitSink, Committed};
use sotto_storage::message_log::Placed;
use sotto_storage::tail::Tail;
use sotto_wakeup::Signal;
use tokio::sync::oneshot;

use crate::connection_id::ConnectionId;
use crate::metrics::repeated;
use crate::record::{Commit, Message, Record};
use crate::retained_topics::RetainedTopics;
use crate::router::Router;
use crate::session_entry::SessionEntry;
use crate::wills_under_way::WillsUnderWay;

/// A message on its way into the log.
pub(crate) struct Pending {
    pub(crate) message: Message,
    /// See [`Commit::told`].
    pub(crate) told: bool,
    /// Whom to answer; nobody for QoS 0 and for wills.
    pub(crate) publisher: Option<Publisher>,
    /// Dropped with this: whoever waits for the commit holds the other half.
    pub(crate) _settled: Option<oneshot::Sender<()>>,
    /// The kept will that it is.
    pub(crate) will: Option<MessageId>,
}

pub(crate) struct Publisher {
    pub(crate) entry: Arc<SessionEntry>,
    pub(crate) connection: ConnectionId,
    pub(crate) packet_id: PacketId,
}

pub(crate) struct Commits {
    tail: Arc<Tail<Record>>,
    router: Arc<Router>,
    retained_topics: Arc<RetainedTopics>,
    pub(crate) wills: WillsUnderWay,
    /// Set once the relay runs.
    relay: OnceLock<Signal>,
    /// Sessions whose PUBLISH found the commit queue full, by the connection that waits. Locked by
    /// connections to enter, and by the committer to wake them all.
    waiting: Mutex<BTreeMap<ConnectionId, Arc<SessionEntry>>>,
}

impl Commits {
    pub(crate) fn new(
        tail: Arc<Tail<Record>>,
        router: Arc<Router>,
        retained_topics: Arc<RetainedTopics>,
    ) -> Self {
        Self {
            tail,
            router,
            retained_topics,
            wills: WillsUnderWay::default(),
            relay: OnceLock::new(),
            waiting: Mutex::new(BTreeMap::new()),
        }
    }

    /// Rings `relay` after commits that leave outbox rows; until then its own looks find them.
    pub(crate) fn wakes_by(&self, relay: Signal) {
        self.relay.get_or_init(|| relay);
    }

    /// For whoever was refused room: wakes the session when there is room again. True when it was not waiting
    /// before: the caller tries once more, for the room that came meanwhile.
    pub(crate) fn wait_for_room(&self, connection: ConnectionId, entry: &Arc<SessionEntry>) -> bool {
        self.waiting.lock().insert(connection, entry.clone()).is_none()
    }
}

impl Commits {
    /// Its publisher had it committed before, and has not heard of it. Whoever was to get it has it in the log.
    fn answer_again(&self, item: Pending) {
        repeated();
        if let Some(Publisher { entry, connection, packet_id }) = item.publisher {
            entry.decide(connection, packet_id, ReasonCode::Success);
        }
        if let Some(will) = item.will {
            self.wills.committed(will);
        }
    }
}

impl CommitSink for Commits {
    type Item = Pending;

    fn committed(&self, committed_at: UnixMillis, messages: Vec<Committed<Pending>>) {
        let mut last = Vec::new();
        let mut wakes = false;
        for Committed { placed, append, item } in messages {
            let Placed::Now(offset) = placed else {
                self.answer_again(item);
                continue;
            };
            let tenant = item.message.tenant;
            let commit = Commit { offset, at: committed_at, told: item.told };
            let record = Record::committed(item.message, commit);
            if record.message.retain {
                self.retained_topics.insert(tenant, &record.message.topic);
            }
            self.tail.push(record.clone());
            let subscribed = self.router.fan_out(&record);
            if let Some(publisher) = item.publisher {
                publisher.entry.decide(
                    publisher.connection,
                    publisher.packet_id,
                    delivered(record.message.qos, subscribed),
                );
            }
            if let Some(will) = item.will {
                self.wills.committed(will);
            }
            wakes |= append.wakes.is_some();
            match last.iter_mut().find(|(known, _)| *known == tenant) {
                Some((_, last)) => *last = offset,
                None => last.push((tenant, offset)),
            }
        }
        for (tenant, offset) in last {
            self.tail.log(tenant).set_delivered(offset);
        }
        if wakes && let Some(relay) = self.relay.get() {
            relay.ring();
        }
    }

    fn refused(&self, item: Pending, error: &StoreError) {
        tracing::error!(event = "message_refused", error = %error, "the store refused a message");
        if let Some(will) = item.will {
            self.wills.refused(will);
        }
        if let Some(publisher) = item.publisher {
            publisher.entry.decide(
                publisher.connection,
                publisher.packet_id,
                ReasonCode::ImplementationSpecificError,
            );
        }
    }

    fn budget_freed(&self) {
        for entry in std::mem::take(&mut *self.waiting.lock()).into_values() {
            entry.wake();
        }
    }
}

/// How a PUBLISH that was taken is answered. PUBREC could say the same; that nobody subscribes is of no use to
/// who goes on with an exchange. [MQTT-3.4.2-1]
pub(crate) fn delivered(qos: QoS, subscribed: bool) -> ReasonCode {
    if subscribed || qos == QoS::ExactlyOnce {
        ReasonCode::Success
    } else {
        ReasonCode::NoMatchingSubscribers
    }
}
