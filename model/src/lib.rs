//! Sotto's shared vocabulary: what every other crate means by a tenant, an offset, a topic.
//!
//! Nothing here does I/O, reads a clock or draws a random number.

pub mod acl;
pub mod acl_filter;
pub mod backoff;
pub mod client_limits;
pub mod clock;
pub mod ids;
pub mod limits;
pub mod offset;
pub mod principal;
pub mod qos;
pub mod subscription;
pub mod topic;
pub mod urgency;

pub use acl::{AclAction, AclEffect, AclRule};
pub use acl_filter::{AclFilter, AclFilterError, Reach};
pub use backoff::Backoff;
pub use client_limits::{ClientLimits, LimitOutOfRange};
pub use clock::{Clock, UnixMillis};
pub use ids::{
    AclRuleId, ClientId, ConversationId, DeviceId, MessageId, PublicationId, SessionId, TenantId, UserId,
};
pub use offset::{Cursor, Generation, Offset, PacketId};
pub use principal::{Principal, TopicPolicy};
pub use qos::QoS;
pub use subscription::{RetainHandling, Subscription, SubscriptionOptions};
pub use topic::{FilterScope, TopicFilter, TopicName, TopicScope};
pub use urgency::Urgency;
