//! Wills of stored sessions, kept until they are published or withdrawn.
//!
//! A will is kept when its session is opened, and is due when its connection has ended and its delay has passed or
//! its session has ended, whichever comes first. From then on the session has no say in it. The transaction that
//! commits it to the log ([`Append::will`](crate::message_log::Append::will)) removes it here, so that it is
//! published once.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sotto_keyring::Sealed;
use sotto_model::{ClientId, MessageId, QoS, TenantId, TopicName, UnixMillis, UserId};

use crate::error::StoreError;

/// A will as it is kept with its session.
#[derive(Clone)]
pub struct KeptWill {
    /// Under the message id that it is published under.
    pub sealed: Sealed,
    pub client_id: ClientId,
    pub qos: QoS,
    pub retain: bool,
    /// Will Delay Interval. [MQTT-3.1.3-9]
    pub delay_seconds: u32,
    /// Counted from its publication.
    pub message_expiry_seconds: Option<u32>,
}

/// What becomes of the will that was kept with a session whose connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillEnd {
    /// It is due after its delay, or when the session ends, whichever comes first. One that has been published
    /// meanwhile is gone, and nothing is due.
    Due,
    /// Withdrawn by the client, or done with. [MQTT-3.1.2-10]
    Forgotten,
}

/// A will whose time has come, still sealed.
#[derive(Clone)]
pub struct DueWill {
    pub tenant: TenantId,
    pub client_id: ClientId,
    pub topic: TopicName,
    pub sender: UserId,
    pub message_id: MessageId,
    pub qos: QoS,
    pub retain: bool,
    pub message_expiry_seconds: Option<u32>,
    pub sealed: Bytes,
}

#[async_trait]
pub trait Wills: Send + Sync {
    /// Wills due at or before `now`, the longest due first, at most `limit`.
    async fn due_wills(&self, now: UnixMillis, limit: usize) -> Result<Vec<DueWill>, StoreError>;

    /// Removes wills that were published without a commit, or will not be published. Those that are gone are no
    /// error.
    async fn forget_wills(&self, wills: &[MessageId]) -> Result<(), StoreError>;
}

impl fmt::Debug for KeptWill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeptWill").finish_non_exhaustive()
    }
}
