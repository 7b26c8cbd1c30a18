//! Google's push service (HTTP v1) with its token endpoint, as their documentation has it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use sotto_model::Clock;
use uuid::Uuid;

use crate::authority::Authority;
use crate::request::{Answer, Request};
use crate::script::Script;
use crate::server::{Server, Service};
use crate::statement::Statement;

pub const PROJECT: &str = "example-messenger";
pub const CLIENT_EMAIL: &str = "push@example-messenger.iam.gserviceaccount.com";
const PRIVATE_KEY_ID: &str = "0123456789abcdef0123456789abcdef01234567";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An assertion is made for so long, and an access token is good for so long, seconds.
const ASSERTION_AGE_MAX: u64 = 3600;
const ACCESS_TOKEN_AGE_MAX: u64 = 3599;
const CLOCK_AHEAD_MAX: u64 = 60;

pub struct FcmEmulator {
    pub server: Server,
    pub rules: Arc<FcmRules>,
}

pub struct FcmRules {
    /// Of the sending of messages.
    pub script: Script,
    /// Of the token endpoint.
    pub token_script: Script,
    key_pem: String,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    key: DecodingKey,
    /// The token endpoint's own URL, there once the server listens.
    token_uri: String,
    /// Access tokens and when they end, seconds since the epoch.
    issued: HashMap<String, u64>,
    dead: HashSet<String>,
    delivered: HashMap<String, u32>,
}

impl FcmEmulator {
    pub async fn start(authority: &Authority, clock: Arc<dyn Clock>) -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
        let state = State {
            key: DecodingKey::from_rsa_der(key.public_key_raw()),
            token_uri: String::new(),
            issued: HashMap::new(),
            dead: HashSet::new(),
            delivered: HashMap::new(),
        };
        let rules = Arc::new(FcmRules {
            script: Script::default(),
            token_script: Script::default(),
            key_pem: key.serialize_pem(),
            state: Mutex::new(state),
            clock,
        });
        let server = Server::start(authority, rules.clone(), None).await;
        rules.state.lock().token_uri = format!("{}/token", server.base_url());
        Self { server, rules }
    }

    /// The service account file as Google gives it.
    pub fn service_account(&self) -> String {
        json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": PRIVATE_KEY_ID,
            "private_key": self.rules.key_pem,
            "client_email": CLIENT_EMAIL,
            "client_id": "100000000000000000001",
            "token_uri": self.rules.state.lock().token_uri,
        })
        .to_string()
    }
}

impl FcmRules {
    pub fn unregister(&self, token: &str) {
        self.state.lock().dead.insert(token.to_owned());
    }

    pub fn delivered(&self) -> HashMap<String, u32> {
        self.state.lock().delivered.clone()
    }

    /// Access tokens given out.
    pub fn access_tokens(&self) -> usize {
        self.state.lock().issued.len()
    }

    /// Every access token given out so far is void.
    pub fn revoke(&self) {
        self.state.lock().issued.values_mut().for_each(|end| *end = 0);
    }

    /// Another key than the one in the service account file.
    pub fn replace_key(&self) {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
        self.state.lock().key = DecodingKey::from_rsa_der(key.public_key_raw());
    }

    fn now(&self) -> u64 {
        self.clock.unix_now().0 / 1000
    }

