//! Apple's push service, as its documentation has it.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use rcgen::KeyPair;
use serde_json::{Value, json};
use sotto_model::{Clock, UnixMillis};
use uuid::Uuid;

use crate::authority::Authority;
use crate::request::{Answer, Request};
use crate::script::Script;
use crate::server::{Server, Service};
use crate::statement::Statement;

/// A provider token is good for so long, and may change after so long, seconds.
const PROVIDER_TOKEN_AGE_MAX: u64 = 60 * 60;
const PROVIDER_TOKEN_AGE_MIN: u64 = 20 * 60;
/// How far a provider's clock may be ahead, seconds.
const CLOCK_AHEAD_MAX: u64 = 60;
const PAYLOAD_BYTES_MAX: usize = 4096;
const COLLAPSE_ID_BYTES_MAX: usize = 64;

pub const TOPIC: &str = "org.example.messenger";
pub const TEAM_ID: &str = "TEAM000001";
pub const KEY_ID: &str = "KEY0000001";

pub struct ApnsEmulator {
    pub server: Server,
    pub rules: Arc<ApnsRules>,
}

/// What the service knows, and what it is told to get wrong.
pub struct ApnsRules {
    pub script: Script,
    key_pem: String,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    /// Replaced when the provider gets another one.
    key: DecodingKey,
    key_id: String,
    /// Provider tokens taken, and when each was first seen, seconds since the epoch.
    taken: HashMap<String, u64>,
    /// When the last of them came up.
    changed_at: Option<u64>,
    dead: HashMap<String, UnixMillis>,
    delivered: HashMap<String, u32>,
}

impl ApnsEmulator {
    pub async fn start(
        authority: &Authority,
        clock: Arc<dyn Clock>,
        max_concurrent_streams: Option<u32>,
    ) -> Self {
        let rules = Arc::new(ApnsRules::new(clock));
        let server = Server::start(authority, rules.clone(), max_concurrent_streams).await;
        Self { server, rules }
    }

    /// One that keeps nothing of what it is sent, for measuring.
    pub async fn without_records(authority: &Authority, clock: Arc<dyn Clock>) -> Self {
        let rules = Arc::new(ApnsRules::new(clock));
        let server = Server::without_records(authority, rules.clone()).await;
        Self { server, rules }
    }
}

impl ApnsRules {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let key = KeyPair::generate().expect("a key");
        let state = State {
            key: DecodingKey::from_ec_der(key.public_key_raw()),
            key_id: KEY_ID.to_owned(),
            taken: HashMap::new(),
            changed_at: None,
            dead: HashMap::new(),
            delivered: HashMap::new(),
        };
        Self { script: Script::default(), key_pem: key.serialize_pem(), state: Mutex::new(state), clock }
    }

    /// As in the `.p8` file that Apple gives.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The key with which the service works from here on, and no other.
    pub fn replace_key(&self) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut state = self.state.lock();
        state.key = DecodingKey::from_ec_der(key.public_key_raw());
        state.taken.clear();
        state.changed_at = None;
        key.serialize_pem()
    }

    /// The app is gone from that device.
    pub fn unregister(&self, token: &str, since: UnixMillis) {
        self.state.lock().dead.insert(token.to_owned(), since);
    }

    /// How often each device has been woken.
    pub fn delivered(&self) -> HashMap<String, u32> {
        self.state.lock().delivered.clone()
    }

    /// How many provider tokens were taken.
    pub fn provider_tokens(&self) -> usize {
        self.state.lock().taken.len()
    }

    fn check(&self, request: &Request) -> Result<(), Answer> {
        let token = request.path.strip_prefix("/3/device/").ok_or_else(|| refusal(404, "BadPath"))?;
        if request.method != "POST" {
            return Err(refusal(405, "MethodNotAllowed"));
        }
        let mut state = self.state.lock();
        state.check_provider_token(request, self.clock.unix_now().0 / 1000)?;
        match request.header("apns-topic") {
            Some(TOPIC) => {}
            Some(_) => return Err(refusal(400, "TopicDisallowed")),
            None => return Err(refusal(400, "MissingTopic")),
        }
        check_payload(request)?;
        // Of this length in practice; in lower case, as devices say it.
        let is_token =
            token.len() == 64 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_token {
            return Err(refusal(400, "BadDeviceToken"));
        }
        if let Some(since) = state.dead.get(token) {
            return Err(Answer::json(410, &json!({ "reason": "Unregistered", "timestamp": since.0 })));
        }
        *state.delivered.entry(token.to_owned()).or_default() += 1;
        Ok(())
    }
}

