//! What a client keeps between its connections, and through the node's crashes.

use std::collections::{BTreeMap, BTreeSet};

use sotto_model::{PacketId, QoS, TopicFilter, TopicName};

use crate::simulation::oracle::{Event, MessageNo};
use crate::simulation::plan::Chance;

pub(super) struct Memory {
    pub(super) chance: Chance,
    pub(super) expects: Expects,
    /// Counts the sessions that the client has had.
    pub(super) session: u32,
    /// By filter as subscribed.
    pub(super) subscriptions: BTreeMap<String, Held>,
    /// In the order in which they were first sent.
    pub(super) outgoing: Vec<Outgoing>,
    /// QoS 2 messages received whose PUBREL has not come.
    pub(super) received: BTreeSet<PacketId>,
    pub(super) last_packet_id: u16,
    /// A CONNECT with Clean Start was not answered: what the broker holds is not known, and not wanted.
    pub(super) must_begin_anew: bool,
    /// Connected, with its session open.
    pub(super) is_online: bool,
    /// Messages left to be published when all are connected.
    pub(super) last_words: usize,
    /// It gave up a session, or a subscription.
    pub(super) gave_up: bool,
}

/// What CONNACK may say of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    Absent,
    Present,
    /// A CONNECT that may have made or discarded it was not answered.
    Either,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Without the share.
    pub(super) filter: TopicFilter,
    pub(super) qos: QoS,
    /// When SUBACK came, and has held since.
    pub(super) since: Option<Event>,
}

#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) packet_id: PacketId,
    pub(super) message: MessageNo,
    pub(super) qos: QoS,
    /// PUBREC has come.
    pub(super) is_received: bool,
}

impl Memory {
    pub(super) fn new(chance: Chance) -> Self {
        Self {
            chance,
            expects: Expects::Absent,
            session: 0,
            subscriptions: BTreeMap::new(),
            outgoing: Vec::new(),
            received: BTreeSet::new(),
            last_packet_id: 0,
            must_begin_anew: false,
            is_online: false,
            last_words: 3,
            gave_up: false,
        }
    }

    /// The session is gone, on either side.
    pub(super) fn forget(&mut self) {
        self.gave_up |= !self.subscriptions.is_empty();
        self.session += 1;
        self.subscriptions.clear();
        self.outgoing.clear();
        self.received.clear();
    }

    /// Since when a subscription of QoS 1 or 2 has held that matches.
    pub(super) fn subscribed(&self, topic: &TopicName) -> Option<Event> {
        let matches =
            |held: &Held| held.since.filter(|_| held.qos != QoS::AtMostOnce && held.filter.matches(topic));
        self.subscriptions.values().filter_map(matches).min()
    }

    pub(super) fn next_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id % 200 + 1;
            let id = PacketId::new(self.last_packet_id).expect("from 1 on");
            if !self.outgoing.iter().any(|sent| sent.packet_id == id) {
                return id;
            }
        }
    }

    pub(super) fn outgoing(&mut self, packet_id: PacketId) -> Option<&mut Outgoing> {
        self.outgoing.iter_mut().find(|sent| sent.packet_id == packet_id)
    }

    pub(super) fn done(&mut self, packet_id: PacketId) {
        self.outgoing.retain(|sent| sent.packet_id != packet_id);
    }
}
