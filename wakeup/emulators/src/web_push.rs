//! A push service of the Web. [RFC 8030, RFC 8292]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use sotto_model::Clock;

use crate::authority::Authority;
use crate::request::{Answer, Request};
use crate::script::Script;
use crate::server::{Server, Service};
use crate::statement::Statement;

/// A statement is made for so long at most, seconds. [RFC 8292, 2]
const STATEMENT_AGE_MAX: u64 = 24 * 60 * 60;
const TOPIC_BYTES_MAX: usize = 32;

pub struct WebPushEmulator {
    pub server: Server,
    pub rules: Arc<WebPushRules>,
}

pub struct WebPushRules {
    pub script: Script,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    origin: String,
    /// The application server's key that subscriptions were made for, in base64url.
    application_server_key: String,
    statements: HashSet<String>,
    dead: HashSet<String>,
    delivered: HashMap<String, u32>,
}

impl WebPushEmulator {
    pub async fn start(authority: &Authority, clock: Arc<dyn Clock>) -> Self {
        let rules = Arc::new(WebPushRules { script: Script::default(), clock, state: Mutex::default() });
        let server = Server::start(authority, rules.clone(), None).await;
        rules.state.lock().origin = server.base_url();
        Self { server, rules }
    }

    pub fn endpoint(&self, subscription: &str) -> String {
        format!("{}/push/{subscription}", self.server.base_url())
    }
}

impl WebPushRules {
    /// All subscriptions were made for this key.
    pub fn subscribe_with(&self, application_server_key: &str) {
        application_server_key.clone_into(&mut self.state.lock().application_server_key);
    }

    pub fn unsubscribe(&self, subscription: &str) {
        self.state.lock().dead.insert(subscription.to_owned());
    }

    pub fn delivered(&self) -> HashMap<String, u32> {
        self.state.lock().delivered.clone()
    }

    /// How many different statements clients have made.
    pub fn statements(&self) -> usize {
        self.state.lock().statements.len()
    }

    fn check(&self, request: &Request) -> Result<(), u16> {
        let subscription = request.path.strip_prefix("/push/").ok_or(404u16)?;
        if request.method != "POST" {
            return Err(405);
        }
        let mut state = self.state.lock();
        state.check_vapid(request, self.clock.unix_now().0 / 1000)?;
        let is_number = |name| request.header(name).is_some_and(|value| value.parse::<u32>().is_ok());
        let is_urgency = matches!(request.header("urgency"), Some("very-low" | "low" | "normal" | "high"));
        let is_topic = request.header("topic").is_none_or(|topic| {
            topic.len() <= TOPIC_BYTES_MAX
                && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        // Without encryption there is nothing that a message might hold. [RFC 8291, 4]
        if !is_number("ttl") || !is_urgency || !is_topic || !request.body.is_empty() {
            return Err(400);
        }
        if state.dead.contains(subscription) {
            return Err(410);
        }
        *state.delivered.entry(subscription.to_owned()).or_default() += 1;
        Ok(())
    }
}

impl Service for WebPushRules {
    fn answer(&self, request: &Request) -> Answer {
        match self.check(request) {
            Ok(()) => Answer::status(201).with_header("location", "/message/1"),
            Err(status) => Answer::status(status),
        }
    }

    fn script(&self, _: &str) -> &Script {
        &self.script
    }
}

impl State {
    /// [RFC 8292, 3]
    fn check_vapid(&mut self, request: &Request, now: u64) -> Result<(), u16> {
        let value =
            request.header("authorization").and_then(|value| value.strip_prefix("vapid ")).ok_or(401u16)?;
        let parameters: HashMap<&str, &str> =
            value.split(',').filter_map(|parameter| parameter.trim().split_once('=')).collect();
        let (token, key) = (parameters.get("t").ok_or(401u16)?, parameters.get("k").ok_or(401u16)?);
        if *key != self.application_server_key {
            return Err(403);
        }
        let point = BASE64URL_NOPAD.decode(key.as_bytes()).map_err(|_| 401u16)?;
        let statement =
            Statement::verify(token, Algorithm::ES256, &DecodingKey::from_ec_der(&point)).ok_or(401u16)?;
        let ends = statement.seconds("exp").ok_or(401u16)?;
        let is_timely = now < ends && ends - now <= STATEMENT_AGE_MAX;
        let is_contact =
            statement.text("sub").is_some_and(|sub| sub.starts_with("mailto:") || sub.starts_with("https:"));
        if statement.text("aud") != Some(self.origin.as_str()) || !is_timely || !is_contact {
            return Err(401);
        }
        self.statements.insert((*token).to_owned());
        Ok(())
    }
}
