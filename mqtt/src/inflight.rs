//! QoS 1 and 2 messages sent to the client and not yet done.

use std::collections::VecDeque;

use sotto_model::{Offset, PacketId, QoS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightMessage {
    pub packet_id: PacketId,
    /// `None` for a message that is in no log: it is gone with the connection.
    pub offset: Option<Offset>,
    pub qos: QoS,
    /// It was sent with RETAIN, and will be when it is sent again.
    pub retain: bool,
    /// PUBREC has come and PUBREL was sent.
    pub released: bool,
    /// Left from an earlier connection and not yet sent again on this one.
    pub(crate) to_resend: bool,
    /// Not yet sent for the first time.
    pub(crate) held: bool,
    /// What is stored of it says as much as this does. What is not kept is not sent: neither the PUBLISH of
    /// a QoS 2 message, and what follows it, nor its PUBREL.
    pub(crate) kept: bool,
}

impl InflightMessage {
    /// What an earlier connection left in flight.
    pub fn left(packet_id: PacketId, offset: Offset, qos: QoS, retain: bool, released: bool) -> Self {
        let offset = Some(offset);
        Self { packet_id, offset, qos, retain, released, to_resend: true, held: false, kept: true }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AckError {
    #[error("packet identifier is not in flight")]
    NotFound,
    #[error("acknowledgement is of the wrong kind for the message's QoS")]
    WrongKind,
}

/// In the order of sending; packet ids are reused only after completion. [MQTT-2.2.1-3]
#[derive(Debug)]
pub(crate) struct Inflight {
    messages: VecDeque<InflightMessage>,
    next_packet_id: PacketId,
}

impl Inflight {
    pub(crate) fn new() -> Self {
        Self::beginning_with(PacketId::FIRST)
    }

    pub(crate) fn beginning_with(next_packet_id: PacketId) -> Self {
        Self { messages: VecDeque::new(), next_packet_id }
    }

    /// Where the search for the next free one begins.
    pub(crate) fn next_packet_id(&self) -> PacketId {
        self.next_packet_id
    }

    /// What an earlier connection left, in its order of sending.
    pub(crate) fn resume(left: impl IntoIterator<Item = InflightMessage>) -> Self {
        let mut inflight = Self::new();
        for message in left {
            inflight.next_packet_id = message.packet_id.next();
            inflight.messages.push_back(message);
        }
        inflight
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &InflightMessage> {
        self.messages.iter()
    }

    pub(crate) fn newest(&self) -> Option<PacketId> {
        self.messages.back().map(|message| message.packet_id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Those that the client has got on this connection and owes an answer.
    pub(crate) fn outstanding(&self) -> usize {
        self.messages.iter().filter(|message| !message.to_resend).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn has_to_resend(&self) -> bool {
        self.messages.iter().any(|message| message.to_resend)
    }

    /// Takes a free packet id for a message that is being sent, or will be once it is kept.
    pub(crate) fn push(&mut self, offset: Option<Offset>, qos: QoS, retain: bool, held: bool) -> PacketId {
        assert!(self.messages.len() < usize::from(u16::MAX), "bounded by INFLIGHT_MAX");
        while self.messages.iter().any(|message| message.packet_id == self.next_packet_id) {
            self.next_packet_id = self.next_packet_id.next();
        }
        let packet_id = self.next_packet_id;
        self.next_packet_id = packet_id.next();
        self.messages.push_back(InflightMessage {
            packet_id,
            offset,
            qos,
            retain,
            released: false,
            to_resend: false,
            held,
            kept: !held,
        });
        packet_id
    }

    /// The next message to send again, in the original order. [MQTT-4.6.0-1]
    pub(crate) fn next_to_resend(&self) -> Option<InflightMessage> {
        self.messages.iter().find(|message| message.to_resend).copied()
    }

    pub(crate) fn resent(&mut self, packet_id: PacketId) {
        if let Some(message) = self.find(packet_id) {
            message.to_resend = false;
        }
    }

    /// PUBACK. [MQTT-4.3.2-2]
    pub(crate) fn acknowledge(&mut self, packet_id: PacketId) -> Result<InflightMessage, AckError> {
        match self.find(packet_id) {
            None => Err(AckError::NotFound),
            Some(message) if message.qos != QoS::AtLeastOnce => Err(AckError::WrongKind),
            Some(_) => Ok(self.remove(packet_id)),
        }
    }

    /// PUBREC with Success: the message is the client's, PUBREL follows, once that is kept where it has to
    /// be. Returns whether PUBREL may leave. [MQTT-4.3.3-3]
    pub(crate) fn release(&mut self, packet_id: PacketId, keeps: bool) -> Result<bool, AckError> {
        match self.find(packet_id) {
            None => Err(AckError::NotFound),
            Some(message) if message.qos != QoS::ExactlyOnce => Err(AckError::WrongKind),
            Some(message) => {
                if !message.released {
                    message.kept = !keeps || message.offset.is_none();
                }
                message.released = true;
                message.to_resend = false;
                Ok(message.kept)
            }
        }
    }

    /// Those that are not kept, in order of sending.
    pub(crate) fn unkept(&self) -> impl Iterator<Item = PacketId> {
        self.messages.iter().filter(|message| !message.kept).map(|message| message.packet_id)
    }

    pub(crate) fn has_held(&self) -> bool {
        self.messages.iter().any(|message| message.held)
    }

    /// It is sent for the first time.
    pub(crate) fn sent(&mut self, packet_id: PacketId) {
        if let Some(message) = self.find(packet_id) {
            message.held = false;
        }
    }

    /// Notes that it is kept, and returns it.
    pub(crate) fn keep(&mut self, packet_id: PacketId) -> Option<InflightMessage> {
        let message = self.find(packet_id)?;
        message.kept = true;
        Some(*message)
    }

    /// PUBREC with a failure: the client does not take the message; nothing follows.
    pub(crate) fn reject(&mut self, packet_id: PacketId) -> Result<InflightMessage, AckError> {
        match self.find(packet_id) {
            None => Err(AckError::NotFound),
            Some(message) if message.qos != QoS::ExactlyOnce => Err(AckError::WrongKind),
            Some(_) => Ok(self.remove(packet_id)),
        }
    }

    /// PUBCOMP. [MQTT-4.3.3-5]
    pub(crate) fn complete(&mut self, packet_id: PacketId) -> Result<InflightMessage, AckError> {
        match self.find(packet_id) {
            None => Err(AckError::NotFound),
            Some(message) if message.qos != QoS::ExactlyOnce || !message.released => Err(AckError::WrongKind),
            Some(_) => Ok(self.remove(packet_id)),
        }
    }

    /// Drops a message that can no longer be sent (expired, or too large for this client).
    pub(crate) fn forget(&mut self, packet_id: PacketId) {
        self.messages.retain(|message| message.packet_id != packet_id);
    }

    /// Gives an idle session's memory back.
    pub(crate) fn shrink(&mut self) {
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    fn find(&mut self, packet_id: PacketId) -> Option<&mut InflightMessage> {
        self.messages.iter_mut().find(|message| message.packet_id == packet_id)
    }

    fn remove(&mut self, packet_id: PacketId) -> InflightMessage {
        let at = self
            .messages
            .iter()
            .position(|message| message.packet_id == packet_id)
            .expect("found by the caller");
        self.messages.remove(at).expect("found by the caller")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_id_is_reused_only_after_completion() {
        let mut inflight = Inflight::new();
        let first = inflight.push(None, QoS::AtLeastOnce, false, false);
        inflight.next_packet_id = first;
        let second = inflight.push(None, QoS::AtLeastOnce, false, false);
        assert_ne!(first, second);
        inflight.acknowledge(first).expect("in flight");
        inflight.next_packet_id = first;
        assert_eq!(inflight.push(None, QoS::AtLeastOnce, false, false), first);
    }

    #[test]
    fn an_acknowledgement_of_the_wrong_kind_changes_nothing() {
        let mut inflight = Inflight::new();
        let once = inflight.push(Some(Offset(1)), QoS::AtLeastOnce, false, false);
        let exactly = inflight.push(Some(Offset(2)), QoS::ExactlyOnce, false, false);
        assert_eq!(inflight.release(once, false), Err(AckError::WrongKind));
        assert_eq!(inflight.acknowledge(exactly), Err(AckError::WrongKind));
        assert_eq!(inflight.complete(exactly), Err(AckError::WrongKind));
        assert_eq!(inflight.len(), 2);
        inflight.release(exactly, false).expect("in flight");
        inflight.complete(exactly).expect("released");
        inflight.acknowledge(once).expect("in flight");
        assert!(inflight.is_empty());
    }

    #[test]
    fn what_an_earlier_connection_left_does_not_count_until_it_is_sent_again() {
        let left = InflightMessage::left(PacketId::FIRST, Offset(9), QoS::AtLeastOnce, false, false);
        let mut inflight = Inflight::resume([left]);
        assert_eq!((inflight.outstanding(), inflight.len()), (0, 1));
        inflight.resent(PacketId::FIRST);
        assert_eq!(inflight.outstanding(), 1);
        assert_eq!(inflight.push(None, QoS::AtLeastOnce, false, false), PacketId::FIRST.next());
    }
}
