//! Identifiers. The opaque ones are UUIDs and may be shown; the ones that people choose are redacted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Clock;
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

impl MessageId {
    /// A UUID of version 7: those of one time stand together in an index. RFC 9562, 5.7
    pub fn draw(clock: &impl Clock) -> Self {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&clock.draw().to_ne_bytes());
        random[8..].copy_from_slice(&clock.draw().to_ne_bytes()[..2]);
        Self(uuid::Builder::from_unix_timestamp_millis(clock.unix_now().0, &random).into_uuid())
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::clock::UnixMillis;

    /// Each draw is twice what was drawn before it.
    struct Scripted(UnixMillis, AtomicU64);

    impl Clock for Scripted {
        fn now(&self) -> Instant {
            unreachable!("an id is of the calendar's time")
        }

        fn unix_now(&self) -> UnixMillis {
            self.0
        }

        fn draw(&self) -> u64 {
            self.1
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(last << 1))
                .expect("always some")
        }
    }

    #[test]
    fn message_ids_are_ordered_by_time_and_differ_in_every_bit_that_is_drawn() {
        let at = |millis, drawn| MessageId::draw(&Scripted(UnixMillis(millis), AtomicU64::new(drawn)));
        assert!(at(1, u64::MAX) < at(2, 0));
        assert_eq!(at(7, 0).0.get_version_num(), 7);
        let timestamp = at(1_700_000_000_123, 5).0.get_timestamp().expect("of version 7").to_unix();
        assert_eq!(timestamp, (1_700_000_000, 123_000_000));
        // 74 of 80 bits are left by version and variant; the second draw of these is 0 from bit 15 on.
        let drawn: std::collections::HashSet<_> = (0..64).map(|bit| at(7, 1 << bit)).collect();
        assert!(drawn.len() >= 64 - 6, "{}", drawn.len());
    }
}
