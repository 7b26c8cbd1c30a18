//! The token that Google gives for an assertion: fetched by one, shared by all, renewed before it ends.
//! [RFC 6749, RFC 7523]

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use sotto_model::Clock;
use zeroize::Zeroizing;

use crate::http_client;
use crate::limits::{ACCESS_TOKEN_AGE_MAX, ACCESS_TOKEN_RENEW_BEFORE, ACCESS_TOKEN_RETRY_INTERVAL};
use crate::pusher::PushOutcome;
use crate::retry_after;
use crate::service_account::ServiceAccount;

const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";

/// One service account's tokens. Made anew with another account.
pub(crate) struct AccessTokens {
    account: ServiceAccount,
    /// Locked for a moment by whoever pushes.
    state: Mutex<State>,
    /// Held by the one who fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<AccessToken>,
    /// When fetching failed last, and what came of it.
    failed: Option<(Instant, PushOutcome)>,
}

#[derive(Clone)]
struct AccessToken {
    /// Marked as sensitive, so that it is neither shown nor kept in a header table.
    bearer: HeaderValue,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds.
    expires_in: u64,
}

impl AccessTokens {
    pub(crate) fn new(account: ServiceAccount) -> Self {
        Self { account, state: Mutex::default(), fetching: tokio::sync::Mutex::new(()) }
    }

    /// The value of `authorization`, or what becomes of the push without one.
    pub(crate) async fn bearer(
        &self,
        client: &Client,
        clock: &dyn Clock,
    ) -> Result<HeaderValue, PushOutcome> {
        let now = clock.now();
        if let Some(token) = self.usable(now) {
            if now < token.renew_at {
                return Ok(token.bearer);
            }
            // Whoever comes first renews it, the others go on with it.
            if let Ok(_fetching) = self.fetching.try_lock()
                && self.may_fetch(now).is_ok()
                && self.usable(now).is_none_or(|token| token.renew_at <= now)
                && let Ok(renewed) = self.fetch(client, clock).await
            {
                return Ok(renewed);
            }
            return Ok(token.bearer);
        }
        let _fetching = self.fetching.lock().await;
        let now = clock.now();
        // Somebody may have fetched it meanwhile.
        if let Some(token) = self.usable(now) {
            return Ok(token.bearer);
        }
        self.may_fetch(now)?;
        self.fetch(client, clock).await
    }

    /// The service does not take it any more.
    pub(crate) fn forget(&self, refused: &HeaderValue) {
        let mut state = self.state.lock();
        if state.token.as_ref().is_some_and(|token| token.bearer == *refused) {
            state.token = None;
        }
    }

    fn usable(&self, now: Instant) -> Option<AccessToken> {
        self.state.lock().token.clone().filter(|token| now < token.ends_at)
    }

    /// Not again at once after a failure: what came of that one holds for a while.
    fn may_fetch(&self, now: Instant) -> Result<(), PushOutcome> {
        match self.state.lock().failed {
            Some((at, outcome)) if now.saturating_duration_since(at) < ACCESS_TOKEN_RETRY_INTERVAL => {
                Err(outcome)
            }
            _ => Ok(()),
        }
    }

    async fn fetch(&self, client: &Client, clock: &dyn Clock) -> Result<HeaderValue, PushOutcome> {
        let fetched = self.request(client, clock).await;
        let now = clock.now();
        let mut state = self.state.lock();
        match fetched {
            Ok((bearer, lives)) => {
                let renew_before = ACCESS_TOKEN_RENEW_BEFORE.min(lives / 2);
                state.token = Some(AccessToken {
                    bearer: bearer.clone(),
                    renew_at: now + lives.saturating_sub(renew_before),
                    ends_at: now + lives,
                });
                state.failed = None;
                Ok(bearer)
            }
            Err(outcome) => {
                state.failed = Some((now, outcome));
                Err(outcome)
            }
        }
    }

    async fn request(
        &self,
        client: &Client,
        clock: &dyn Clock,
    ) -> Result<(HeaderValue, Duration), PushOutcome> {
        let assertion = self
            .account
            .assertion(clock.unix_now())
            .map_err(|_| PushOutcome::CredentialRefused("assertion cannot be signed"))?;
        let request = client
            .post(self.account.token_uri().url().clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            // base64url needs no escaping.
            .body(format!("{GRANT}{}", assertion.as_str()));
        let response = request.send().await.map_err(|_| PushOutcome::Unavailable(None))?;
        let asked = retry_after::asked(response.headers(), clock.unix_now());
        match response.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                return Err(PushOutcome::Unavailable(asked));
            }
            status if status.is_server_error() => return Err(PushOutcome::Unavailable(asked)),
            _ => return Err(PushOutcome::CredentialRefused("service account is refused")),
        }
        granted(&http_client::body(response).await).ok_or(PushOutcome::Unavailable(None))
    }
}

fn granted(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    let granted: Granted = serde_json::from_slice(body).ok()?;
    let access_token = Zeroizing::new(granted.access_token);
    let bearer = Zeroizing::new(format!("Bearer {}", access_token.as_str()));
    let mut bearer = HeaderValue::from_str(&bearer).ok()?;
    bearer.set_sensitive(true);
    Some((bearer, Duration::from_secs(granted.expires_in).min(ACCESS_TOKEN_AGE_MAX)))
}
