//! The bounds of this crate, each with its unit.

/// Longest tenant, user or device name, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Shortest password that may be set, bytes.
pub const PASSWORD_BYTES_MIN: usize = 8;
/// Longest password that is set or checked, bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Longest PHC string of a stored password, bytes.
pub const PASSWORD_HASH_BYTES_MAX: usize = 256;
/// Memory of one password hash, KiB.
pub const PASSWORD_MEMORY_KIB: u32 = 19 * 1024;
/// Most memory that a stored hash may ask for, KiB.
pub const PASSWORD_MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Passes over the memory of one password hash.
pub const PASSWORD_PASSES: u32 = 2;
/// Most passes that a stored hash may ask for.
pub const PASSWORD_PASSES_MAX: u32 = 8;
/// Lanes of one password hash.
pub const PASSWORD_LANES: u32 = 1;
/// Most lanes that a stored hash may ask for.
pub const PASSWORD_LANES_MAX: u32 = 4;
/// Passwords remembered as recently verified.
pub const VERIFIED_CACHE_ENTRIES_MAX: usize = 65_536;
/// Rounds of PBKDF2 that a client does for SCRAM-SHA-256. RFC 7677 asks for 4096 at least.
pub const SCRAM_ITERATIONS: u32 = 100_000;
/// Fewest and most that stored credentials may ask for.
pub const SCRAM_ITERATIONS_MIN: u32 = 4096;
pub const SCRAM_ITERATIONS_MAX: u32 = 10_000_000;
/// Longest message of an exchange, bytes.
pub const SCRAM_MESSAGE_BYTES_MAX: usize = 1024;
/// Longest stored credentials, bytes.
pub const SCRAM_CREDENTIALS_BYTES_MAX: usize = 256;
/// Changes that may arrive while a whole set is loaded.
pub const JOURNAL_CHANGES_MAX: usize = 65_536;
