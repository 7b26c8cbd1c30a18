//! What a store needs that was restored from a backup: clients have seen more of it than it holds.
//!
//! - Offsets given out after the backup would be given out again, to other messages, and a client that knows
//!   messages by their offset would take those for known. Every log goes on beyond a gap.
//! - Packet identifiers of QoS 2 messages that were received before the backup have been freed since, and a
//!   client may have given one to a new message, which would be taken for the old one and lost. They are
//!   forgotten. A message whose PUBREL had not come by the backup may be committed twice.
//! - A device for which a wakeup had been sent may have been back since, and sleep again. Every wakeup is due
//!   again.

use async_trait::async_trait;
use sotto_model::UnixMillis;

use crate::error::StoreError;

/// Offsets left out in every log: half a day at 100,000 messages a second. SQLite's offsets have room for 4,096 of it.
pub const RESTORE_GAP: u64 = 1 << 32;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Logs that go on beyond a gap: those that hold anything.
    pub logs: u64,
    pub packet_ids_forgotten: u64,
    pub wakeups_due: u64,
}

#[async_trait]
pub trait Restoration: Send + Sync {
    /// In one transaction, with an audit row. Nobody may serve from the store meanwhile.
    async fn restored(&self, now: UnixMillis) -> Result<Restored, StoreError>;
}
