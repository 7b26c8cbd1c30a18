//! QoS 1 and 2 messages received from the client whose exchange is not done.

use std::collections::VecDeque;

use sotto_model::PacketId;

use crate::reason::ReasonCode;

#[derive(Debug)]
struct Unacknowledged {
    packet_id: PacketId,
    exactly_once: bool,
    /// Set once the server has decided: PUBACK or PUBREC may leave.
    outcome: Option<ReasonCode>,
}

/// An answer that may now leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    PubAck(PacketId, ReasonCode),
    PubRec(PacketId, ReasonCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// The same QoS 2 message again, its PUBREC still to come.
    Pending,
    /// The same QoS 2 message again, after its PUBREC: that is sent again. [MQTT-4.3.3-10]
    Answered,
}

#[derive(Debug)]
pub(crate) struct Received {
    /// In order of arrival, in which answers leave. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
    unacknowledged: VecDeque<Unacknowledged>,
    /// PUBREC sent, PUBREL not come; each id once.
    unreleased: Vec<PacketId>,
    /// PUBREL come, not yet durable; each id once.
    releasing: Vec<PacketId>,
    /// PUBLISH packets with QoS > 0 that a version 5 client may still send. [MQTT-3.3.4-7]
    quota: u16,
    quota_max: u16,
}

impl Received {
    pub(crate) fn resume(quota: u16, unreleased: Vec<PacketId>) -> Self {
        Self { unacknowledged: VecDeque::new(), unreleased, releasing: Vec::new(), quota, quota_max: quota }
    }

    pub(crate) fn quota(&self) -> u16 {
        self.quota
    }

    pub(crate) fn unreleased(&self) -> &[PacketId] {
        &self.unreleased
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// No exchange is under way, and the client may send as many messages as it ever may.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.unacknowledged.is_empty()
            && self.unreleased.is_empty()
            && self.releasing.is_empty()
            && self.quota == self.quota_max
    }

    pub(crate) fn is_deciding_exactly_once(&self) -> bool {
        self.unacknowledged.iter().any(|entry| entry.exactly_once && entry.outcome.is_none())
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Registers a QoS 1 or 2 PUBLISH. The caller has checked the quota.
    pub(crate) fn arrived(&mut self, packet_id: PacketId, exactly_once: bool) -> Arrival {
        if exactly_once {
            if self.awaits_release(packet_id) {
                return Arrival::Answered;
            }
            let pending = |entry: &Unacknowledged| entry.exactly_once && entry.packet_id == packet_id;
            if self.unacknowledged.iter().any(pending) {
                return Arrival::Pending;
            }
        }
        self.quota = self.quota.saturating_sub(1);
        self.unacknowledged.push_back(Unacknowledged { packet_id, exactly_once, outcome: None });
        Arrival::New
    }

    /// Notes the outcome of a PUBLISH; `next_answer` then yields what may leave.
    pub(crate) fn decided(&mut self, packet_id: PacketId, outcome: ReasonCode) {
        let waiting = self
            .unacknowledged
            .iter_mut()
            .find(|entry| entry.packet_id == packet_id && entry.outcome.is_none());
        if let Some(entry) = waiting {
            entry.outcome = Some(outcome);
        }
    }

    /// Forgets a PUBLISH that is not decided, the last of those with this packet id.
    pub(crate) fn abandon(&mut self, packet_id: PacketId) {
        let last = self
            .unacknowledged
            .iter()
            .rposition(|entry| entry.packet_id == packet_id && entry.outcome.is_none());
        if let Some(at) = last {
            self.unacknowledged.remove(at);
            self.give_back();
        }
    }

    pub(crate) fn next_answer(&mut self) -> Option<Answer> {
        let outcome = self.unacknowledged.front()?.outcome?;
        let entry = self.unacknowledged.pop_front().expect("front is there");
        if self.unacknowledged.is_empty() {
            self.unacknowledged = VecDeque::new();
        }
        if !entry.exactly_once {
            self.give_back();
            return Some(Answer::PubAck(entry.packet_id, outcome));
        }
        if outcome.is_error() {
            self.give_back();
        } else {
            self.unreleased.push(entry.packet_id);
        }
        Some(Answer::PubRec(entry.packet_id, outcome))
    }

    /// Was the PUBREC sent and the PUBCOMP not?
    pub(crate) fn awaits_release(&self, packet_id: PacketId) -> bool {
        self.unreleased.contains(&packet_id) || self.releasing.contains(&packet_id)
    }

    /// PUBREL has come: the client will not send the message again. False when none is expected.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> bool {
        if take(&mut self.unreleased, packet_id) {
            self.releasing.push(packet_id);
            return true;
        }
        self.releasing.contains(&packet_id)
    }

    /// PUBREL has come and is durable; PUBCOMP may leave. [MQTT-4.3.3-11]
    pub(crate) fn released(&mut self, packet_id: PacketId) {
        if take(&mut self.releasing, packet_id) {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        self.quota = self.quota.saturating_add(1).min(self.quota_max);
    }
}

/// True when it was there.
fn take(packet_ids: &mut Vec<PacketId>, packet_id: PacketId) -> bool {
    let Some(at) = packet_ids.iter().position(|id| *id == packet_id) else { return false };
    packet_ids.swap_remove(at);
    if packet_ids.is_empty() {
        *packet_ids = Vec::new();
    }
    true
}
