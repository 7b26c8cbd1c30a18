//! What APNs answers, and what follows from it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use sotto_model::UnixMillis;

use crate::limits::APNS_UNAVAILABLE_WAIT;
use crate::pusher::PushOutcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApnsAnswer {
    Outcome(PushOutcome),
    /// The provider token is too old: the same push with another one may do.
    ProviderTokenExpired,
    /// The provider token changes too often: the same push with the one before may do.
    TooManyProviderTokens,
}

/// The body of a refusal.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    reason: String,
    /// Since when the device token has been dead, milliseconds since the epoch.
    timestamp: Option<u64>,
}

/// `asked` is what `Retry-After` says. A body that cannot be read says nothing.
pub(crate) fn answer(status: StatusCode, body: &[u8], asked: Option<Duration>) -> ApnsAnswer {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let reason = refusal.reason.as_str();
    ApnsAnswer::Outcome(match (status.as_u16(), reason) {
        (200, _) => PushOutcome::Delivered,
        (400, "BadDeviceToken") => PushOutcome::TokenInvalid { since: None },
        (400, "DeviceTokenNotForTopic") => PushOutcome::Rejected("token is for another topic"),
        // Nobody's push is taken with a topic like that.
        (400, "BadTopic" | "MissingTopic" | "TopicDisallowed") => {
            PushOutcome::CredentialRefused("topic is not allowed")
        }
        // The connection ends, the service does not: another connection does.
        (400, "IdleTimeout") | (408, _) | (503, "Shutdown") => PushOutcome::Unavailable(asked),
        (403, "ExpiredProviderToken") => return ApnsAnswer::ProviderTokenExpired,
        (403, "Forbidden") => PushOutcome::Rejected("forbidden"),
        // `InvalidProviderToken`, a key identifier of any kind, a missing token: ours, whatever its name.
        (401 | 403, _) => PushOutcome::CredentialRefused("provider token is refused"),
        (410, _) => PushOutcome::TokenInvalid { since: refusal.timestamp.map(UnixMillis) },
        (413, _) => PushOutcome::Rejected("payload is too large"),
        (429, "TooManyProviderTokenUpdates") => return ApnsAnswer::TooManyProviderTokens,
        (429, _) => PushOutcome::RetryAfter(asked),
        (500..=599, _) => PushOutcome::Unavailable(Some(asked.unwrap_or(APNS_UNAVAILABLE_WAIT))),
        (300..=399, _) => PushOutcome::Rejected("redirected"),
        _ => PushOutcome::Rejected("request is refused"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, reason: &str) -> ApnsAnswer {
        let body = serde_json::json!({ "reason": reason }).to_string();
        answer(StatusCode::from_u16(status).expect("a status"), body.as_bytes(), None)
    }

    #[test]
    fn every_answer_has_its_outcome() {
        let refused = PushOutcome::CredentialRefused("provider token is refused");
        let dead = PushOutcome::TokenInvalid { since: None };
        let away = PushOutcome::Unavailable(Some(APNS_UNAVAILABLE_WAIT));
        for (status, reason, outcome) in [
            (200, "", PushOutcome::Delivered),
            (400, "BadDeviceToken", dead),
            (400, "DeviceTokenNotForTopic", PushOutcome::Rejected("token is for another topic")),
            (400, "TopicDisallowed", PushOutcome::CredentialRefused("topic is not allowed")),
            (400, "PayloadEmpty", PushOutcome::Rejected("request is refused")),
            (400, "IdleTimeout", PushOutcome::Unavailable(None)),
            (403, "Forbidden", PushOutcome::Rejected("forbidden")),
            (403, "InvalidProviderToken", refused),
            (403, "MissingProviderToken", refused),
            (403, "UnrelatedKeyIdInToken", refused),
            (403, "BadEnvironmentKeyIdInToken", refused),
            (404, "BadPath", PushOutcome::Rejected("request is refused")),
            (405, "MethodNotAllowed", PushOutcome::Rejected("request is refused")),
            (410, "Unregistered", dead),
            (410, "ExpiredToken", dead),
            (413, "PayloadTooLarge", PushOutcome::Rejected("payload is too large")),
            (429, "TooManyRequests", PushOutcome::RetryAfter(None)),
            (500, "InternalServerError", away),
            (503, "ServiceUnavailable", away),
            (503, "Shutdown", PushOutcome::Unavailable(None)),
            (502, "", away),
        ] {
            assert_eq!(of(status, reason), ApnsAnswer::Outcome(outcome), "{status} {reason}");
        }
        assert_eq!(of(403, "ExpiredProviderToken"), ApnsAnswer::ProviderTokenExpired);
        assert_eq!(of(429, "TooManyProviderTokenUpdates"), ApnsAnswer::TooManyProviderTokens);
    }

    #[test]
    fn a_dead_token_is_dead_since_the_moment_named() {
        let body = br#"{"reason":"Unregistered","timestamp":784111700000}"#;
        let since = Some(UnixMillis(784_111_700_000));
        assert_eq!(
            answer(StatusCode::GONE, body, None),
            ApnsAnswer::Outcome(PushOutcome::TokenInvalid { since })
        );
    }

    #[test]
    fn a_body_that_is_no_refusal_leaves_the_status_to_decide() {
        for body in [&b""[..], b"<html>", b"{", b"[]", b"{\"reason\":7}", b"\xff"] {
            assert_eq!(
                answer(StatusCode::TOO_MANY_REQUESTS, body, None),
                ApnsAnswer::Outcome(PushOutcome::RetryAfter(None))
            );
        }
    }

    #[test]
    fn what_the_service_asks_for_goes_before_the_default() {
        let minute = Some(Duration::from_mins(1));
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INTERNAL_SERVER_ERROR] {
            assert_eq!(answer(status, b"", minute), ApnsAnswer::Outcome(PushOutcome::Unavailable(minute)));
        }
    }
}
