//! From a committed message to the devices that sleep.
//!
//! ```text
//! outbox   a row for a message, or for several of one commit, committed with them; deleted by the relay in
//!          the transaction that makes the wakeups due
//! wake     one row a sleeping device: Due → (claimed under a lease) → Sent, until the device returns
//! ```

use async_trait::async_trait;
use bytes::Bytes;
use sotto_model::{DeviceId, TenantId, UnixMillis};

use crate::error::StoreError;
use crate::push_registry::Platform;

/// What one turn of the relay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Those of the outbox rows that it took.
    pub messages: u64,
    /// Devices for which a wakeup became due; those that have one already are not counted.
    pub wakeups: u64,
    /// It took as many rows as it may: there may be more.
    pub full: bool,
}

/// A wakeup that this process may deliver until its lease ends.
#[derive(Clone)]
pub struct ClaimedWakeup {
    pub tenant: TenantId,
    pub device: DeviceId,
    /// Fences the claim: settling under an older lease changes nothing.
    pub lease: u64,
    /// Failed attempts before this one.
    pub attempts: u32,
    pub due_since: UnixMillis,
    pub platform: Platform,
    pub sealed_token: Bytes,
    pub registered_at: UnixMillis,
}

/// How a claimed wakeup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Handed over. Nothing more is sent until the device has been back.
    Sent,
    /// One more failed attempt; claimable again from then on.
    RetryAt(UnixMillis),
    /// The push service says that the token is dead: the registration goes too, unless the device has
    /// registered anew since the claim; then the wakeup is due at once.
    TokenInvalid,
    /// Given up: kept as a dead letter (ids, attempts and outcome only). The next message is another chance.
    Dead { outcome: &'static str },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxLag {
    /// Messages in outbox rows.
    pub messages: u64,
    /// Commit time of the oldest outbox row.
    pub oldest: Option<UnixMillis>,
    pub wakeups_due: u64,
    pub dead_letters: u64,
}

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub tenant: TenantId,
    pub device: DeviceId,
    /// Failed ones, the last included.
    pub attempts: u32,
    pub outcome: String,
    pub died_at: UnixMillis,
}

#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes at most `limit` outbox rows and, in the same transaction, makes a wakeup due for every device
    /// of the conversation's members (of the user, for an inbox) that has a push registration and a
    /// stored session that is disconnected, has not expired, and has its cursor before the message; not for
    /// devices with another session that is connected, not for the sender's own, not for members since a
    /// later offset, not where a wakeup is outstanding, and not for a message that has expired.
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError>;

    /// Leases at most `limit` wakeups that are due at `now` and neither sent nor under a live lease. A
    /// wakeup whose device has returned, or has no stored session left, is deleted, not claimed.
    async fn claim(
        &self,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError>;

    /// Is the device still asleep? Asked just before the push leaves.
    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError>;

    /// Ends the lease. Under a lease that is not the wakeup's any more it changes nothing.
    async fn settle(
        &self,
        wakeup: &ClaimedWakeup,
        settlement: Settlement,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    async fn lag(&self) -> Result<OutboxLag, StoreError>;

    /// The latest first.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// Deletes at most `limit` dead letters that died before `before`.
    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError>;
}
