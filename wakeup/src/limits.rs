//! Every bound of the way from a commit to a push, with its unit.

use std::time::Duration;

use sotto_model::Backoff;

use crate::attempts::Attempts;

/// Outbox rows that one turn of the relay takes.
pub(crate) const RELAY_ROWS_MAX: usize = 1000;
/// The relay looks that often, rung for or not.
pub(crate) const RELAY_INTERVAL: Duration = Duration::from_secs(1);
/// Between two turns that did not fill up, so that one turn serves the commits of that time.
pub(crate) const RELAY_PAUSE: Duration = Duration::from_millis(10);
/// The dispatcher looks that often for wakeups whose time has come.
pub(crate) const CLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// Pushes under way at once on this node, in one lane.
pub(crate) const PUSHES_IN_FLIGHT_MAX: usize = 256;
/// So many slots must be free before the store is asked for more wakeups: not one query a push.
pub(crate) const CLAIM_SLOTS_MIN: u32 = 16;
/// A claim is this node's for so long; a node that dies leaves it to the others after that.
pub(crate) const LEASE: Duration = Duration::from_mins(1);
/// Opening a token, at most: its key may have to be asked for.
pub(crate) const OPEN_TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// For so long after its claim a wakeup is taken as due without asking the store again.
pub(crate) const CLAIM_FRESH_MAX: Duration = Duration::from_millis(250);
/// Asking the store whether the device still sleeps, at most.
pub(crate) const STILL_DUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Settlements waiting to be written: as many as there can be pushes under way in a few lanes.
pub(crate) const SETTLEMENTS_QUEUED_MAX: usize = 1024;
/// Settlements in one transaction.
pub(crate) const SETTLEMENTS_PER_WRITE_MAX: usize = 256;
/// Setting up a connection to a push service, name resolution and TLS included, at most.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request to a push service, at most.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// One push, at most, with everything that is replayed or fetched for it.
pub(crate) const PUSH_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection with requests under way is asked for a sign of life after that silence, and given up when
/// none has come for so long: together before the request is.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Streams that the service has not looked at are sent again at once, so often.
pub(crate) const REPLAYS_MAX: u32 = 3;
/// What is read of a push service's answer, bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 4096;
/// Longest credential file, bytes.
pub(crate) const CREDENTIAL_BYTES_MAX: usize = 64 * 1024;
/// Between two looks at a credential file.
pub(crate) const CREDENTIAL_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// An APNs device token, hexadecimal digits.
pub(crate) const APNS_TOKEN_DIGITS_MIN: usize = 64;
pub(crate) const APNS_TOKEN_DIGITS_MAX: usize = 200;
/// Longest FCM registration token accepted, bytes.
pub(crate) const FCM_TOKEN_BYTES_MAX: usize = 1024;
/// Apple takes a new provider token no sooner than that after the last one, and none that is older.
pub(crate) const PROVIDER_TOKEN_AGE_MIN: Duration = Duration::from_mins(20);
pub(crate) const PROVIDER_TOKEN_AGE_MAX: Duration = Duration::from_hours(1);
/// A new one is minted at that age.
pub(crate) const PROVIDER_TOKEN_RENEW: Duration = Duration::from_mins(40);
/// How long APNs keeps a push for a device that it cannot reach, seconds; and to what the moment of its end
/// is rounded.
pub(crate) const APNS_TTL_SECONDS: u64 = 86_400;
pub(crate) const APNS_EXPIRATION_GRAIN_SECONDS: u64 = 3600;
/// After a failure of APNs itself, where it does not say how long to wait: what Apple asks for.
pub(crate) const APNS_UNAVAILABLE_WAIT: Duration = Duration::from_mins(15);
/// What an assertion to Google's token endpoint claims to be good for.
pub(crate) const ASSERTION_AGE_MAX: Duration = Duration::from_hours(1);
/// An access token is used for so long at most, whatever it is said to be good for, and renewed so long
/// before it ends.
pub(crate) const ACCESS_TOKEN_AGE_MAX: Duration = Duration::from_hours(24);
pub(crate) const ACCESS_TOKEN_RENEW_BEFORE: Duration = Duration::from_mins(5);
/// Between two attempts at the token endpoint when it gives none.
pub(crate) const ACCESS_TOKEN_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// After a used-up quota or a failure of FCM, where it does not say how long to wait: what Google asks for.
pub(crate) const FCM_QUOTA_WAIT: Duration = Duration::from_mins(1);
pub(crate) const FCM_UNAVAILABLE_WAIT: Duration = Duration::from_secs(10);
/// Origins of endpoints of which something is remembered. More than there are pushes under way, so that
/// one can always be forgotten.
pub(crate) const ORIGINS_MAX: usize = 1024;
/// Pushes under way to one origin: a few while nothing is known of it, one more with every answer, half with
/// every failure.
pub(crate) const ORIGIN_IN_FLIGHT_MIN: u32 = 8;
pub(crate) const ORIGIN_IN_FLIGHT_MAX: u32 = 128;
/// A push for an origin that has all it can take is put off for that long at least, and twice that at most.
pub(crate) const ORIGIN_BUSY_WAIT: Duration = Duration::from_millis(500);
/// A VAPID statement is good for so long (24 hours would be allowed), and used until so long before its end.
pub(crate) const VAPID_AGE_MAX: Duration = Duration::from_hours(12);
pub(crate) const VAPID_RENEW_BEFORE: Duration = Duration::from_hours(1);
/// The connection to APNs or FCM is kept that long without a push.
pub(crate) const SERVICE_IDLE_AGE_MAX: Duration = Duration::from_hours(1);
/// Attempts at one wakeup before it becomes a dead letter, and the time between them.
pub(crate) const PUSH_ATTEMPTS: Attempts = Attempts {
    max: 12,
    wait_min: Duration::ZERO,
    backoff: Backoff { base: Duration::from_secs(10), cap: Duration::from_mins(30) },
};
/// Google asks for 10 s before the first repetition, and to give up within an hour.
pub(crate) const FCM_ATTEMPTS: Attempts = Attempts {
    max: 9,
    wait_min: Duration::from_secs(10),
    backoff: Backoff { base: Duration::from_secs(10), cap: Duration::from_mins(15) },
};
/// Before a wakeup whose credential was refused is claimed again; the breaker may hold it for longer.
pub(crate) const CREDENTIAL_WAIT: Backoff =
    Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(5) };
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
/// A wakeup that is not urgent leaves at most so much later.
pub(crate) const LOW_JITTER_MAX: Duration = Duration::from_mins(2);
/// Between two background pushes to one iOS device.
pub(crate) const BACKGROUND_INTERVAL_MIN: Duration = Duration::from_mins(20);
/// So close to a quarter hour nothing is sent by FCM that can wait.
pub(crate) const QUARTER_HOUR_GUARD: Duration = Duration::from_mins(2);
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
const _: () = assert!(REQUEST_TIMEOUT.as_secs() < PUSH_TIMEOUT.as_secs());
const _: () =
    assert!(KEEP_ALIVE_INTERVAL.as_secs() + KEEP_ALIVE_TIMEOUT.as_secs() < REQUEST_TIMEOUT.as_secs());
const _: () = assert!(ORIGINS_MAX > PUSHES_IN_FLIGHT_MAX);
const _: () = assert!(ORIGIN_IN_FLIGHT_MAX as usize <= PUSHES_IN_FLIGHT_MAX / 2);
// A probe is not given up while it may still be under way.
const _: () = assert!(
    BREAKER_PROBE_MAX.as_secs()
        > OPEN_TOKEN_TIMEOUT.as_secs() + STILL_DUE_TIMEOUT.as_secs() + PUSH_TIMEOUT.as_secs()
);
