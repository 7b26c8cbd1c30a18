//! From a committed message to the devices that sleep.
//!
//! ```text
//! outbox   a row for a message, or for several of one commit, committed with them; deleted by the relay in
//!          the transaction that makes the wakeups due
//! wake     one row a sleeping device: Due → (claimed under a lease) → Sent, until the device returns
//! ```

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sotto_model::{DeviceId, TenantId, UnixMillis, Urgency};

use crate::error::StoreError;
use crate::push_registry::{Lane, Platform};
use crate::wakeup_quota::WakeupQuota;

/// Push services are asked to keep a push for a device that they cannot reach so long. One that was handed over
/// before that is as good as never sent.
pub const PUSH_TTL: Duration = Duration::from_hours(24);
/// Lanes that [`Outbox::lag`] tells of.
pub const LANES_MAX: usize = 64;
/// Wakeups of one lane and state that [`Outbox::lag`] counts to: more are so many.
pub const LAG_COUNT_MAX: usize = 100_000;

/// What one turn of the relay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Those of the outbox rows that it took.
    pub messages: u64,
    /// Devices for which a wakeup became due, or due once more; those for which one stands as it was are not counted.
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
    /// When the message was committed that it is due for: the oldest of those that one turn of the relay took.
    pub due_since: UnixMillis,
    pub urgency: Urgency,
    pub platform: Platform,
    /// See [`Lane::app`].
    pub app: Box<str>,
    pub sealed_token: Bytes,
    pub registered_at: UnixMillis,
    /// When this token was last handed a wakeup that is not urgent.
    pub last_low_sent_at: Option<UnixMillis>,
}

impl ClaimedWakeup {
    pub fn lane(&self) -> Lane {
        Lane { platform: self.platform, app: self.app.clone() }
    }
}

/// How a claimed wakeup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Handed over. Nothing more is sent until the device has been back, but for what is more urgent, or comes
    /// when the push service has given up on this one ([`PUSH_TTL`]).
    Sent { at: UnixMillis },
    /// One more failed attempt; claimable again from then on.
    RetryAt(UnixMillis),
    /// Put off without an attempt; claimable again from then on.
    Wait(UnixMillis),
    /// The push service says that the token is dead, or has been since a moment that it names. The registration
    /// goes too, with two exceptions. The device has registered anew since the claim: the wakeup is due at once.
    /// Or it registered at or after that moment: then it was one more failed attempt, and the wakeup is claimable
    /// again at `retry_at`.
    TokenInvalid { since: Option<UnixMillis>, retry_at: UnixMillis },
    /// Given up: kept as a dead letter (ids, attempts and outcome only). The next message is another chance.
    Dead { outcome: &'static str },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxLag {
    /// Messages in outbox rows.
    pub messages: u64,
    /// Commit time of the oldest outbox row.
    pub oldest: Option<UnixMillis>,
    /// Of all lanes: wakeups that are not sent.
    pub wakeups_due: u64,
    pub dead_letters: u64,
    /// At most [`LANES_MAX`]: those that have a wakeup.
    pub lanes: Vec<LaneLag>,
}

/// The wakeups of one lane; of each kind at most [`LAG_COUNT_MAX`] are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneLag {
    pub lane: Lane,
    /// Claimable.
    pub due: u64,
    /// Claimable later: put off, or after a failed attempt, or over its tenant's quota.
    pub waiting: u64,
    /// Under a live lease.
    pub leased: u64,
    /// Handed over; their devices have not been back.
    pub sent: u64,
    /// Since when the first of the claimable ones is.
    pub oldest_due: Option<UnixMillis>,
}

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub platform: Platform,
    /// See [`Lane::app`].
    pub app: Box<str>,
    pub urgency: Urgency,
    /// Failed ones, the last included.
    pub attempts: u32,
    pub outcome: String,
    pub died_at: UnixMillis,
}

/// Which dead letters are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterSelector {
    All,
    Tenant(TenantId),
    Device(TenantId, DeviceId),
}

/// What became of dead letters that were taken up again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Devices for which a wakeup became due.
    pub due: u64,
    /// Letters that made none due: their device is registered nowhere, is back, or is to be woken anyway.
    pub gone: u64,
}

#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes at most `limit` outbox rows and, in the same transaction, makes a wakeup due for every device
    /// of the conversation's members (of the user, for an inbox) that has a push registration and a
    /// stored session that is disconnected, has not expired, and has its cursor before the message; not for
    /// devices with another session that is connected, not for the sender's own, not for members since a
    /// later offset, not where a wakeup is outstanding, and not for a message that has expired.
    ///
    /// The wakeup is as urgent as the most urgent of the messages, those of a conversation that the user has muted
    /// counting as [`Urgency::Low`]. A wakeup that is outstanding gives way in two cases, to be due anew, without
    /// failed attempts and to no one's lease: it is less urgent, or it was sent [`PUSH_TTL`] ago.
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError>;

    /// Leases at most `limit` wakeups of a lane that are due at `now` and neither sent nor under a live lease. A
    /// wakeup whose device has returned, or has no stored session left, is deleted, not claimed.
    async fn claim(
        &self,
        lane: &Lane,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError>;

    /// Is the device still asleep? Asked just before the push leaves.
    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError>;

    /// Ends the leases, each wakeup's once. Under a lease that is not the wakeup's any more it changes nothing.
    /// Where it fails, some may have been settled; doing it again does no harm.
    async fn settle_many(
        &self,
        settlements: &[(ClaimedWakeup, Settlement)],
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    async fn settle(
        &self,
        wakeup: &ClaimedWakeup,
        settlement: Settlement,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.settle_many(&[(wakeup.clone(), settlement)], now).await
    }

    /// Wakeups become due within this from then on, whatever makes them due.
    fn set_wakeup_quota(&self, quota: WakeupQuota);

    async fn lag(&self, now: UnixMillis) -> Result<OutboxLag, StoreError>;

    /// The latest first.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// Takes at most `limit` dead letters, the oldest first, and deletes them. Where a device is still registered
    /// and asleep and has no outstanding wakeup, one becomes due.
    async fn replay_dead_letters(
        &self,
        selector: DeadLetterSelector,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Replayed, StoreError>;

    /// Deletes at most `limit` dead letters that died before `before`.
    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError>;
}
