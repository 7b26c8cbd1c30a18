//! How long the log keeps what it holds, and how it forgets: always from its beginning.

use std::cmp;

use async_trait::async_trait;
use sotto_model::{Offset, TenantId, UnixMillis};

use crate::directory::DirectoryError;
use crate::error::StoreError;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Messages in one stretch of a log that is kept by size.
pub const STRETCH_MESSAGES_MAX: u64 = 10_000;
/// A log is measured in stretches of at most this part of what it may hold: by so much it may hold more.
const STRETCHES_PER_LOG_MIN: u64 = 8;

/// What is configured for all tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Messages are deleted after so many days; 0: never for their age.
    pub days: u32,
    /// Sealed bytes of one tenant over which its oldest messages are deleted; 0: never for their size.
    pub bytes: u64,
    /// Nothing younger is deleted, whatever else is said.
    pub minimum_days: u32,
}

/// What a tenant has of its own in the place of the policy's; `None`: the policy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    pub days: Option<u32>,
    pub bytes: Option<u64>,
}

/// How one tenant's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantRetention {
    pub tenant: TenantId,
    pub limits: RetentionLimits,
    /// Nothing of the tenant's is deleted.
    pub legal_hold: bool,
    /// Nothing at or before this offset is held any more.
    pub start: Offset,
}

/// What may go of one tenant's log at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What was committed before this is too old.
    pub too_old_before: Option<UnixMillis>,
    /// Sealed bytes beyond which the oldest may go.
    pub bytes_max: Option<u64>,
    /// What was committed at or after this stays.
    pub young_from: UnixMillis,
}

impl RetentionPolicy {
    /// Whether a tenant may be kept for so many days.
    pub fn allows_days(&self, days: u32) -> bool {
        days == 0 || days >= self.minimum_days
    }

    /// What was committed at or after this stays.
    pub fn young_from(&self, now: UnixMillis) -> UnixMillis {
        days_before(now, self.minimum_days)
    }
}

impl TenantRetention {
    /// `None`: nothing may go.
    pub fn allowance(&self, policy: &RetentionPolicy, now: UnixMillis) -> Option<Allowance> {
        if self.legal_hold {
            return None;
        }
        let days = self.limits.days.unwrap_or(policy.days);
        let bytes = self.limits.bytes.unwrap_or(policy.bytes);
        // A minimum that was raised holds for tenants that were set before.
        let too_old_before = (days > 0).then(|| days_before(now, cmp::max(days, policy.minimum_days)));
        let bytes_max = (bytes > 0).then_some(bytes);
        (too_old_before.is_some() || bytes_max.is_some()).then(|| Allowance {
            too_old_before,
            bytes_max,
            young_from: policy.young_from(now),
        })
    }
}

fn days_before(now: UnixMillis, days: u32) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(u64::from(days) * DAY_MS))
}

/// Part of a tenant's log, measured: what lies after the stretch before it, up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub up_to: Offset,
    pub messages: u64,
    /// Sealed.
    pub bytes: u64,
    /// When the youngest of them was committed.
    pub last_at: UnixMillis,
}

/// A message as it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    pub offset: Offset,
    pub bytes: u64,
    pub at: UnixMillis,
}

impl Stretch {
    /// Goes on measuring after `last`, the last stretch so far. The first of what is returned takes its place
    /// if `last` was not yet full.
    pub fn measure(last: Option<Self>, messages: &[Measured], bytes_max: u64) -> Vec<Self> {
        let mut stretches: Vec<Self> = last.filter(|last| !last.is_full(bytes_max)).into_iter().collect();
        for message in messages {
            match stretches.last_mut().filter(|stretch| !stretch.is_full(bytes_max)) {
                Some(stretch) => {
                    stretch.up_to = message.offset;
                    stretch.messages += 1;
                    stretch.bytes = stretch.bytes.saturating_add(message.bytes);
                    stretch.last_at = cmp::max(stretch.last_at, message.at);
                }
                None => stretches.push(Self {
                    up_to: message.offset,
                    messages: 1,
                    bytes: message.bytes,
                    last_at: message.at,
                }),
            }
        }
        stretches
    }

    pub fn is_full(&self, bytes_max: u64) -> bool {
        self.messages >= STRETCH_MESSAGES_MAX || self.bytes >= bytes_max / STRETCHES_PER_LOG_MIN
    }

    /// The end of what may go of a log that consists of these stretches, oldest first: whole stretches, without
    /// which there is still as much as may be held. Nothing that is young goes, nor what follows it.
    pub fn surplus(stretches: &[Self], bytes_max: u64, young_from: UnixMillis) -> Option<Offset> {
        let mut left = stretches.iter().fold(0_u64, |sum, stretch| sum.saturating_add(stretch.bytes));
        let mut end = None;
        for stretch in stretches {
            left -= cmp::min(left, stretch.bytes);
            if left < bytes_max || stretch.last_at >= young_from {
                break;
            }
            end = Some(stretch.up_to);
        }
        end
    }
}

