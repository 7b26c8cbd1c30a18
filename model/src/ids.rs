//! Identifiers. The opaque ones are UUIDs and may be shown; the ones that people choose are redacted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::CLIENT_ID_BYTES_MAX;

macro_rules! opaque_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(raw: &str) -> Result<Self, uuid::Error> {
                raw.parse().map(Self)
            }
        }
    )+};
}

opaque_id! {
    /// One customer: a topic tree, a log, users and keys of its own.
    TenantId,
    /// A person, or the anonymous user of a tenant without logins (the nil UUID).
    UserId,
    /// One phone, tablet or browser of a user.
    DeviceId,
    ConversationId,
    /// Drawn when a message is accepted; names it wherever it is stored.
    MessageId,
    /// Given to a message by its publisher (user property `sotto-id`): what is published again under it is the
    /// same message.
    PublicationId,
    /// One access rule of a tenant.
    AclRuleId,
}

/// The storage row of a session that outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// An MQTT Client Identifier. It may name a person, so it has no `Display` and its `Debug` hides it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdError {
    #[error("client identifier is empty")]
    Empty,
    #[error("client identifier is longer than {CLIENT_ID_BYTES_MAX} bytes")]
    TooLong,
    #[error("client identifier holds a control character")]
    Control,
}

impl ClientId {
    pub fn parse(raw: &str) -> Result<Self, ClientIdError> {
        if raw.is_empty() {
            return Err(ClientIdError::Empty);
        }
        if raw.len() > CLIENT_ID_BYTES_MAX {
            return Err(ClientIdError::TooLong);
        }
        if raw.chars().any(char::is_control) {
            return Err(ClientIdError::Control);
        }
        Ok(Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientId(..)")
    }
}
