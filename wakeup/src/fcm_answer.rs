//! What FCM answers, and what follows from it.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::limits::{FCM_QUOTA_WAIT, FCM_UNAVAILABLE_WAIT};
use crate::pusher::PushOutcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FcmAnswer {
    Outcome(PushOutcome),
    /// Another access token may do.
    AccessTokenRefused,
}

/// The body of a refusal: an error of Google's APIs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: ApiError,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiError {
    status: String,
    details: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    /// In FCM's own detail.
    error_code: String,
    /// In the detail on bad requests.
    field_violations: Vec<FieldViolation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldViolation {
    field: String,
}

/// `asked` is what `Retry-After` says. A body that cannot be read says nothing.
pub(crate) fn answer(status: StatusCode, body: &[u8], asked: Option<Duration>) -> FcmAnswer {
    let error = serde_json::from_slice::<Refusal>(body).unwrap_or_default().error;
    FcmAnswer::Outcome(match (status.as_u16(), error.code()) {
        (200..=299, _) => PushOutcome::Delivered,
        (404, "UNREGISTERED") => PushOutcome::TokenInvalid { since: None },
        (400, _) if error.blames("message.token") => PushOutcome::TokenInvalid { since: None },
        (403, "SENDER_ID_MISMATCH") => PushOutcome::Rejected("token is for another sender"),
        // Of the service behind FCM, for this device.
        (401, "THIRD_PARTY_AUTH_ERROR") => PushOutcome::Rejected("credential of a third service is refused"),
        (401, _) => return FcmAnswer::AccessTokenRefused,
        (403, _) => PushOutcome::CredentialRefused("permission is denied"),
        (429, _) => PushOutcome::Unavailable(Some(asked.unwrap_or(FCM_QUOTA_WAIT))),
        (408 | 500..=599, _) => PushOutcome::Unavailable(Some(asked.unwrap_or(FCM_UNAVAILABLE_WAIT))),
        (300..=399, _) => PushOutcome::Rejected("redirected"),
        (404, _) => PushOutcome::Rejected("not found"),
        _ => PushOutcome::Rejected("request is refused"),
    })
}

impl ApiError {
    /// FCM's own code where there is one: it says more than the one of Google's APIs.
    fn code(&self) -> &str {
        let own = self.details.iter().map(|detail| detail.error_code.as_str()).find(|code| !code.is_empty());
        own.unwrap_or(&self.status)
    }

    fn blames(&self, field: &str) -> bool {
        self.details
            .iter()
            .flat_map(|detail| &detail.field_violations)
            .any(|violation| violation.field == field)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: u16, error: &Value) -> FcmAnswer {
        let body = json!({ "error": error }).to_string();
        answer(StatusCode::from_u16(status).expect("a status"), body.as_bytes(), None)
    }

    #[test]
    fn every_answer_has_its_outcome() {
        let code = |code: &str| json!({ "details": [{ "@type": "x" }, { "@type": "y", "errorCode": code }] });
        let field = |field: &str| json!({ "details": [{ "fieldViolations": [{ "field": field }] }] });
        let dead = PushOutcome::TokenInvalid { since: None };
        let refused = PushOutcome::Rejected("request is refused");
        let denied = PushOutcome::CredentialRefused("permission is denied");
        for (status, error, outcome) in [
            (200, json!({}), PushOutcome::Delivered),
            (404, code("UNREGISTERED"), dead),
            (404, json!({ "status": "NOT_FOUND" }), PushOutcome::Rejected("not found")),
            (400, field("message.token"), dead),
            (400, field("message.data"), refused),
            (400, code("INVALID_ARGUMENT"), refused),
            (403, code("SENDER_ID_MISMATCH"), PushOutcome::Rejected("token is for another sender")),
            (403, json!({ "status": "PERMISSION_DENIED" }), denied),
            (429, code("QUOTA_EXCEEDED"), PushOutcome::Unavailable(Some(Duration::from_mins(1)))),
            (500, code("INTERNAL"), PushOutcome::Unavailable(Some(Duration::from_secs(10)))),
            (503, code("UNAVAILABLE"), PushOutcome::Unavailable(Some(Duration::from_secs(10)))),
            (413, json!({}), refused),
        ] {
            assert_eq!(of(status, &error), FcmAnswer::Outcome(outcome), "{status} {error}");
        }
        assert_eq!(of(401, &json!({ "status": "UNAUTHENTICATED" })), FcmAnswer::AccessTokenRefused);
    }

    #[test]
    fn what_the_service_asks_for_goes_before_the_default() {
        let asked = Some(Duration::from_secs(7));
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(answer(status, b"", asked), FcmAnswer::Outcome(PushOutcome::Unavailable(asked)));
        }
    }

    #[test]
    fn a_body_that_is_no_error_leaves_the_status_to_decide() {
        for body in [&b""[..], b"<html>", b"{", b"[]", b"{\"error\":7}", b"\xff"] {
            assert_eq!(
                answer(StatusCode::NOT_FOUND, body, None),
                FcmAnswer::Outcome(PushOutcome::Rejected("not found"))
            );
        }
    }
}
