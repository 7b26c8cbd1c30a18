//! Google's push service, HTTP v1. The whole of what it is told:
//!
//! ```text
//! POST /v1/projects/<project>/messages:send
//! authorization: Bearer <access token>
//! content-type: application/json
//!
//! {"message":{"token":"<token>","android":{"priority":"HIGH","ttl":"86400s"},"data":{"w":"1"}}}
//! ```
//!
//! A low urgency says NORMAL. There is no collapse key: FCM collapses twenty a device and then drops.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Response, Url};
use sotto_model::{Clock, UnixMillis, Urgency};

use crate::access_token::AccessTokens;
use crate::base_url::BaseUrl;
use crate::credential_file::CredentialFile;
use crate::device_token::DeviceToken;
use crate::fcm_answer::{FcmAnswer, answer};
use crate::http_client::{self, HttpTimings, NoAnswer, PusherError};
use crate::limits::{FCM_UNAVAILABLE_WAIT, PUSH_TIMEOUT, REPLAYS_MAX, SERVICE_IDLE_AGE_MAX};
use crate::pusher::{CredentialState, PushOutcome, Pusher, Wakeup};
use crate::retry_after;
use crate::service_account::ServiceAccount;
use crate::trouble::Trouble;

const BEFORE_TOKEN: &str = r#"{"message":{"token":""#;
const AFTER_TOKEN_HIGH: &str = r#"","android":{"priority":"HIGH","ttl":"86400s"},"data":{"w":"1"}}}"#;
const AFTER_TOKEN_LOW: &str = r#"","android":{"priority":"NORMAL","ttl":"86400s"},"data":{"w":"1"}}}"#;

pub struct FcmConfig {
    /// The project's identifier, not its number.
    pub project: String,
    /// The service account's key: the JSON file as Google gives it.
    pub service_account_file: PathBuf,
    pub base_url: BaseUrl,
    /// PEM, beside the system's.
    pub extra_roots: Option<Vec<u8>>,
    pub timings: HttpTimings,
}

pub struct Fcm {
    client: Client,
    url: Url,
    credential: CredentialFile<AccessTokens>,
    clock: Arc<dyn Clock>,
    trouble: Trouble,
}

impl Fcm {
    /// Reads the service account; connects with the first push.
    pub fn new(config: FcmConfig, clock: Arc<dyn Clock>) -> Result<Self, PusherError> {
        let is_project = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if config.project.is_empty() || !config.project.bytes().all(is_project) {
            return Err(PusherError::Setting("project"));
        }
        let client = http_client::client(config.timings, config.extra_roots.as_deref(), |builder| {
            builder.http2_prior_knowledge().pool_idle_timeout(SERVICE_IDLE_AGE_MAX)
        })?;
        let credential = CredentialFile::open(config.service_account_file, clock.clone(), |json| {
            Ok(AccessTokens::new(ServiceAccount::parse(json)?))
        })?;
        let url = config.base_url.join(&format!("/v1/projects/{}/messages:send", config.project));
        Ok(Self { client, url, credential, clock, trouble: Trouble::default() })
    }

    async fn deliver(&self, token: &DeviceToken, urgency: Urgency) -> PushOutcome {
        let tokens = self.credential.current();
        let bearer = match tokens.bearer(&self.client, &*self.clock).await {
            Ok(bearer) => bearer,
            Err(outcome) => return outcome,
        };
        let mut replays = 0;
        let response = loop {
            let request = self
                .client
                .post(self.url.clone())
                .header(AUTHORIZATION, bearer.clone())
                .header(CONTENT_TYPE, "application/json")
                .body(body(token, urgency));
            match request.send().await.map_err(|error| self.noted(&error)) {
                Ok(response) => break response,
                Err(NoAnswer::Unprocessed) if replays < REPLAYS_MAX => replays += 1,
                Err(_) => return PushOutcome::Unavailable(Some(FCM_UNAVAILABLE_WAIT)),
            }
        };
        match self.read(response).await {
            FcmAnswer::Outcome(outcome) => outcome,
            FcmAnswer::AccessTokenRefused => {
                tokens.forget(&bearer);
                PushOutcome::CredentialRefused("access token is refused")
            }
        }
    }

    fn noted(&self, error: &reqwest::Error) -> NoAnswer {
        self.trouble.note(error, self.clock.unix_now());
        NoAnswer::of(error)
    }

    async fn read(&self, response: Response) -> FcmAnswer {
        let asked = retry_after::asked(response.headers(), self.clock.unix_now());
        let status = response.status();
        answer(status, &http_client::body(response).await, asked)
    }
}

#[async_trait]
impl Pusher for Fcm {
    async fn push(&self, wakeup: Wakeup) -> PushOutcome {
        let Ok(token) = DeviceToken::fcm(wakeup.token.reveal()) else {
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

/// The token needs no escaping: it is of the alphabet that `DeviceToken` lets through.
fn body(token: &DeviceToken, urgency: Urgency) -> String {
    let after_token = match urgency {
        Urgency::High => AFTER_TOKEN_HIGH,
        Urgency::Low => AFTER_TOKEN_LOW,
    };
    [BEFORE_TOKEN, token.reveal(), after_token].concat()
}
