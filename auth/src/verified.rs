//! Passwords verified a short while ago, so that a storm of reconnects does not hash each one anew.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use parking_lot::Mutex;

use crate::limits::VERIFIED_CACHE_ENTRIES_MAX;
use crate::password::PasswordHash;

/// What is remembered of a password: a MAC over it and the stored hash, under a key that this process
/// drew. A changed hash leaves its entry unreachable.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PasswordMac([u8; 32]);

pub(crate) struct VerifiedCache {
    key: hmac::Key,
    age_max: Duration,
    /// Locked for a lookup or an insertion; nothing slow is done under it.
    entries: Mutex<Entries>,
}

struct Entries {
    verified_at: HashMap<PasswordMac, Instant>,
    /// Oldest first, each entry of `verified_at` at least once.
    order: VecDeque<(PasswordMac, Instant)>,
}

impl VerifiedCache {
    pub(crate) fn new(age_max: Duration) -> Self {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(key.as_mut()).expect("the system's random source works");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
            age_max,
            entries: Mutex::new(Entries { verified_at: HashMap::new(), order: VecDeque::new() }),
        }
    }

    pub(crate) fn mac(&self, stored: &PasswordHash, password: &[u8]) -> PasswordMac {
        let mut context = hmac::Context::with_key(&self.key);
        let stored = stored.as_phc();
        context.update(&stored.len().to_be_bytes());
        context.update(stored.as_bytes());
        context.update(password);
        PasswordMac(context.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes"))
    }

    pub(crate) fn holds(&self, mac: &PasswordMac, now: Instant) -> bool {
        let entries = self.entries.lock();
        entries.verified_at.get(mac).is_some_and(|at| now.saturating_duration_since(*at) <= self.age_max)
    }

    pub(crate) fn insert(&self, mac: PasswordMac, now: Instant) {
        let mut entries = self.entries.lock();
        entries.verified_at.insert(mac, now);
        entries.order.push_back((mac, now));
        while let Some(&(oldest, at)) = entries.order.front() {
            let aged = now.saturating_duration_since(at) > self.age_max;
            if !aged && entries.order.len() <= VERIFIED_CACHE_ENTRIES_MAX {
                break;
            }
            entries.order.pop_front();
            // A later entry in the order may have renewed it.
            if entries.verified_at.get(&oldest) == Some(&at) {
                entries.verified_at.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start for made-up time")]
mod tests {
    use super::*;

    fn stored(salt: char) -> PasswordHash {
        let salt: String = std::iter::repeat_n(salt, 22).collect();
        PasswordHash::parse(&format!("$argon2id$v=19$m=8,t=1,p=1${salt}$AAAAAAAAAAAAAAAAAAAAAA"))
            .expect("PHC string")
    }

    #[test]
    fn an_entry_lives_until_its_age_and_for_its_hash_alone() {
        let cache = VerifiedCache::new(Duration::from_mins(1));
        let start = Instant::now();
        let mac = cache.mac(&stored('A'), b"password");
        assert!(!cache.holds(&mac, start));
        cache.insert(mac, start);
        assert!(cache.holds(&mac, start + Duration::from_mins(1)));
        assert!(!cache.holds(&mac, start + Duration::from_secs(61)));
        assert!(!cache.holds(&cache.mac(&stored('Q'), b"password"), start));
        assert!(!cache.holds(&cache.mac(&stored('A'), b"Password"), start));
    }

    #[test]
    fn another_process_has_other_macs() {
        let new = || VerifiedCache::new(Duration::from_mins(1));
        assert!(new().mac(&stored('A'), b"password") != new().mac(&stored('A'), b"password"));
    }

    #[test]
    fn it_holds_a_bounded_number_and_forgets_the_oldest() {
        let cache = VerifiedCache::new(Duration::from_mins(1));
        let start = Instant::now();
        let mac = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            PasswordMac(bytes)
        };
        for n in 0..VERIFIED_CACHE_ENTRIES_MAX + 10 {
            cache.insert(mac(n), start);
        }
        assert_eq!(cache.entries.lock().verified_at.len(), VERIFIED_CACHE_ENTRIES_MAX);
        assert!(!cache.holds(&mac(9), start) && cache.holds(&mac(10), start));
        for _ in 0..3 * VERIFIED_CACHE_ENTRIES_MAX {
            cache.insert(mac(1), start);
        }
        assert!(cache.entries.lock().order.len() <= VERIFIED_CACHE_ENTRIES_MAX);
        cache.insert(mac(2), start + Duration::from_secs(61));
        assert_eq!(cache.entries.lock().verified_at.len(), 1);
    }
}
