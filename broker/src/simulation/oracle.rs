//! Who sent, acknowledged and received what, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use sotto_model::{QoS, TopicName};

use crate::simulation::line::Delivered;

/// A moment, in the order in which things happened to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event(u64);

/// The number of a message, in the order in which they were first sent; its payload begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageNo(pub(super) u32);

/// The number of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientNo(pub(super) usize);

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) by: ClientNo,
    pub(super) topic: String,
    pub(super) name: TopicName,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) is_will: bool,
    pub(super) first: Event,
    /// PUBACK or PUBREC, with success.
    pub(super) acknowledged: Option<Event>,
    /// PUBACK or PUBREC, with an error.
    pub(super) refused: bool,
    /// It was sent again: what was refused then may have been taken before.
    pub(super) again: bool,
}

/// Since when somebody is surely a member, and when they surely were not.
#[derive(Clone, Debug, Default)]
pub(super) struct Membership {
    pub(super) since: Option<Event>,
    /// From the removal's return to the call that added again.
    out: Vec<(Event, Option<Event>)>,
}

#[derive(Default)]
pub(super) struct Oracle {
    /// Locked by clients for one event each.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_event: u64,
    sent: Vec<Sent>,
    /// By client and its session.
    received: BTreeMap<(ClientNo, u32), BTreeSet<MessageNo>>,
    /// QoS 2, not as retained.
    received_once: BTreeSet<(ClientNo, u32, MessageNo)>,
    /// The last of those that came for the first time, by client, session, publisher, topic and QoS.
    last_first: BTreeMap<(ClientNo, u32, ClientNo, String, QoS), MessageNo>,
    /// By conversation and user.
    members: BTreeMap<(usize, usize), Membership>,
    /// Received by the members of a share, by its filter.
    shared: BTreeMap<(String, MessageNo), usize>,
    violations: Vec<String>,
}

/// As whom a message is received.
#[derive(Clone, Copy)]
pub(super) struct Receiver<'a> {
    pub(super) client: ClientNo,
    pub(super) session: u32,
    /// The user, in the clinic.
    pub(super) user: Option<usize>,
    /// The shared subscription that it receives by.
    pub(super) share: Option<&'a str>,
    /// Since when a subscription that matches has held.
    pub(super) subscribed: Option<Event>,
}

impl Oracle {
    pub(super) fn event(&self) -> Event {
        self.state.lock().event()
    }

