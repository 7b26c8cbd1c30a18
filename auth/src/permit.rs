//! Proof that a publish was allowed.

use sotto_model::{ConversationId, TenantId, TopicName, UserId};

/// One message may be published by this sender to this topic. Only the policy makes one, sealing uses
/// it up, and storage takes nothing but sealed bytes: an unauthorized commit does not compile.
pub struct PublishPermit {
    tenant: TenantId,
    sender: UserId,
    topic: TopicName,
    conversation: Option<ConversationId>,
}

/// Not allowed. It does not say why, so that a conversation of others and one that does not exist look
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not authorized")]
pub struct Denied;

impl PublishPermit {
    pub(crate) fn new(
        tenant: TenantId,
        sender: UserId,
        topic: TopicName,
        conversation: Option<ConversationId>,
    ) -> Self {
        Self { tenant, sender, topic, conversation }
    }

    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub fn sender(&self) -> UserId {
        self.sender
    }

    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The conversation that the topic belongs to; `None` for an inbox, and wherever no topic is guarded.
    pub fn conversation(&self) -> Option<ConversationId> {
        self.conversation
    }

    /// Uses the permit up, without copying the topic.
    pub fn into_topic(self) -> TopicName {
        self.topic
    }
}
