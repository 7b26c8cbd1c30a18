//! What follows from the outcome of one attempt. Pure: time and randomness are arguments.

use std::time::Duration;

use sotto_model::UnixMillis;
use sotto_storage::outbox::Settlement;
use sotto_storage::push_registry::Platform;

use crate::attempts::Attempts;
use crate::limits::{CREDENTIAL_WAIT, FCM_ATTEMPTS, PUSH_ATTEMPTS};
use crate::pusher::PushOutcome;

/// `attempts` failed before this one; `random` is one uniform draw.
pub(crate) fn settlement(
    outcome: PushOutcome,
    platform: Platform,
    attempts: u32,
    now: UnixMillis,
    random: u64,
) -> Settlement {
    let schedule = match platform {
        Platform::Fcm => &FCM_ATTEMPTS,
        Platform::Apns | Platform::WebPush | Platform::UnifiedPush => &PUSH_ATTEMPTS,
    };
    match outcome {
        PushOutcome::Delivered => Settlement::Sent { at: now },
        PushOutcome::Rejected(outcome) => Settlement::Dead { outcome },
        PushOutcome::RetryAfter(asked) | PushOutcome::Unavailable(asked) => {
            retry(schedule, attempts, asked, now, random)
        }
        // Not an attempt at this wakeup.
        PushOutcome::Deferred(wait) => Settlement::Wait(now.saturating_add(wait)),
        PushOutcome::CredentialRefused(_) => {
            Settlement::Wait(now.saturating_add(CREDENTIAL_WAIT.delay(1, random)))
        }
        PushOutcome::TokenInvalid { since } => {
            let wait = wait(schedule, attempts, None, random);
            Settlement::TokenInvalid { since, retry_at: now.saturating_add(wait) }
        }
    }
}

fn retry(
    schedule: &Attempts,
    attempts: u32,
    asked: Option<Duration>,
    now: UnixMillis,
    random: u64,
) -> Settlement {
    if attempts.saturating_add(1) >= schedule.max {
        return Settlement::Dead { outcome: "attempts exhausted" };
    }
    Settlement::RetryAt(now.saturating_add(wait(schedule, attempts, asked, random)))
}

/// Never earlier than the service asked for.
fn wait(schedule: &Attempts, attempts: u32, asked: Option<Duration>, random: u64) -> Duration {
    let wait = schedule.backoff.delay(attempts.saturating_add(1), random).max(schedule.wait_min);
    wait.max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn retry_wait(platform: Platform, attempts: u32, asked: Option<u64>, random: u64) -> Duration {
        let outcome = PushOutcome::RetryAfter(asked.map(Duration::from_secs));
        match settlement(outcome, platform, attempts, NOW, random) {
            Settlement::RetryAt(at) => at.since(NOW),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn waits_grow_with_every_failure_up_to_the_cap() {
        let wait = |attempts| retry_wait(Platform::Apns, attempts, None, 1 << 63).as_secs();
        let waits: Vec<_> = (0..PUSH_ATTEMPTS.max - 1).map(wait).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
    }

    #[test]
    fn fcm_is_not_asked_again_within_10_seconds_nor_after_an_hour() {
        for random in [0, 1 << 63, u64::MAX] {
            let wait = |attempts| retry_wait(Platform::Fcm, attempts, None, random);
            let waits: Vec<_> = (0..FCM_ATTEMPTS.max - 1).map(wait).collect();
            assert!(waits[0] >= Duration::from_secs(10));
            assert!(waits.iter().sum::<Duration>() < Duration::from_hours(1), "{waits:?}");
        }
        let last = settlement(PushOutcome::Unavailable(None), Platform::Fcm, FCM_ATTEMPTS.max - 1, NOW, 0);
        assert_eq!(last, Settlement::Dead { outcome: "attempts exhausted" });
    }

    #[test]
    fn a_push_is_never_sent_again_before_the_service_allows_it() {
        for platform in Platform::ALL {
            assert_eq!(retry_wait(platform, 0, Some(600), 0), Duration::from_mins(10));
            assert_eq!(retry_wait(platform, 0, Some(600), u64::MAX), Duration::from_mins(10));
        }
        assert_eq!(retry_wait(Platform::WebPush, 8, Some(1), 1 << 63), Duration::from_mins(15));
    }

    #[test]
    fn the_last_attempt_leaves_a_dead_letter() {
        let dead = Settlement::Dead { outcome: "attempts exhausted" };
        for outcome in [PushOutcome::RetryAfter(None), PushOutcome::Unavailable(None)] {
            assert_eq!(settlement(outcome, Platform::Apns, PUSH_ATTEMPTS.max - 1, NOW, 0), dead);
            assert_eq!(settlement(outcome, Platform::Apns, u32::MAX, NOW, 0), dead);
        }
    }

    #[test]
    fn a_wakeup_does_not_pay_for_a_service_that_is_left_alone_or_a_refused_credential() {
        let deferred = PushOutcome::Deferred(Duration::from_secs(7));
        let waits = Settlement::Wait(UnixMillis(NOW.0 + 7000));
        assert_eq!(settlement(deferred, Platform::WebPush, 1000, NOW, 0), waits);
        let refused = settlement(PushOutcome::CredentialRefused("x"), Platform::Apns, 1000, NOW, 1 << 63);
        assert!(matches!(refused, Settlement::Wait(at) if at > NOW), "{refused:?}");
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        assert_eq!(
            settlement(PushOutcome::Delivered, Platform::Fcm, 3, NOW, 0),
            Settlement::Sent { at: NOW }
        );
        let since = Some(UnixMillis(7));
        let dead = settlement(PushOutcome::TokenInvalid { since }, Platform::Apns, 0, NOW, u64::MAX);
        assert!(
            matches!(dead, Settlement::TokenInvalid { since, retry_at } if since == Some(UnixMillis(7)) && retry_at > NOW)
        );
        let dead = Settlement::Dead { outcome: "redirected" };
        assert_eq!(settlement(PushOutcome::Rejected("redirected"), Platform::UnifiedPush, 0, NOW, 0), dead);
    }
}
