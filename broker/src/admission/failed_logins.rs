//! Addresses from which too many clients fail to sign in: they are refused for a while, whoever they are.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::admission::address::AddressKey;

/// Addresses of which failures are remembered.
const ADDRESSES_MAX: usize = 65_536;
const TENTHS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailedLoginLimits {
    /// 0: no limit.
    pub(crate) failures_max: u32,
    /// From the first failure on, seconds.
    pub(crate) window_seconds: u32,
}

/// The address failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barred {
    /// Until it may try again, seconds.
    pub(crate) seconds: u32,
    /// It is the first that is told so.
    pub(crate) first: bool,
}

pub(crate) struct FailedLogins {
    limits: FailedLoginLimits,
    /// Locked at each CONNECT and each failure, for one look-up.
    failures: Mutex<HashMap<AddressKey, Failures>>,
}

struct Failures {
    count: u32,
    since_tenths: u32,
    told: bool,
}

impl FailedLogins {
    pub(crate) fn new(limits: FailedLoginLimits) -> Self {
        Self { limits, failures: Mutex::default() }
    }

    /// Asked at CONNECT, before anything that costs time.
    pub(crate) fn bars(&self, key: AddressKey, now_tenths: u32) -> Option<Barred> {
        if self.limits.failures_max == 0 {
            return None;
        }
        let mut failures = self.failures.lock();
        let failed = failures.get_mut(&key)?;
        let age_tenths = now_tenths.saturating_sub(failed.since_tenths);
        let window_tenths = self.limits.window_tenths();
        if age_tenths >= window_tenths || failed.count < self.limits.failures_max {
            return None;
        }
        let first = !std::mem::replace(&mut failed.told, true);
        Some(Barred { seconds: (window_tenths - age_tenths).div_ceil(TENTHS), first })
    }

    pub(crate) fn note(&self, key: AddressKey, now_tenths: u32) {
        if self.limits.failures_max == 0 {
            return;
        }
        let window_tenths = self.limits.window_tenths();
        let mut failures = self.failures.lock();
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&key) {
            failures.retain(|_, failed| now_tenths.saturating_sub(failed.since_tenths) < window_tenths);
            // Somebody's failures are forgotten; which one's is not for clients to choose.
            if failures.len() >= ADDRESSES_MAX
                && let Some(other) = failures.keys().next().copied()
            {
                failures.remove(&other);
            }
        }
        let failed =
            failures.entry(key).or_insert(Failures { count: 0, since_tenths: now_tenths, told: false });
        if now_tenths.saturating_sub(failed.since_tenths) >= window_tenths {
            *failed = Failures { count: 0, since_tenths: now_tenths, told: false };
        }
        failed.count = failed.count.saturating_add(1);
    }

    pub(crate) fn forget_old(&self, now_tenths: u32) {
        let window_tenths = self.limits.window_tenths();
        let mut failures = self.failures.lock();
        failures.retain(|_, failed| now_tenths.saturating_sub(failed.since_tenths) < window_tenths);
        if failures.capacity() > 4 * failures.len() {
            failures.shrink_to_fit();
        }
    }
}

impl FailedLoginLimits {
    fn window_tenths(self) -> u32 {
        self.window_seconds.saturating_mul(TENTHS)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: FailedLoginLimits = FailedLoginLimits { failures_max: 3, window_seconds: 300 };

    fn key(number: u32) -> AddressKey {
        AddressKey::of(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn after_so_many_failures_the_address_is_barred_until_the_window_ends() {
        let logins = FailedLogins::new(LIMITS);
        for now in [10, 20, 30] {
            assert_eq!(logins.bars(key(1), now), None);
            logins.note(key(1), now);
        }
        assert_eq!(logins.bars(key(1), 1_010), Some(Barred { seconds: 200, first: true }));
        assert_eq!(logins.bars(key(1), 3_009), Some(Barred { seconds: 1, first: false }));
        assert_eq!(logins.bars(key(2), 1_010), None, "others are not touched");
        assert_eq!(logins.bars(key(1), 3_010), None);
        logins.note(key(1), 3_010);
        assert_eq!(logins.bars(key(1), 3_020), None, "the count begins anew");
    }

    #[test]
    fn it_remembers_so_many_addresses_and_forgets_old_ones() {
        let logins = FailedLogins::new(LIMITS);
        let all = u32::try_from(ADDRESSES_MAX).expect("fits") + 10;
        (0..all).for_each(|number| logins.note(key(number), 1));
        assert_eq!(logins.failures.lock().len(), ADDRESSES_MAX);
        logins.forget_old(3_000);
        assert_eq!(logins.failures.lock().len(), ADDRESSES_MAX);
        logins.forget_old(3_001);
        assert!(logins.failures.lock().is_empty());
    }

    #[test]
    fn without_a_limit_nobody_is_barred() {
        let logins = FailedLogins::new(FailedLoginLimits { failures_max: 0, window_seconds: 300 });
        (0..1000).for_each(|_| logins.note(key(1), 1));
        assert_eq!(logins.bars(key(1), 1), None);
    }
}
