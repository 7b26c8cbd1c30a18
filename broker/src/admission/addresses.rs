//! How many connections each address holds, and how fast it makes new ones.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::admission::address::AddressKey;

/// Addresses without a connection that are remembered for how fast they came.
const REMEMBERED_MAX: usize = 65_536;
/// Of a connection, as a bucket counts them.
const TENTHS: u64 = 10;

/// 0 in either of the first two: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressLimits {
    pub(crate) connections_max: u32,
    pub(crate) connects_per_second: u32,
    /// New connections at a stroke, after a pause.
    pub(crate) connects_burst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressRefused {
    #[error("the address holds as many connections as it may")]
    TooMany,
    #[error("the address makes connections faster than it may")]
    TooFast,
}

pub(crate) struct Addresses {
    limits: AddressLimits,
    /// Locked by whoever accepts or lets go of a connection, for one look-up.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    by_key: HashMap<AddressKey, Usage>,
    /// Of them, without a connection.
    idle: usize,
}

struct Usage {
    connections: u32,
    /// Tenths of connections that may be made at once, as of `at_tenths`.
    tokens: u64,
    at_tenths: u32,
}

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        Self { limits, seen: Mutex::default() }
    }

    fn are_limited(&self) -> bool {
        self.limits.connections_max > 0 || self.limits.connects_per_second > 0
    }

    /// One connection more; every one that is taken is given back with `leave`.
    pub(crate) fn enter(&self, key: AddressKey, now_tenths: u32) -> Result<(), AddressRefused> {
        if !self.are_limited() {
            return Ok(());
        }
        let limits = self.limits;
        let mut seen = self.seen.lock();
        let Seen { by_key, idle } = &mut *seen;
        let usage = by_key.entry(key).or_insert_with(|| {
            *idle += 1;
            Usage { connections: 0, tokens: limits.bucket(), at_tenths: now_tenths }
        });
        usage.refill(limits, now_tenths);
        if limits.connections_max > 0 && usage.connections >= limits.connections_max {
            return Err(AddressRefused::TooMany);
        }
        if limits.connects_per_second > 0 {
            usage.tokens = usage.tokens.checked_sub(TENTHS).ok_or(AddressRefused::TooFast)?;
        }
        if usage.connections == 0 {
            *idle -= 1;
        }
        usage.connections += 1;
        Ok(())
    }

    pub(crate) fn leave(&self, key: AddressKey) {
        if !self.are_limited() {
            return;
        }
        let mut seen = self.seen.lock();
        let Seen { by_key, idle } = &mut *seen;
        let Some(usage) = by_key.get_mut(&key) else { return };
        usage.connections -= 1;
        if usage.connections > 0 {
            return;
        }
        // Where there is no room to remember it, it begins anew.
        let remembered = self.limits.connects_per_second > 0 && *idle < REMEMBERED_MAX;
        if remembered {
            *idle += 1;
        } else {
            by_key.remove(&key);
        }
    }

    /// Forgets who may make as many connections as if never seen.
    pub(crate) fn forget_idle(&self, now_tenths: u32) {
        let mut seen = self.seen.lock();
        let Seen { by_key, idle } = &mut *seen;
        by_key.retain(|_, usage| {
            usage.refill(self.limits, now_tenths);
            let forgotten = usage.connections == 0 && usage.tokens == self.limits.bucket();
            *idle -= usize::from(forgotten);
            !forgotten
        });
        if by_key.capacity() > 4 * by_key.len() {
            by_key.shrink_to_fit();
        }
    }
}

impl AddressLimits {
    fn bucket(self) -> u64 {
        u64::from(self.connects_burst.max(1)) * TENTHS
    }
}

impl Usage {
    fn refill(&mut self, limits: AddressLimits, now_tenths: u32) {
        // So many tenths of a connection come each tenth of a second.
        let passed = u64::from(now_tenths.saturating_sub(self.at_tenths));
        self.tokens = (self.tokens + passed * u64::from(limits.connects_per_second)).min(limits.bucket());
        self.at_tenths = now_tenths;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: AddressLimits =
        AddressLimits { connections_max: 3, connects_per_second: 2, connects_burst: 4 };

    fn key(number: u32) -> AddressKey {
        AddressKey::of(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn an_address_holds_so_many_connections_and_others_are_not_touched() {
        let addresses = Addresses::new(LIMITS);
        for _ in 0..3 {
            assert_eq!(addresses.enter(key(1), 1), Ok(()));
        }
        assert_eq!(addresses.enter(key(1), 1), Err(AddressRefused::TooMany));
        assert_eq!(addresses.enter(key(2), 1), Ok(()));
        addresses.leave(key(1));
        assert_eq!(addresses.enter(key(1), 1), Ok(()));
    }

    #[test]
    fn connections_come_at_their_rate_after_the_first_at_a_stroke() {
        let addresses = Addresses::new(LIMITS);
        let connect = |now| {
            let entered = addresses.enter(key(1), now);
            if entered.is_ok() {
                addresses.leave(key(1));
            }
            entered
        };
        for _ in 0..4 {
            assert_eq!(connect(1), Ok(()));
        }
        assert_eq!(connect(1), Err(AddressRefused::TooFast));
        assert_eq!(connect(5), Err(AddressRefused::TooFast), "eight of ten tenths");
        assert_eq!(connect(6), Ok(()));
        assert_eq!(connect(6), Err(AddressRefused::TooFast));
        assert_eq!((0..10).filter(|_| connect(1_000).is_ok()).count(), 4, "no more than a bucket");
    }

    #[test]
    fn who_is_idle_for_long_is_forgotten_and_who_is_connected_is_not() {
        let addresses = Addresses::new(LIMITS);
        for number in 0..100 {
            addresses.enter(key(number), 1).expect("the first");
        }
        for number in 1..100 {
            addresses.leave(key(number));
        }
        addresses.forget_idle(2);
        assert_eq!(addresses.seen.lock().by_key.len(), 100, "their buckets are not full");
        addresses.forget_idle(100);
        let seen = addresses.seen.lock();
        assert_eq!((seen.by_key.len(), seen.idle), (1, 0));
    }

    #[test]
    fn addresses_are_remembered_up_to_a_bound() {
        let addresses = Addresses::new(LIMITS);
        let all = u32::try_from(REMEMBERED_MAX).expect("fits") + 10;
        for number in 0..all {
            addresses.enter(key(number), 1).expect("the first");
            addresses.leave(key(number));
        }
        let seen = addresses.seen.lock();
        assert_eq!((seen.by_key.len(), seen.idle), (REMEMBERED_MAX, REMEMBERED_MAX));
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let none = AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 1 };
        let addresses = Addresses::new(none);
        assert!((0..1000).all(|_| addresses.enter(key(1), 1).is_ok()));
        assert!(addresses.seen.lock().by_key.is_empty());
    }
}
