//! Push for browsers. The whole of what their push services are told: [RFC 8030, RFC 8292]
//!
//! ```text
//! POST <endpoint>
//! Authorization: vapid t=<statement for the endpoint's origin>, k=<public key>
//! TTL: 86400
//! Urgency: high                    or low
//! Topic: w                         a push that still waits for the device is replaced
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use sotto_model::{Clock, UnixMillis, Urgency};

use crate::address_guard::AddressGuard;
use crate::credential_file::CredentialFile;
use crate::endpoint_client::{EndpointClient, NOT_AUTHORIZED};
use crate::http_client::{HttpTimings, PusherError};
use crate::jwt::Es256Key;
use crate::pusher::{CredentialState, PushOutcome, Pusher, Wakeup};
use crate::vapid::Vapid;

const TOPIC: HeaderValue = HeaderValue::from_static("w");

pub struct WebPushConfig {
    /// A private key of the curve P-256 in PEM: the application server's.
    pub key_file: PathBuf,
    /// Whom a push service may turn to: `mailto:` or `https:`. [RFC 8292, 2.1]
    pub subject: String,
    /// Networks that are not public, and may be reached all the same.
    pub allow_networks: Vec<IpNet>,
    /// PEM, beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    pub timings: HttpTimings,
}

pub struct WebPush {
    endpoints: EndpointClient,
    credential: CredentialFile<Vapid>,
    clock: Arc<dyn Clock>,
}

impl WebPush {
    pub fn new(config: WebPushConfig, clock: Arc<dyn Clock>) -> Result<Self, PusherError> {
        let subject = config.subject;
        if !subject.starts_with("mailto:") && !subject.starts_with("https://") {
            return Err(PusherError::Setting("subject"));
        }
        let guard = AddressGuard::new(config.allow_networks);
        let extra_roots = config.extra_roots.as_deref();
        let endpoints = EndpointClient::new(guard, extra_roots, config.timings, clock.clone())?;
        let credential = CredentialFile::open(config.key_file, clock.clone(), move |pem| {
            Ok(Vapid::new(Es256Key::from_pem(pem)?, &subject))
        })?;
        Ok(Self { endpoints, credential, clock })
    }

    /// What browsers call `applicationServerKey`, in base64url: subscriptions are made for it.
    pub fn application_server_key(&self) -> String {
        self.credential.current().public_key()
    }

    async fn deliver(&self, raw: &str, urgency: Urgency) -> Result<PushOutcome, PushOutcome> {
        let endpoint = self.endpoints.check(raw)?;
        let (vapid, origin) = (self.credential.current(), endpoint.origin());
        let authorization = vapid
            .authorization(&origin, self.clock.now(), self.clock.unix_now())
            .map_err(|_| PushOutcome::CredentialRefused("VAPID statement cannot be signed"))?;
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(HeaderName::from_static("topic"), TOPIC);
        let outcome = self.endpoints.post(&endpoint, urgency, headers, b"").await;
        // The subscription may have been made for another key: that says nothing of the others of its
        // origin, and the user who registered it must not be able to stop them. But the statement may be
        // what is refused.
        if outcome == NOT_AUTHORIZED {
            vapid.forget(&origin);
        }
        Ok(outcome)
    }
}

#[async_trait]
impl Pusher for WebPush {
    async fn push(&self, wakeup: Wakeup) -> PushOutcome {
        self.deliver(wakeup.token.reveal(), wakeup.urgency).await.unwrap_or_else(|outcome| outcome)
    }

    fn credential(&self) -> CredentialState {
        self.credential.state()
    }

    fn public_key(&self) -> Option<String> {
        Some(self.application_server_key())
    }

    fn last_trouble(&self) -> Option<(&'static str, UnixMillis)> {
        self.endpoints.last_trouble()
    }
}
