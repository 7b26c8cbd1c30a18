//! Apple's push service. The whole of what it is told:
//!
//! ```text
//! POST /3/device/<token>                               over one HTTP/2 connection
//! authorization: bearer <provider token>
//! apns-topic: <the app>
//! apns-expiration: <in a day, to the hour>
//!
//! high  apns-push-type: alert       apns-priority: 10   apns-collapse-id: w
//!       {"aps":{"alert":{"loc-key":"W"},"mutable-content":1}}
//! low   apns-push-type: background  apns-priority: 5
//!       {"aps":{"content-available":1}}
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response};
use sotto_model::{Clock, UnixMillis, Urgency};
use tokio::sync::Mutex;

use crate::apns_answer::{ApnsAnswer, answer};
use crate::base_url::BaseUrl;
use crate::credential_file::CredentialFile;
use crate::device_token::DeviceToken;
use crate::http_client::{self, HttpTimings, NoAnswer, PusherError};
use crate::jwt::Es256Key;
use crate::limits::{
    APNS_EXPIRATION_GRAIN_SECONDS, APNS_TTL_SECONDS, PUSH_TIMEOUT, REPLAYS_MAX, SERVICE_IDLE_AGE_MAX,
};
use crate::provider_token::ProviderTokens;
use crate::pusher::{CredentialState, PushOutcome, Pusher, Wakeup};
use crate::retry_after;
use crate::trouble::Trouble;

const ALERT: &[u8] = br#"{"aps":{"alert":{"loc-key":"W"},"mutable-content":1}}"#;
const BACKGROUND: &[u8] = br#"{"aps":{"content-available":1}}"#;

pub struct ApnsConfig {
    /// The app's bundle identifier.
    pub topic: String,
    pub team_id: String,
    /// Of the key in `key_file`.
    pub key_id: String,
    /// The `.p8` file as Apple gives it: PKCS #8 in PEM.
    pub key_file: PathBuf,
    pub base_url: BaseUrl,
    /// PEM, beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    pub timings: HttpTimings,
}

pub struct Apns {
    client: Client,
    base_url: BaseUrl,
    topic: HeaderValue,
    credential: CredentialFile<ProviderTokens>,
    clock: Arc<dyn Clock>,
    trouble: Trouble,
    /// The service has taken a push with the credential in use over the connection in use. Before that it
    /// asks for one stream alone.
    is_proven: AtomicBool,
    /// Held by the one push under way while nothing is proven.
    first: Mutex<()>,
}

/// What one request came to.
enum Attempt {
    Answered(ApnsAnswer),
    NotAnswered(NoAnswer),
}

