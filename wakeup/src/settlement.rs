//! What follows from the outcome of one attempt. Pure: time and randomness are arguments.

use std::time::Duration;

use sotto_model::UnixMillis;
use sotto_storage::outbox::Settlement;

use crate::limits::{ATTEMPT_BACKOFF, ATTEMPTS_MAX};
use crate::pusher::PushOutcome;

/// `attempts` failed before this one; `random` is one uniform draw.
pub(crate) fn settlement(outcome: PushOutcome, attempts: u32, now: UnixMillis, random: u64) -> Settlement {
    match outcome {
        PushOutcome::Delivered => Settlement::Sent { at: now },
        PushOutcome::TokenInvalid { since } => {
            let wait = ATTEMPT_BACKOFF.delay(attempts.saturating_add(1), random);
            Settlement::TokenInvalid { since, retry_at: now.saturating_add(wait) }
        }
        PushOutcome::Rejected(outcome) => Settlement::Dead { outcome },
        PushOutcome::RetryAfter(asked) | PushOutcome::Unavailable(asked) => {
            retry(attempts, asked, now, random)
        }
        PushOutcome::Deferred(wait) => Settlement::Wait(now.saturating_add(wait)),
        PushOutcome::CredentialRefused(_) => retry(attempts, None, now, random),
    }
}

/// Never earlier than the service asked for.
fn retry(attempts: u32, asked: Option<Duration>, now: UnixMillis, random: u64) -> Settlement {
    let failures = attempts.saturating_add(1);
    if failures >= ATTEMPTS_MAX {
        return Settlement::Dead { outcome: "attempts exhausted" };
    }
    let wait = ATTEMPT_BACKOFF.delay(failures, random).max(asked.unwrap_or_default());
    Settlement::RetryAt(now.saturating_add(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn retry_wait(attempts: u32, asked: Option<u64>, random: u64) -> Duration {
        let outcome = PushOutcome::RetryAfter(asked.map(Duration::from_secs));
        match settlement(outcome, attempts, NOW, random) {
            Settlement::RetryAt(at) => at.since(NOW),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_grow_with_every_failure_up_to_the_cap() {
        let waits: Vec<_> = (0..ATTEMPTS_MAX - 1).map(|n| retry_wait(n, None, 1 << 63).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
    }

    #[test]
    fn a_push_is_never_sent_again_before_the_service_allows_it() {
        assert_eq!(retry_wait(0, Some(600), 0), Duration::from_mins(10));
        assert_eq!(retry_wait(0, Some(600), u64::MAX), Duration::from_mins(10));
        assert_eq!(retry_wait(8, Some(1), 1 << 63), Duration::from_mins(15));
    }

    #[test]
    fn the_last_attempt_leaves_a_dead_letter() {
        let outcome = PushOutcome::RetryAfter(None);
        let dead = Settlement::Dead { outcome: "attempts exhausted" };
        assert_eq!(settlement(outcome, ATTEMPTS_MAX - 1, NOW, 0), dead);
        assert_eq!(settlement(outcome, u32::MAX, NOW, 0), dead);
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        assert_eq!(settlement(PushOutcome::Delivered, 3, NOW, 0), Settlement::Sent { at: NOW });
        assert_eq!(
            settlement(PushOutcome::TokenInvalid { since: None }, 0, NOW, 0),
            Settlement::TokenInvalid { since: None, retry_at: NOW }
        );
        let dead = Settlement::Dead { outcome: "redirected" };
        assert_eq!(settlement(PushOutcome::Rejected("redirected"), 0, NOW, 0), dead);
    }
}