impl Service for ApnsRules {
    fn answer(&self, request: &Request) -> Answer {
        match self.check(request) {
            Ok(()) => Answer::status(200).with_header("apns-id", Uuid::new_v4().to_string()),
            Err(refusal) => refusal,
        }
    }

    fn script(&self, _: &str) -> &Script {
        &self.script
    }
}

impl State {
    fn check_provider_token(&mut self, request: &Request, now: u64) -> Result<(), Answer> {
        let token = request.header("authorization").and_then(|value| value.strip_prefix("bearer "));
        let token = token.ok_or_else(|| refusal(403, "MissingProviderToken"))?;
        let first_seen = match self.taken.get(token) {
            Some(_) => None,
            None => {
                Some(self.read_provider_token(token).ok_or_else(|| refusal(403, "InvalidProviderToken"))?)
            }
        };
        let issued_at = first_seen.unwrap_or_else(|| self.taken[token]);
        if issued_at > now + CLOCK_AHEAD_MAX {
            return Err(refusal(403, "InvalidProviderToken"));
        }
        if now.saturating_sub(issued_at) > PROVIDER_TOKEN_AGE_MAX {
            return Err(refusal(403, "ExpiredProviderToken"));
        }
        if first_seen.is_some() {
            if self.changed_at.is_some_and(|at| now.saturating_sub(at) < PROVIDER_TOKEN_AGE_MIN) {
                return Err(refusal(429, "TooManyProviderTokenUpdates"));
            }
            self.changed_at = Some(now);
            self.taken.insert(token.to_owned(), issued_at);
        }
        Ok(())
    }

    /// When it was issued.
    fn read_provider_token(&self, token: &str) -> Option<u64> {
        let statement = Statement::verify(token, Algorithm::ES256, &self.key)?;
        let is_known = statement.key_id.as_deref() == Some(self.key_id.as_str())
            && statement.text("iss") == Some(TEAM_ID);
        if is_known { statement.seconds("iat") } else { None }
    }
}

fn check_payload(request: &Request) -> Result<(), Answer> {
    if request.body.is_empty() {
        return Err(refusal(400, "PayloadEmpty"));
    }
    if request.body.len() > PAYLOAD_BYTES_MAX {
        return Err(refusal(413, "PayloadTooLarge"));
    }
    let payload: Value = serde_json::from_slice(&request.body).map_err(|_| refusal(400, "BadPayload"))?;
    let aps = &payload["aps"];
    let priority = request.header("apns-priority").unwrap_or("10");
    let is_allowed = match request.header("apns-push-type") {
        Some("alert") => aps["alert"].is_object() && matches!(priority, "10" | "5" | "1"),
        // [Apple, Pushing background updates]: without anything that shows, and never with priority 10.
        Some("background") => {
            if priority != "5" {
                return Err(refusal(400, "BadPriority"));
            }
            aps["content-available"] == 1 && ["alert", "badge", "sound"].iter().all(|key| aps[key].is_null())
        }
        _ => return Err(refusal(400, "InvalidPushType")),
    };
    if !is_allowed {
        return Err(refusal(400, "BadPayload"));
    }
    if request.header("apns-expiration").is_none_or(|value| value.parse::<u64>().is_err()) {
        return Err(refusal(400, "BadExpirationDate"));
    }
    if request.header("apns-collapse-id").is_some_and(|id| id.len() > COLLAPSE_ID_BYTES_MAX) {
        return Err(refusal(400, "BadCollapseId"));
    }
    Ok(())
}

fn refusal(status: u16, reason: &str) -> Answer {
    Answer::json(status, &json!({ "reason": reason }))
}
