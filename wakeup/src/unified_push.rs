//! UnifiedPush, or any webhook of its shape: one constant request to the device's endpoint. [RFC 8030]
//!
//! ```text
//! POST <endpoint>
//! TTL: 86400
//! Urgency: high                    or low
//!
//! 1
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use reqwest::header::HeaderMap;
use sotto_model::{Clock, UnixMillis};

use crate::address_guard::AddressGuard;
use crate::endpoint_client::EndpointClient;
use crate::http_client::{HttpTimings, PusherError};
use crate::pusher::{PushOutcome, Pusher, Wakeup};

/// All that a push ever says: UnifiedPush asks for at least one byte.
const BODY: &[u8] = b"1";

pub struct UnifiedPush(EndpointClient);

impl UnifiedPush {
    /// Trusts the system's certification authorities, and those in `extra_roots` (PEM). Reaches public
    /// addresses and `allow_networks`.
    pub fn new(
        clock: Arc<dyn Clock>,
        allow_networks: impl IntoIterator<Item = IpNet>,
        extra_roots: Option<&[u8]>,
    ) -> Result<Self, PusherError> {
        let guard = AddressGuard::new(allow_networks);
        Ok(Self(EndpointClient::new(guard, extra_roots, HttpTimings::default(), clock)?))
    }
}

#[async_trait]
impl Pusher for UnifiedPush {
    async fn push(&self, wakeup: Wakeup) -> PushOutcome {
        match self.0.check(wakeup.token.reveal()) {
            Ok(endpoint) => self.0.post(&endpoint, wakeup.urgency, HeaderMap::new(), BODY).await,
            Err(outcome) => outcome,
        }
    }

    fn last_trouble(&self) -> Option<(&'static str, UnixMillis)> {
        self.0.last_trouble()
    }
}
