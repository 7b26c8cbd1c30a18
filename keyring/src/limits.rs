//! The bounds of this crate, each with its unit.

use std::time::Duration;

use sotto_model::limits::PACKET_BYTES_MAX;

/// Longest time that a key is used without being unwrapped again: how long a key that was disabled in
/// the key service, or deleted from the store, still opens anything.
pub const KEY_AGE_MAX: Duration = Duration::from_mins(5);
/// Share of a key's age, or of its seals, after which it is refreshed, percent.
pub const KEY_REFRESH_PERCENT: u32 = 80;
/// Messages sealed before a key must be unwrapped again.
pub const SEALS_PER_LOAD_MAX: u32 = 1 << 20;
/// Unwrapped keys held.
pub const CACHED_KEYS_MAX: usize = 65_536;
/// Keys being fetched at one moment.
pub const FETCHES_MAX: usize = 1024;
/// Time before a fetch that failed is tried again.
pub const FETCH_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest plaintext that is sealed, bytes: a packet, and what is kept beside it.
pub const PLAINTEXT_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX as usize;
/// Longest secret that is sealed, bytes.
pub const SECRET_BYTES_MAX: usize = 8192;
/// Time for which a tenant's latest epoch is taken as known while its keys are fetched.
pub const EPOCH_CHECK_AGE_MAX: Duration = Duration::from_secs(10);

/// What the cache of unwrapped keys is held to; the defaults are the greatest.
#[derive(Clone, Copy, Debug)]
pub struct KeyringLimits {
    pub cached_keys_max: usize,
    pub key_age_max: Duration,
    pub seals_per_load_max: u32,
}

impl Default for KeyringLimits {
    fn default() -> Self {
        Self {
            cached_keys_max: CACHED_KEYS_MAX,
            key_age_max: KEY_AGE_MAX,
            seals_per_load_max: SEALS_PER_LOAD_MAX,
        }
    }
}
