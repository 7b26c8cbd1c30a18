//! From a PUBLISH packet to its answer.

use sotto_model::{PacketId, TopicName, TopicScope};
use sotto_mqtt::packet::{Publish, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::audit::AuditAction;
use tokio::sync::oneshot::error::TryRecvError;

use crate::connection::ending::Farewell;
use crate::connection::live::{Live, Work};
use crate::device_request::{DeviceRequest, is_request};
use crate::metrics::message_in;
use crate::publishing::{Publication, Published, Stall};

impl Live {
    pub(super) fn publish(&mut self, publish: &Publish<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        message_in(publish.qos);
        let topic = self.services.topic_name(self.session.topic(publish));
        if let Ok(topic) = &topic
            && is_request(&self.owned.entry.principal, topic.as_str())
        {
            return self.ask(publish, topic, out);
        }
        let clock = &*self.services.clock;
        match topic.and_then(|topic| Publication::of_publish(publish, topic, &self.owned.entry, clock)) {
            Ok(mut publication) => {
                // Messages are committed in order: the last stands for those before it.
                if publish.retain || publish.packet_id.is_none() && self.is_committing() {
                    self.committing = Some(publication.settling());
                }
                self.submit(publication, out).map(|_| ())
            }
            Err(reason) => self.refuse_publish(publish.packet_id, reason, out),
        }
    }

    /// Nothing more is read until the request is answered: they are carried out in their order.
    fn ask(&mut self, publish: &Publish<'_>, topic: &TopicName, out: &mut Vec<u8>) -> Result<(), Farewell> {
        let packet_id = publish.packet_id;
        let principal = &self.owned.entry.principal;
        match DeviceRequest::parse(&self.services, principal, topic.as_str(), publish.payload) {
            Ok(request) => {
                let services = self.services.clone();
                self.work = Some(Box::pin(async move {
                    Work::Asked { packet_id, outcome: request.carry_out(services).await }
                }));
                Ok(())
            }
            Err(reason) => {
                if reason == ReasonCode::NotAuthorized {
                    self.services.record_denial(&self.owned.entry, AuditAction::PublishDenied, None);
                }
                self.refuse_publish(packet_id, reason, out)
            }
        }
    }

    /// Is a retained message, or one of QoS 0 that follows it, on its way into the store?
    pub(super) fn is_committing(&mut self) -> bool {
        // One that has resolved is not to be asked again.
        self.committing.take_if(|last| !matches!(last.try_recv(), Err(TryRecvError::Empty)));
        self.committing.is_some()
    }

    /// True when it stalled, and is to be looked at again at once.
    fn submit(&mut self, publication: Publication, out: &mut Vec<u8>) -> Result<bool, Farewell> {
        let packet_id = publication.packet_id();
        let conversation = match publication.scope() {
            TopicScope::Conversation(conversation) => Some(conversation.0),
            TopicScope::Inbox(user) => Some(user.0),
            TopicScope::Other => None,
        };
        let after_uncommitted = match packet_id {
            // This one is among them.
            Some(_) => self.session.unanswered() > 1,
            None => publication.is_settling(),
        };
        match self.services.publish(&self.owned.entry, self.connection, publication, after_uncommitted) {
            Published::Decided(outcome) => {
                if let Some(packet_id) = packet_id {
                    self.decide(packet_id, outcome, out)?;
                }
            }
            Published::Submitted => {}
            Published::Stalled(publication, stall) => return Ok(self.stall(publication, stall)),
            Published::Denied => {
                self.services.record_denial(&self.owned.entry, AuditAction::PublishDenied, conversation);
                self.refuse_publish(packet_id, ReasonCode::NotAuthorized, out)?;
            }
            Published::Closed => {
                if let Some(packet_id) = packet_id {
                    self.session.publish_abandoned(packet_id);
                }
                return Err(Farewell::Refused(ReasonCode::ServerShuttingDown));
            }
        }
        Ok(false)
    }

    /// A 3.1.1 PUBACK can only say yes, so a refusal closes the connection. [MQTT-3.3.5-2]
    pub(super) fn decide(
        &mut self,
        packet_id: PacketId,
        outcome: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), Farewell> {
        if outcome.is_error() && self.session.version() == Version::V3 {
            self.session.publish_abandoned(packet_id);
            return Err(Farewell::Refused(outcome));
        }
        self.session.publish_decided(packet_id, outcome, out);
        Ok(())
    }

    pub(super) fn asked(
        &mut self,
        packet_id: Option<PacketId>,
        outcome: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), Farewell> {
        match packet_id {
            Some(packet_id) => self.decide(packet_id, outcome, out),
            None if outcome.is_error() => self.refuse_publish(None, outcome, out),
            None => Ok(()),
        }
    }

    fn refuse_publish(
        &mut self,
        packet_id: Option<PacketId>,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), Farewell> {
        match (self.session.version(), packet_id) {
            (_, Some(packet_id)) => self.decide(packet_id, reason, out),
            (Version::V3, None) => Err(Farewell::Refused(reason)),
            (Version::V5, None) => Ok(()),
        }
    }

    /// True when the publication is to be looked at again at once: for room that came before it was waited
    /// for, and because nobody has polled the key's fetch.
    fn stall(&mut self, publication: Box<Publication>, why: Stall) -> bool {
        self.stalled = Some(publication);
        match why {
            Stall::Budget => self.services.commits.wait_for_room(self.connection, &self.owned.entry),
            Stall::Key(request) => {
                let services = self.services.clone();
                self.work = Some(Box::pin(async move {
                    services.warm(request).await;
                    Work::Warmed
                }));
                true
            }
        }
    }

    /// Tries a stalled PUBLISH again, unless its key is still being fetched. True as for `submit`.
    pub(super) fn retry_stalled(&mut self, out: &mut Vec<u8>) -> Result<bool, Farewell> {
        if self.work.is_some() {
            return Ok(false);
        }
        let Some(publication) = self.stalled.take() else { return Ok(false) };
        self.submit(*publication, out)
    }
}
