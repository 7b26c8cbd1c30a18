//! Why bytes are not a packet.

use crate::reason::ReasonCode;

/// Names the rule that was broken and nothing of what the packet held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    /// What a version 5 peer is told.
    pub reason: ReasonCode,
    pub what: &'static str,
}

impl DecodeError {
    pub(crate) const fn new(reason: ReasonCode, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::new(ReasonCode::MalformedPacket, what)
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, what)
    }
}
