//! UnifiedPush, or any webhook of its shape: one constant request to the device's endpoint. [RFC 8030]
//!
//! ```text
//! POST <endpoint>
//! TTL: 86400
//! Urgency: high
//!
//! 1
//! ```

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use sotto_model::{Clock, UnixMillis, Urgency};

use crate::address_guard::{AddressGuard, AddressRefused};
use crate::endpoint::Endpoint;
use crate::http_client::{self, HttpTimings, PusherError};
use crate::pusher::{PushOutcome, Pusher, Wakeup};
use crate::retry_after;

/// All that a push ever says: UnifiedPush asks for at least one byte.
const BODY: &[u8] = b"1";
/// How long the service keeps it for a device that it cannot reach, seconds.
const TTL_SECONDS: &str = "86400";

pub struct UnifiedPush {
    client: Client,
    guard: AddressGuard,
    clock: Arc<dyn Clock>,
}

impl UnifiedPush {
    /// Trusts the system's certification authorities, and those in `extra_roots` (PEM). Reaches public
    /// addresses and `allow_networks`.
    pub fn new(
        clock: Arc<dyn Clock>,
        allow_networks: impl IntoIterator<Item = IpNet>,
        extra_roots: Option<&[u8]>,
    ) -> Result<Self, PusherError> {
        let guard = AddressGuard::new(allow_networks);
        let client = http_client::client(HttpTimings::default(), extra_roots, |builder| {
            builder.dns_resolver(guard.clone())
        })?;
        Ok(Self { client, guard, clock })
    }

    /// The guard by which endpoints are judged, for their registration.
    pub fn guard(&self) -> &AddressGuard {
        &self.guard
    }
}

#[async_trait]
impl Pusher for UnifiedPush {
    async fn push(&self, wakeup: Wakeup) -> PushOutcome {
        let Ok(endpoint) = Endpoint::parse(wakeup.token.reveal()) else {
            return PushOutcome::Rejected("endpoint is not valid");
        };
        if self.guard.check_literal(&endpoint).is_err() {
            return PushOutcome::Rejected("address is not permitted");
        }
        let request = self
            .client
            .post(endpoint.url().clone())
            .header(HeaderName::from_static("ttl"), TTL_SECONDS)
            .header(HeaderName::from_static("urgency"), urgency(wakeup.urgency))
            .body(BODY);
        match request.send().await {
            // The body of the answer is not read.
            Ok(response) => outcome(response.status(), response.headers(), self.clock.unix_now()),
            Err(error) if is_caused_by::<AddressRefused>(&error) => {
                PushOutcome::Rejected("address is not permitted")
            }
            // The error names the endpoint: it ends here.
            Err(_) => PushOutcome::RetryAfter(None),
        }
    }
}

fn urgency(urgency: Urgency) -> HeaderValue {
    match urgency {
        Urgency::High => HeaderValue::from_static("high"),
        Urgency::Low => HeaderValue::from_static("low"),
    }
}

fn outcome(status: StatusCode, headers: &HeaderMap, now: UnixMillis) -> PushOutcome {
    match status {
        status if status.is_success() => PushOutcome::Delivered,
        StatusCode::NOT_FOUND | StatusCode::GONE => PushOutcome::TokenInvalid { since: None },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => retry(headers, now),
        status if status.is_server_error() => retry(headers, now),
        status if status.is_redirection() => PushOutcome::Rejected("redirected"),
        StatusCode::BAD_REQUEST => PushOutcome::Rejected("bad request"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PushOutcome::Rejected("not authorized"),
        StatusCode::PAYLOAD_TOO_LARGE => PushOutcome::Rejected("too large"),
        _ => PushOutcome::Rejected("refused"),
    }
}

fn retry(headers: &HeaderMap, now: UnixMillis) -> PushOutcome {
    let wait = headers.get(RETRY_AFTER).and_then(|value| retry_after::parse(value.to_str().ok()?, now));
    PushOutcome::RetryAfter(wait)
}

fn is_caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(<dyn Error>::is::<E>)
}
