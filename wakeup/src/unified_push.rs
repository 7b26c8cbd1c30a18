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
use reqwest::{Certificate, Client, ClientBuilder, StatusCode, redirect};
use sotto_model::{Clock, UnixMillis, Urgency};

use crate::address_guard::{AddressGuard, AddressRefused};
use crate::endpoint::Endpoint;
use crate::limits::{CONNECT_TIMEOUT, IDLE_CONNECTION_AGE_MAX, IDLE_CONNECTIONS_PER_HOST_MAX, PUSH_TIMEOUT};
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnifiedPushError {
    #[error("extra root certificates for push services are not PEM")]
    ExtraRoots,
    #[error("the HTTP client for push services cannot be made")]
    Client,
}

impl UnifiedPush {
    /// Trusts the system's certification authorities, and those in `extra_roots` (PEM). Reaches public
    /// addresses and `allow_networks`.
    pub fn new(
        clock: Arc<dyn Clock>,
        allow_networks: impl IntoIterator<Item = IpNet>,
        extra_roots: Option<&[u8]>,
    ) -> Result<Self, UnifiedPushError> {
        let roots = extra_roots
            .map_or(Ok(Vec::new()), Certificate::from_pem_bundle)
            .map_err(|_| UnifiedPushError::ExtraRoots)?;
        let guard = AddressGuard::new(allow_networks);
        // Without any system authorities the client cannot be built to trust them too.
        let client = client(&guard)
            .tls_certs_merge(roots.clone())
            .build()
            .or_else(|_| {
                tracing::warn!("no certification authorities on this system: push endpoints are not trusted");
                client(&guard).tls_certs_only(roots).build()
            })
            .map_err(|_| UnifiedPushError::Client)?;
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

fn client(guard: &AddressGuard) -> ClientBuilder {
    // The process has one cryptographic provider; when another one stands already, it serves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .https_only(true)
        .no_proxy()
        // A redirect would lead around the guard, and to a service that nobody registered.
        .redirect(redirect::Policy::none())
        // The dispatcher alone decides what is sent again.
        .retry(reqwest::retry::never())
        .referer(false)
        .dns_resolver(guard.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(PUSH_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_CONNECTION_AGE_MAX)
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
