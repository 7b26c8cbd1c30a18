//! Every bound of the comparison, with its unit.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Connections of one run at most, whatever the system allows.
pub(crate) const CONNECTIONS_MAX: u32 = 1_000_000;
/// Files that a broker or the load tester has open beside its connections.
const FILES_RESERVED: u64 = 1_000;
/// Where the limit cannot be read: what POSIX systems start with.
const FILES_FALLBACK: u64 = 1_024;
/// Time a broker has until it listens.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
pub(crate) const START_POLL: Duration = Duration::from_millis(20);
/// Time a broker has to end when it is asked to, before it is killed.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time the load tester has beyond what its scenario takes.
pub(crate) const LOAD_SLACK: Duration = Duration::from_mins(1);
/// How often the load tester is looked at.
pub(crate) const LOAD_POLL: Duration = Duration::from_millis(20);
/// Time a connection has, seconds.
pub(crate) const CONNECT_TIMEOUT_SECONDS: u64 = 60;
/// Connections under way at once where they do not all begin at once: with more, a busy machine lets them time out.
pub(crate) const CONNECT_IN_FLIGHT: u32 = 256;
/// Connections a second where they do not all begin at once.
pub(crate) const CONNECT_RATE: u32 = 1_000;
/// How long idle connections are held, seconds.
pub(crate) const HOLD_SECONDS: u64 = 1;
/// Longer than any scenario: no PINGREQ is in the figures.
pub(crate) const KEEP_ALIVE_SECONDS: u16 = 300;
/// How long a broker is warmed up before messages are counted, seconds.
pub(crate) const WARM_UP_SECONDS: u64 = 1;
/// Payload, bytes.
pub(crate) const PAYLOAD_BYTES: u32 = 100;
/// Deliveries a second of a fan-out, all subscribers together.
pub(crate) const FAN_OUT_DELIVERIES: u32 = 20_000;
/// Messages a second of a fan-out at most.
pub(crate) const FAN_OUT_RATE_MAX: u32 = 40;

/// Raises the soft limit of open files, which brokers and load tester inherit; connections that fit.
pub(crate) fn raise_open_files() -> u32 {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(FILES_FALLBACK, |(soft, hard)| {
        if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
    });
    let connections = files.saturating_sub(FILES_RESERVED).clamp(1, u64::from(CONNECTIONS_MAX));
    u32::try_from(connections).expect("at most a million")
}