impl Apns {
    /// Reads the key; connects with the first push.
    pub fn new(config: ApnsConfig, clock: Arc<dyn Clock>) -> Result<Self, PusherError> {
        let topic = HeaderValue::from_str(&config.topic)
            .ok()
            .filter(|_| !config.topic.is_empty() && config.topic.bytes().all(is_topic_byte))
            .ok_or(PusherError::Setting("topic"))?;
        for (id, setting) in [(&config.team_id, "team_id"), (&config.key_id, "key_id")] {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(PusherError::Setting(setting));
            }
        }
        let client = http_client::client(config.timings, config.extra_roots.as_deref(), |builder| {
            // One connection serves all pushes, for hours.
            builder.http2_prior_knowledge().pool_idle_timeout(SERVICE_IDLE_AGE_MAX)
        })?;
        let (key_id, team_id) = (config.key_id, config.team_id);
        let credential = CredentialFile::open(config.key_file, clock.clone(), move |pem| {
            Ok(ProviderTokens::new(Es256Key::from_pem(pem)?, &key_id, &team_id))
        })?;
        Ok(Self {
            client,
            base_url: config.base_url,
            topic,
            credential,
            clock,
            trouble: Trouble::default(),
            is_proven: AtomicBool::new(false),
            first: Mutex::new(()),
        })
    }

    async fn deliver(&self, token: &DeviceToken, urgency: Urgency) -> PushOutcome {
        let tokens = self.credential.current();
        let Ok(mut bearer) = tokens.bearer(self.clock.now(), self.clock.unix_now()) else {
            return PushOutcome::CredentialRefused("provider token cannot be signed");
        };
        let mut is_reminted = false;
        let mut replays = 0;
        loop {
            let other = match self.attempt(token, urgency, &bearer).await {
                Attempt::Answered(ApnsAnswer::Outcome(outcome)) => return outcome,
                Attempt::Answered(ApnsAnswer::ProviderTokenExpired) => {
                    let other = tokens.expired(&bearer, self.clock.now(), self.clock.unix_now());
                    other.ok_or(PushOutcome::CredentialRefused("provider token is too old"))
                }
                Attempt::Answered(ApnsAnswer::TooManyProviderTokens) => {
                    let other = tokens.too_many(&bearer, self.clock.now());
                    other.ok_or(PushOutcome::Unavailable(None))
                }
                Attempt::NotAnswered(NoAnswer::Unprocessed) if replays < REPLAYS_MAX => {
                    replays += 1;
                    continue;
                }
                Attempt::NotAnswered(_) => return PushOutcome::Unavailable(None),
            };
            match other {
                Ok(other) if !is_reminted => bearer = other,
                Ok(_) => return PushOutcome::CredentialRefused("provider token is refused"),
                Err(outcome) => return outcome,
            }
            is_reminted = true;
        }
    }

    async fn attempt(&self, token: &DeviceToken, urgency: Urgency, bearer: &HeaderValue) -> Attempt {
        let _first = if self.is_proven.load(Ordering::Acquire) {
            None
        } else {
            let first = self.first.lock().await;
            (!self.is_proven.load(Ordering::Acquire)).then_some(first)
        };
        let url = self.base_url.join(&format!("/3/device/{}", token.reveal()));
        let request = self.client.post(url).headers(self.headers(urgency, bearer)).body(body(urgency));
        match request.send().await {
            Ok(response) => {
                let answer = self.read(response).await;
                if let ApnsAnswer::Outcome(outcome) = answer {
                    let refused = matches!(outcome, PushOutcome::CredentialRefused(_));
                    self.is_proven.store(!refused, Ordering::Release);
                }
                Attempt::Answered(answer)
            }
            Err(error) => {
                // What has only taken too long says nothing of the connection.
                if !error.is_timeout() {
                    self.is_proven.store(false, Ordering::Release);
                }
                self.trouble.note(&error, self.clock.unix_now());
                Attempt::NotAnswered(NoAnswer::of(&error))
            }
        }
    }

    async fn read(&self, response: Response) -> ApnsAnswer {
        let asked = retry_after::asked(response.headers(), self.clock.unix_now());
        let status = response.status();
        answer(status, &http_client::body(response).await, asked)
    }

    fn headers(&self, urgency: Urgency, bearer: &HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(AUTHORIZATION, bearer.clone());
        headers.insert(HeaderName::from_static("apns-topic"), self.topic.clone());
        headers
            .insert(HeaderName::from_static("apns-expiration"), expiration(self.clock.unix_now().0).into());
        let particular: &[(&str, &str)] = match urgency {
            Urgency::High => {
                &[("apns-push-type", "alert"), ("apns-priority", "10"), ("apns-collapse-id", "w")]
            }
            Urgency::Low => &[("apns-push-type", "background"), ("apns-priority", "5")],
        };
        for (name, value) in particular {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }
}

#[async_trait]
impl Pusher for Apns {
    async fn push(&self, wakeup: Wakeup) -> PushOutcome {
        let Ok(token) = DeviceToken::apns(wakeup.token.reveal()) else {
            return PushOutcome::Rejected("token is not valid");
        };
        let delivering = self.deliver(&token, wakeup.urgency);
        tokio::time::timeout(PUSH_TIMEOUT, delivering).await.unwrap_or(PushOutcome::Unavailable(None))
    }

    fn credential(&self) -> CredentialState {
        self.credential.state()
    }

    fn last_trouble(&self) -> Option<(&'static str, UnixMillis)> {
        self.trouble.last()
    }
}

fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

fn body(urgency: Urgency) -> &'static [u8] {
    match urgency {
        Urgency::High => ALERT,
        Urgency::Low => BACKGROUND,
    }
}

/// When APNs stops trying, seconds since the epoch: no finer than what is said by the request's own time.
fn expiration(unix_now_ms: u64) -> u64 {
    let at = unix_now_ms / 1000 + APNS_TTL_SECONDS;
    at - at % APNS_EXPIRATION_GRAIN_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiration_says_no_more_than_the_hour() {
        let hour = 784_108_800_000;
        assert_eq!(expiration(hour), 784_108_800 + 86_400);
        assert_eq!(expiration(hour + 3_599_999), 784_108_800 + 86_400);
        assert_eq!(expiration(hour + 3_600_000), 784_112_400 + 86_400);
    }
}