    /// [RFC 7523, 2.1]
    fn grant(&self, request: &Request) -> Result<Answer, Answer> {
        let refused =
            |why: &str| Answer::json(400, &json!({ "error": "invalid_grant", "error_description": why }));
        if request.header("content-type") != Some("application/x-www-form-urlencoded") {
            return Err(refused("not a form"));
        }
        let body = String::from_utf8(request.body.clone()).map_err(|_| refused("not a form"))?;
        let fields: HashMap<&str, &str> = body.split('&').filter_map(|field| field.split_once('=')).collect();
        if fields.get("grant_type").map(|grant| grant.replace("%3A", ":")).as_deref() != Some(GRANT) {
            return Err(Answer::json(400, &json!({ "error": "unsupported_grant_type" })));
        }
        let mut state = self.state.lock();
        let assertion = fields.get("assertion").copied().unwrap_or_default();
        let assertion = Statement::verify(assertion, Algorithm::RS256, &state.key)
            .ok_or_else(|| refused("Invalid JWT Signature."))?;
        let now = self.now();
        let (issued, ends) = (assertion.seconds("iat"), assertion.seconds("exp"));
        let (issued, ends) = issued.zip(ends).ok_or_else(|| refused("no times"))?;
        let is_timely = issued <= now + CLOCK_AHEAD_MAX && now < ends && ends - issued <= ASSERTION_AGE_MAX;
        let is_ours = assertion.text("iss") == Some(CLIENT_EMAIL)
            && assertion.text("aud") == Some(state.token_uri.as_str())
            && assertion.text("scope") == Some(SCOPE)
            && assertion.key_id.as_deref() == Some(PRIVATE_KEY_ID);
        if !is_timely || !is_ours {
            return Err(refused("Invalid JWT"));
        }
        let token = format!("ya29.{}", Uuid::new_v4().simple());
        state.issued.insert(token.clone(), now + ACCESS_TOKEN_AGE_MAX);
        Ok(Answer::json(
            200,
            &json!({ "access_token": token, "expires_in": ACCESS_TOKEN_AGE_MAX, "token_type": "Bearer" }),
        ))
    }

    fn send(&self, request: &Request) -> Result<Answer, Answer> {
        let mut state = self.state.lock();
        let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let is_good = bearer.and_then(|token| state.issued.get(token)).is_some_and(|end| self.now() < *end);
        if !is_good {
            return Err(status(401, "UNAUTHENTICATED", &[]));
        }
        if request.path != format!("/v1/projects/{PROJECT}/messages:send") {
            return Err(status(403, "PERMISSION_DENIED", &[]));
        }
        let message = message(request).ok_or_else(|| status(400, "INVALID_ARGUMENT", &[]))?;
        let token = message["token"].as_str().unwrap_or_default().to_owned();
        if token.len() < 16 {
            let field = json!({ "field": "message.token", "description": "Invalid registration token" });
            let details = json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [field],
            });
            return Err(status(400, "INVALID_ARGUMENT", &[details, fcm_error("INVALID_ARGUMENT")]));
        }
        if state.dead.contains(&token) {
            return Err(status(404, "NOT_FOUND", &[fcm_error("UNREGISTERED")]));
        }
        *state.delivered.entry(token).or_default() += 1;
        Ok(Answer::json(200, &json!({ "name": format!("projects/{PROJECT}/messages/{}", Uuid::new_v4()) })))
    }
}

impl Service for FcmRules {
    fn answer(&self, request: &Request) -> Answer {
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/token") => self.grant(request),
            ("POST", _) => self.send(request),
            _ => Err(Answer::status(404)),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    fn script(&self, path: &str) -> &Script {
        if path == "/token" { &self.token_script } else { &self.script }
    }
}

/// A message with known fields alone.
fn message(request: &Request) -> Option<Value> {
    let mut body: Value = serde_json::from_slice(&request.body).ok()?;
    let message = body["message"].take();
    let fields: HashSet<&str> = message.as_object()?.keys().map(String::as_str).collect();
    let android = &message["android"];
    let is_allowed = request.header("content-type") == Some("application/json")
        && fields == HashSet::from(["token", "android", "data"])
        && matches!(android["priority"].as_str()?, "HIGH" | "NORMAL")
        && android["ttl"].as_str()?.strip_suffix('s')?.parse::<u32>().is_ok()
        && message["data"].as_object()?.values().all(Value::is_string);
    is_allowed.then_some(message)
}

/// An error as Google's services give it.
pub fn status(code: u16, status: &str, details: &[Value]) -> Answer {
    Answer::json(code, &json!({ "error": { "code": code, "status": status, "details": details } }))
}

/// The detail in which FCM gives its own code.
pub fn fcm_error(code: &str) -> Value {
    json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code })
}
