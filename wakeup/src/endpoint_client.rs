//! Pushes to endpoints that users name: guarded, one request each, and no host at the cost of others.

use std::error::Error;
use std::sync::Arc;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode};
use sotto_model::{Clock, UnixMillis, Urgency};

use crate::address_guard::{AddressGuard, AddressRefused};
use crate::endpoint::Endpoint;
use crate::http_client::{self, HttpTimings, PusherError};
use crate::origin_gates::OriginGates;
use crate::pusher::PushOutcome;
use crate::retry_after;
use crate::trouble::Trouble;

/// How long the service keeps a push for a device that it cannot reach, seconds. [RFC 8030, 5.2]
const TTL_SECONDS: &str = "86400";

/// 401 and 403. Of this endpoint alone: a user may have registered it for another server.
pub(crate) const NOT_AUTHORIZED: PushOutcome = PushOutcome::Rejected("not authorized");

pub(crate) struct EndpointClient {
    client: Client,
    guard: AddressGuard,
    gates: OriginGates,
    trouble: Trouble,
    clock: Arc<dyn Clock>,
}

impl EndpointClient {
    pub(crate) fn new(
        guard: AddressGuard,
        extra_roots: Option<&[u8]>,
        timings: HttpTimings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PusherError> {
        let client =
            http_client::client(timings, extra_roots, |builder| builder.dns_resolver(guard.clone()))?;
        Ok(Self { client, guard, gates: OriginGates::default(), trouble: Trouble::default(), clock })
    }

    pub(crate) fn last_trouble(&self) -> Option<(&'static str, UnixMillis)> {
        self.trouble.last()
    }

    /// For an endpoint as it was registered.
    pub(crate) fn check(&self, raw: &str) -> Result<Endpoint, PushOutcome> {
        let endpoint = Endpoint::parse(raw).map_err(|_| PushOutcome::Rejected("endpoint is not valid"))?;
        self.guard.check_literal(&endpoint).map_err(|_| PushOutcome::Rejected("address is not permitted"))?;
        Ok(endpoint)
    }

    /// With `TTL` and `Urgency` beside `headers`. [RFC 8030, 5]
    ///
    /// What is wrong with one host is never said of all: a host that is away means that this device waits.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        urgency: Urgency,
        headers: HeaderMap,
        body: &'static [u8],
    ) -> PushOutcome {
        let pass = match self.gates.enter(endpoint.origin(), self.clock.now(), self.clock.draw()) {
            Ok(pass) => pass,
            Err(wait) => return PushOutcome::Deferred(wait),
        };
        let request = self
            .client
            .post(endpoint.url().clone())
            .headers(headers)
            .header(HeaderName::from_static("ttl"), TTL_SECONDS)
            .header(HeaderName::from_static("urgency"), HeaderValue::from_static(urgency.as_str()))
            // Over HTTP/1.1 there are services that ask for it of an empty body, too.
            .header(CONTENT_LENGTH, body.len())
            .body(body);
        let outcome = match request.send().await {
            // The body of the answer is not read.
            Ok(response) => outcome(response.status(), response.headers(), self.clock.unix_now()),
            Err(error) if is_caused_by::<AddressRefused>(&error) => {
                PushOutcome::Rejected("address is not permitted")
            }
            // The error names the endpoint: it ends here.
            Err(error) => {
                self.trouble.note(&error, self.clock.unix_now());
                PushOutcome::Unavailable(None)
            }
        };
        pass.record(&outcome, self.clock.now(), self.clock.draw());
        match outcome {
            PushOutcome::Unavailable(asked) => PushOutcome::RetryAfter(asked),
            outcome => outcome,
        }
    }
}

fn outcome(status: StatusCode, headers: &HeaderMap, now: UnixMillis) -> PushOutcome {
    let asked = || retry_after::asked(headers, now);
    match status {
        status if status.is_success() => PushOutcome::Delivered,
        StatusCode::NOT_FOUND | StatusCode::GONE => PushOutcome::TokenInvalid { since: None },
        StatusCode::TOO_MANY_REQUESTS => PushOutcome::RetryAfter(asked()),
        StatusCode::REQUEST_TIMEOUT => PushOutcome::Unavailable(asked()),
        status if status.is_server_error() => PushOutcome::Unavailable(asked()),
        status if status.is_redirection() => PushOutcome::Rejected("redirected"),
        StatusCode::BAD_REQUEST => PushOutcome::Rejected("bad request"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => NOT_AUTHORIZED,
        StatusCode::PAYLOAD_TOO_LARGE => PushOutcome::Rejected("too large"),
        _ => PushOutcome::Rejected("refused"),
    }
}

fn is_caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(<dyn Error>::is::<E>)
}
