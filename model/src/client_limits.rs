//! What one node allows its clients.

use crate::limits::{
    INFLIGHT_MAX, MAILBOX_BYTES_MAX, MAILBOX_RECORDS_MAX, PACKET_BYTES_MAX, RECEIVE_MAXIMUM,
    SESSION_EXPIRY_SECONDS_MAX, SESSIONS_PER_TENANT_MAX, SUBSCRIPTIONS_PER_SESSION_MAX, TOPIC_ALIAS_MAXIMUM,
    TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX,
};

/// Set by the operator, within the bounds of [`crate::limits`]. What MQTT has a word for is announced in
/// CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Largest packet accepted (Maximum Packet Size), bytes.
    pub packet_bytes_max: u32,
    /// Longest topic name or filter, bytes.
    pub topic_bytes_max: usize,
    /// Deepest topic name or filter, levels.
    pub topic_levels_max: usize,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets accepted from one client (Receive Maximum).
    pub receive_maximum: u16,
    /// Topic Aliases one client may set (Topic Alias Maximum); 0: none.
    pub topic_alias_maximum: u16,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets sent to one client, whatever it would take.
    pub inflight_max: u16,
    /// Messages that wait in memory for one session; past that it reads the log.
    pub queue_records_max: usize,
    /// The same, bytes.
    pub queue_bytes_max: usize,
    /// Subscriptions one session may hold.
    pub subscriptions_per_session_max: usize,
    /// Sessions one tenant may have, connected or stored.
    pub sessions_per_tenant_max: usize,
    /// Longest Session Expiry Interval granted, seconds.
    pub session_expiry_seconds_max: u32,
    /// Longest Keep Alive granted (Server Keep Alive), seconds; 0: whatever the client asks.
    pub keep_alive_seconds_max: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {min} to {max}")]
pub struct LimitOutOfRange {
    pub name: &'static str,
    pub min: u64,
    pub max: u64,
}

impl ClientLimits {
    pub const DEFAULT: Self = Self {
        packet_bytes_max: PACKET_BYTES_MAX,
        topic_bytes_max: TOPIC_BYTES_MAX,
        topic_levels_max: 200,
        receive_maximum: RECEIVE_MAXIMUM,
        topic_alias_maximum: 10,
        inflight_max: INFLIGHT_MAX,
        queue_records_max: 256,
        queue_bytes_max: 512 * 1024,
        subscriptions_per_session_max: SUBSCRIPTIONS_PER_SESSION_MAX,
        sessions_per_tenant_max: 1_000_000,
        session_expiry_seconds_max: SESSION_EXPIRY_SECONDS_MAX,
        keep_alive_seconds_max: 0,
    };

    pub fn check(&self) -> Result<(), LimitOutOfRange> {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let bounds: [(&'static str, u64, u64, u64); 12] = [
            ("packet_bytes_max", self.packet_bytes_max.into(), 256, PACKET_BYTES_MAX.into()),
            ("topic_bytes_max", wide(self.topic_bytes_max), 64, wide(TOPIC_BYTES_MAX)),
            ("topic_levels_max", wide(self.topic_levels_max), 4, wide(TOPIC_LEVELS_MAX)),
            ("receive_maximum", self.receive_maximum.into(), 1, RECEIVE_MAXIMUM.into()),
            ("topic_alias_maximum", self.topic_alias_maximum.into(), 0, TOPIC_ALIAS_MAXIMUM.into()),
            ("inflight_max", self.inflight_max.into(), 1, INFLIGHT_MAX.into()),
            ("queue_records_max", wide(self.queue_records_max), 2, wide(MAILBOX_RECORDS_MAX)),
            ("queue_bytes_max", wide(self.queue_bytes_max), 1024, wide(MAILBOX_BYTES_MAX)),
            (
                "subscriptions_per_session_max",
                wide(self.subscriptions_per_session_max),
                1,
                wide(SUBSCRIPTIONS_PER_SESSION_MAX),
            ),
            ("sessions_per_tenant_max", wide(self.sessions_per_tenant_max), 1, wide(SESSIONS_PER_TENANT_MAX)),
            (
                "session_expiry_seconds_max",
                self.session_expiry_seconds_max.into(),
                0,
                SESSION_EXPIRY_SECONDS_MAX.into(),
            ),
            ("keep_alive_seconds_max", self.keep_alive_seconds_max.into(), 0, u16::MAX.into()),
        ];
        match bounds.into_iter().find(|(_, set, min, max)| !(min..=max).contains(&set)) {
            Some((name, _, min, max)) => Err(LimitOutOfRange { name, min, max }),
            None => Ok(()),
        }
    }

    /// Is a topic name or filter as short and as shallow as it has to be?
    pub fn allow_topic(&self, raw: &str) -> bool {
        raw.len() <= self.topic_bytes_max && raw.split('/').count() <= self.topic_levels_max
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_the_bounds() {
        assert_eq!(ClientLimits::DEFAULT.check(), Ok(()));
    }

    #[test]
    fn a_limit_out_of_range_is_named() {
        let limits = ClientLimits { receive_maximum: 0, ..ClientLimits::DEFAULT };
        let error = limits.check().expect_err("zero is not allowed by MQTT");
        assert_eq!(error.to_string(), "receive_maximum must be 1 to 128");
        assert!(ClientLimits { packet_bytes_max: u32::MAX, ..ClientLimits::DEFAULT }.check().is_err());
    }

    #[test]
    fn a_topic_is_allowed_up_to_its_length_and_its_levels() {
        let limits = ClientLimits { topic_bytes_max: 5, topic_levels_max: 2, ..ClientLimits::DEFAULT };
        assert!(limits.allow_topic("ab/cd"));
        assert!(!limits.allow_topic("ab/cde"));
        assert!(!limits.allow_topic("a/b/c"));
    }
}
