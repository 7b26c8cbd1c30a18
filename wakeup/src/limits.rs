//! Every bound of the way from a commit to a push, with its unit.

use std::time::Duration;

use sotto_model::Backoff;

/// Outbox rows that one turn of the relay takes.
pub(crate) const RELAY_ROWS_MAX: usize = 1000;
/// The relay looks that often, rung for or not.
pub(crate) const RELAY_INTERVAL: Duration = Duration::from_secs(1);
/// Between two turns that did not fill up, so that one turn serves the commits of that time.
pub(crate) const RELAY_PAUSE: Duration = Duration::from_millis(10);
/// The dispatcher looks that often for wakeups whose time has come.
pub(crate) const CLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// Pushes under way at once on this node.
pub(crate) const PUSHES_IN_FLIGHT_MAX: usize = 256;
/// So many slots must be free before the store is asked for more wakeups: not one query a push.
pub(crate) const CLAIM_SLOTS_MIN: u32 = 16;
/// A claim is this node's for so long; a node that dies leaves it to the others after that.
pub(crate) const LEASE: Duration = Duration::from_mins(1);
/// Opening a token, at most: its key may have to be asked for.
pub(crate) const OPEN_TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Asking the store whether the device still sleeps, at most.
pub(crate) const STILL_DUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Setting up a connection to a push service, name resolution and TLS included, at most.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request to a push service, at most.
pub(crate) const PUSH_TIMEOUT: Duration = Duration::from_secs(15);
/// Attempts at one wakeup before it becomes a dead letter.
pub(crate) const ATTEMPTS_MAX: u32 = 12;
/// Between attempts at one wakeup.
pub(crate) const ATTEMPT_BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(10), cap: Duration::from_mins(30) };
/// The longest wait that a push service may ask for.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// Between attempts at a store that is away.
pub(crate) const STORE_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };
/// Between two looks at how far the outbox lags.
pub(crate) const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// Dead letters are kept so long (14 days).
pub(crate) const DEAD_LETTER_AGE_MAX: Duration = Duration::from_hours(14 * 24);
/// Between two purges of dead letters.
pub(crate) const PURGE_INTERVAL: Duration = Duration::from_hours(1);
/// Dead letters deleted in one transaction.
pub(crate) const PURGE_ROWS_MAX: usize = 1000;
/// Longest push endpoint accepted, bytes.
pub const ENDPOINT_BYTES_MAX: usize = 2048;
/// Idle connections kept to one push service, and for how long.
pub(crate) const IDLE_CONNECTIONS_PER_HOST_MAX: usize = 4;
pub(crate) const IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(90);
/// Failures of a service in a row that open its breaker.
pub const BREAKER_FAILURES_MAX: u32 = 8;
/// How long an open breaker leaves its service alone: at least, and at most whatever the service asks for.
pub const BREAKER_OPEN_MIN: Duration = Duration::from_secs(5);
pub const BREAKER_OPEN_MAX: Duration = Duration::from_mins(5);
/// What is added to the least wait, more with every opening in a row.
pub(crate) const BREAKER_BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(5),
    cap: Duration::from_secs(BREAKER_OPEN_MAX.as_secs() - BREAKER_OPEN_MIN.as_secs()),
};
/// A probe of which nothing is heard for so long is given up, and another one let through.
pub const BREAKER_PROBE_MAX: Duration = Duration::from_secs(45);

// A push that this node may still send must not outlive its claim.
const _: () = assert!(
    OPEN_TOKEN_TIMEOUT.as_secs() + STILL_DUE_TIMEOUT.as_secs() + PUSH_TIMEOUT.as_secs() < LEASE.as_secs()
);
// A probe is not given up while it may still be under way.
const _: () = assert!(
    BREAKER_PROBE_MAX.as_secs()
        > OPEN_TOKEN_TIMEOUT.as_secs() + STILL_DUE_TIMEOUT.as_secs() + PUSH_TIMEOUT.as_secs()
);