    pub(super) fn violation(&self, what: String) {
        let mut state = self.state.lock();
        if state.violations.len() < 5 {
            state.violations.push(what);
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// A message is about to be sent for the first time.
    pub(super) fn send(&self, by: ClientNo, topic: &str, qos: QoS, retain: bool, is_will: bool) -> MessageNo {
        let mut state = self.state.lock();
        let first = state.event();
        let (topic, name) = (topic.to_owned(), TopicName::parse(topic).expect("a topic"));
        state.sent.push(Sent {
            by,
            topic,
            name,
            qos,
            retain,
            is_will,
            first,
            acknowledged: None,
            refused: false,
            again: false,
        });
        MessageNo(u32::try_from(state.sent.len() - 1).expect("few"))
    }

    pub(super) fn sent(&self, message: MessageNo) -> Sent {
        self.state.lock().sent[message.0 as usize].clone()
    }

    pub(super) fn all_sent(&self) -> Vec<(MessageNo, Sent)> {
        (0..).map(MessageNo).zip(self.state.lock().sent.clone()).collect()
    }

    pub(super) fn sent_again(&self, message: MessageNo) {
        self.state.lock().sent[message.0 as usize].again = true;
    }

    pub(super) fn acknowledged(&self, message: MessageNo, success: bool) {
        let mut state = self.state.lock();
        let now = state.event();
        let sent = &mut state.sent[message.0 as usize];
        if success {
            sent.acknowledged.get_or_insert(now);
        } else {
            sent.refused = true;
        }
    }

    /// How many messages on the topic, of these clients, were acknowledged as published.
    pub(super) fn count_acknowledged(&self, topic: &str, by: impl Fn(ClientNo) -> bool) -> usize {
        let state = self.state.lock();
        let counts = |sent: &&Sent| sent.topic == topic && sent.acknowledged.is_some() && by(sent.by);
        state.sent.iter().filter(counts).count()
    }

    // ---- members ----

    pub(super) fn membership(&self, conversation: usize, user: usize) -> Membership {
        self.state.lock().members.get(&(conversation, user)).cloned().unwrap_or_default()
    }

    /// The user is about to be added, or removed: from here on nothing is sure.
    pub(super) fn member_changes(&self, conversation: usize, user: usize) {
        let mut state = self.state.lock();
        let now = state.event();
        let member = state.members.entry((conversation, user)).or_default();
        member.since = None;
        if let Some((_, until)) = member.out.last_mut() {
            until.get_or_insert(now);
        }
    }

    pub(super) fn member_is(&self, conversation: usize, user: usize, is_member: bool) {
        let mut state = self.state.lock();
        let now = state.event();
        let member = state.members.entry((conversation, user)).or_default();
        if is_member {
            member.since.get_or_insert(now);
        } else if member.out.last().is_none_or(|(_, until)| until.is_some()) {
            member.since = None;
            member.out.push((now, None));
        }
    }

    // ---- deliveries ----

    /// A message that the client's application is handed.
    pub(super) fn receive(&self, by: Receiver<'_>, delivered: &Delivered, conversation: Option<usize>) {
        // The lock is open again by the time that a violation is written down.
        let what = self.state.lock().receive(by, delivered, conversation);
        if let Some(what) = what {
            self.violation(what);
        }
    }

    pub(super) fn has_received(&self, client: ClientNo, session: u32, message: MessageNo) -> bool {
        self.state.lock().received.get(&(client, session)).is_some_and(|received| received.contains(&message))
    }

    /// How many times the share's members were handed it.
    pub(super) fn shared_times(&self, share: &str, message: MessageNo) -> usize {
        self.state.lock().shared.get(&(share.to_owned(), message)).copied().unwrap_or_default()
    }
}

impl State {
    fn event(&mut self) -> Event {
        self.last_event += 1;
        Event(self.last_event)
    }

    /// Says what is wrong with it.
    fn receive(
        &mut self,
        by: Receiver<'_>,
        delivered: &Delivered,
        conversation: Option<usize>,
    ) -> Option<String> {
        self.event();
        let ClientNo(client) = by.client;
        let Some(message) = delivered.payload.split('.').next().and_then(|number| number.parse().ok()) else {
            return Some(format!("client {client} received a payload that nobody sent"));
        };
        let message = MessageNo(message);
        let number = message.0;
        let Some(sent) = self.sent.get(number as usize).filter(|sent| sent.topic == delivered.topic) else {
            return Some(format!("client {client} received {number}, which nobody sent there"));
        };
        if sent.refused && !sent.again {
            return Some(format!("client {client} received {number}, which was refused"));
        }
        if let (Some(user), Some(conversation)) = (by.user, conversation) {
            let member = self.members.get(&(conversation, user)).cloned().unwrap_or_default();
            let was_out = |&(from, until): &(Event, Option<Event>)| {
                sent.first > from
                    && until.is_none_or(|until| sent.acknowledged.is_some_and(|durable| durable < until))
            };
            if member.out.iter().any(was_out) {
                return Some(format!("client {client} received {number}, sent while its user was no member"));
            }
        }
        let first_time = self.received.entry((by.client, by.session)).or_default().insert(message);
        if delivered.retain {
            return None;
        }
        if let Some(share) = by.share {
            *self.shared.entry((share.to_owned(), message)).or_default() += 1;
        } else if delivered.qos == QoS::ExactlyOnce
            && !self.received_once.insert((by.client, by.session, message))
        {
            return Some(format!("client {client} received {number} twice, with QoS 2"));
        }
        // A message sent before its user was surely a member may come live, or by the log after a crash.
        let was_member = match (by.user, conversation) {
            (Some(user), Some(conversation)) => {
                let member = self.members.get(&(conversation, user));
                member.and_then(|member| member.since).is_some_and(|since| sent.first > since)
            }
            _ => true,
        };
        let in_order = by.subscribed.is_some_and(|since| sent.first > since)
            && was_member
            && by.share.is_none()
            && !sent.is_will;
        if first_time && in_order && delivered.qos != QoS::AtMostOnce {
            let key = (by.client, by.session, sent.by, sent.topic.clone(), delivered.qos);
            let last = self.last_first.insert(key, message);
            if let Some(MessageNo(last)) = last.filter(|last| *last > message) {
                return Some(format!(
                    "client {client} received {number} after {last}, of the same publisher"
                ));
            }
        }
        None
    }
}