/// What one step has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// One by one.
    pub messages: u64,
    /// Weeks of the log that went as a whole, with however many messages.
    pub weeks: u64,
    /// The next step may find more to do.
    pub goes_on: bool,
}

#[async_trait]
pub trait Retention: Send + Sync {
    /// Every tenant's.
    async fn retention(&self) -> Result<Vec<TenantRetention>, StoreError>;

    /// As with every change of the directory, the revision rises and an audit row is written with it.
    async fn set_retention(
        &self,
        tenant: TenantId,
        limits: RetentionLimits,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;

    /// The same. Once it is set, nothing of the tenant's is deleted any more.
    async fn set_legal_hold(
        &self,
        tenant: TenantId,
        legal_hold: bool,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;

    /// One small step: deletes at most `limit` of the messages that may go, from the beginning of a tenant's
    /// log, or a part of the log that may go as a whole; or measures at most `limit` messages. A backend may
    /// keep a message a week longer than its days are. With what is deleted goes the log's start, in the same
    /// transaction. Retained messages are copies, and stay.
    async fn trim(
        &self,
        policy: &RetentionPolicy,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Trimmed, StoreError>;
}

#[cfg(test)]
mod tests {
    use sotto_model::TenantId;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn kept(days: Option<u32>, bytes: Option<u64>) -> TenantRetention {
        TenantRetention {
            tenant: TenantId(uuid::Uuid::nil()),
            limits: RetentionLimits { days, bytes },
            legal_hold: false,
            start: Offset(0),
        }
    }

    #[test]
    fn a_tenant_s_own_limits_go_before_the_policy_s_and_none_below_the_minimum() {
        let policy = RetentionPolicy { days: 100, bytes: 0, minimum_days: 30 };
        let old = |retention: TenantRetention| {
            retention.allowance(&policy, NOW).and_then(|allowance| allowance.too_old_before)
        };
        let days = |days: u64| Some(UnixMillis(NOW.0 - days * DAY_MS));
        assert_eq!(old(kept(None, None)), days(100));
        assert_eq!(old(kept(Some(40), None)), days(40));
        assert_eq!(old(kept(Some(1), None)), days(30), "the minimum was raised afterwards");
        assert_eq!(kept(Some(0), None).allowance(&policy, NOW), None, "kept for good");
        assert_eq!(TenantRetention { legal_hold: true, ..kept(None, Some(1)) }.allowance(&policy, NOW), None);
        assert_eq!(kept(None, None).allowance(&RetentionPolicy::default(), NOW), None);
    }

    #[test]
    fn days_below_the_minimum_are_not_allowed() {
        let policy = RetentionPolicy { minimum_days: 30, ..RetentionPolicy::default() };
        assert!(policy.allows_days(0) && policy.allows_days(30));
        assert!(!policy.allows_days(29));
    }

    fn messages(count: u64, first: u64) -> Vec<Measured> {
        (first..first + count)
            .map(|offset| Measured { offset: Offset(offset), bytes: 100, at: UnixMillis(offset) })
            .collect()
    }

    #[test]
    fn measuring_in_pieces_gives_what_measuring_at_once_does() {
        let whole = Stretch::measure(None, &messages(97, 1), 8000);
        assert_eq!(whole.len(), 10, "1,000 bytes each");
        let mut pieces: Vec<Stretch> = Vec::new();
        for first in (1..=97).step_by(7) {
            let last = pieces.last().copied();
            let next = Stretch::measure(last, &messages(7.min(98 - first), first), 8000);
            if last.is_some_and(|last| !last.is_full(8000)) {
                pieces.pop();
            }
            pieces.extend(next);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn what_is_left_is_never_less_than_may_be_held() {
        let stretches = Stretch::measure(None, &messages(100, 1), 4000);
        let end = Stretch::surplus(&stretches, 4000, UnixMillis(u64::MAX)).expect("too much");
        let left = (100 - end.0) * 100;
        assert!((4000..=4500).contains(&left), "{left}");
        assert_eq!(Stretch::surplus(&stretches, 10_000, UnixMillis(u64::MAX)), None);
    }

    #[test]
    fn what_is_young_stays_whatever_the_size() {
        let stretches = Stretch::measure(None, &messages(100, 1), 800);
        assert_eq!(Stretch::surplus(&stretches, 800, UnixMillis(21)), Some(Offset(20)));
        assert_eq!(Stretch::surplus(&stretches, 800, UnixMillis(1)), None);
    }
}
