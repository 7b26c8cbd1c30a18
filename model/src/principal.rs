//! Who a connection acts for, once authentication has said so.

use crate::ids::{ClientId, DeviceId, TenantId, UserId};

/// Whether a tenant's topics are guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicPolicy {
    /// Conversations by membership, inboxes by owner, everything else refused.
    Membership,
    /// No topic is guarded or special: for conformance suites and benchmarks.
    Open,
}

/// An authenticated client. Tenant and user come from authentication, never from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub tenant: TenantId,
    pub user: UserId,
    /// The device, where the tenant has any; `None` for anonymous clients.
    pub device: Option<DeviceId>,
    pub client_id: ClientId,
    pub topics: TopicPolicy,
}
