//! The HTTP client for push services: HTTPS alone, no redirects, a bound on everything.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, Response, redirect};

use crate::credential_file::CredentialFileError;
use crate::limits::{
    ANSWER_BYTES_MAX, CONNECT_TIMEOUT, IDLE_CONNECTION_AGE_MAX, IDLE_CONNECTIONS_PER_HOST_MAX,
    KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, REQUEST_TIMEOUT,
};

/// Why a pusher cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PusherError {
    #[error("extra root certificates for push services are not PEM")]
    ExtraRoots,
    #[error("the HTTP client for push services cannot be made")]
    Client,
    /// Names the setting.
    #[error("{0} is not valid")]
    Setting(&'static str),
    #[error(transparent)]
    Credential(#[from] CredentialFileError),
}

/// How long a service may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimings {
    /// Until a connection is set up, name resolution and TLS included.
    pub connect: Duration,
    /// From the request until the last byte of its answer.
    pub request: Duration,
    /// A connection with requests under way on which nothing has come in for so long is asked whether it
    /// lives, and replaced when no answer has come within `keep_alive_timeout`. [RFC 9113, 6.7]
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
}

impl Default for HttpTimings {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            request: REQUEST_TIMEOUT,
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
            keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
        }
    }
}

/// What may be said of a request that got no answer. The client's own errors quote URLs, and end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The service did not look at it: it may be sent again at once.
    Unprocessed,
    /// Nobody knows whether the service has acted on it.
    Unknown,
}

/// Trusts the system's certification authorities, and those in `extra_roots` (PEM).
pub(crate) fn client(
    timings: HttpTimings,
    extra_roots: Option<&[u8]>,
    particular: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, PusherError> {
    // The process has one cryptographic provider; when another one stands already, it serves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let roots = extra_roots
        .map_or(Ok(Vec::new()), Certificate::from_pem_bundle)
        .map_err(|_| PusherError::ExtraRoots)?;
    // Without any system authorities the client cannot be built to trust them too.
    particular(common(timings))
        .tls_certs_merge(roots.clone())
        .build()
        .or_else(|_| {
            tracing::warn!("no certification authorities on this system: push services are not trusted");
            particular(common(timings)).tls_certs_only(roots).build()
        })
        .map_err(|_| PusherError::Client)
}

fn common(timings: HttpTimings) -> ClientBuilder {
    Client::builder()
        .https_only(true)
        .no_proxy()
        // A redirect would lead to a service that nobody named.
        .redirect(redirect::Policy::none())
        // The dispatcher alone decides what is sent again.
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(timings.connect)
        .timeout(timings.request)
        .http2_keep_alive_interval(timings.keep_alive_interval)
        .http2_keep_alive_timeout(timings.keep_alive_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_CONNECTION_AGE_MAX)
}

/// The body of an answer up to `ANSWER_BYTES_MAX`: nothing of one that is longer, or that does not come.
pub(crate) async fn body(mut response: Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Bytes::new();
        }
        body.extend_from_slice(&chunk);
    }
    body.into()
}

impl NoAnswer {
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let error: &(dyn Error + 'static) = error;
        let mut sources = std::iter::successors(Some(error), |&error| error.source());
        let Some(http2) = sources.find_map(|source| source.downcast_ref::<h2::Error>()) else {
            return Self::Unknown;
        };
        // A stream that GOAWAY ends is above the last one that the service has taken. [RFC 9113, 6.8] Or
        // the service broke the connection off after it: then this is one push more, which says nothing.
        let is_unprocessed =
            http2.is_remote() && (http2.is_go_away() || http2.reason() == Some(h2::Reason::REFUSED_STREAM));
        if is_unprocessed { Self::Unprocessed } else { Self::Unknown }
    }
}
