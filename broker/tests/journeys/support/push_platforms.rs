//! All push services at once, emulated, and a configuration that leads a broker to them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::KeyPair;
use serde_json::json;
use sotto_model::{Clock, UnixMillis};
use sotto_push_emulators::apns::{KEY_ID, TEAM_ID, TOPIC};
use sotto_push_emulators::fcm::PROJECT;
use sotto_push_emulators::{ApnsEmulator, Authority, FcmEmulator, Request, WebPushEmulator};

use super::house::House;
use super::patience::until_within;
use super::push_service::PushService;

pub(crate) struct PushPlatforms {
    pub(crate) apns: ApnsEmulator,
    pub(crate) fcm: FcmEmulator,
    pub(crate) web: WebPushEmulator,
    pub(crate) unified: PushService,
    authority: Authority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Apns,
    Fcm,
    Web,
    Unified,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Apns, Self::Fcm, Self::Web, Self::Unified];
}

impl PushPlatforms {
    pub(crate) async fn start() -> Self {
        let authority = Authority::new();
        let clock = Arc::new(WallClock);
        Self {
            apns: ApnsEmulator::start(&authority, clock.clone(), None).await,
            fcm: FcmEmulator::start(&authority, clock.clone()).await,
            web: WebPushEmulator::start(&authority, clock).await,
            unified: PushService::start().await,
            authority,
        }
    }

    /// Writes the credentials; the configuration that names them.
    pub(crate) fn config(&self, folder: &Path) -> String {
        let shown = |name: &str| folder.join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("write a file");
        self.unified.config(folder);
        let roots = std::fs::read_to_string(folder.join("push-ca.pem")).expect("the CA");
        write("all-push-ca.pem", &format!("{roots}{}", self.authority.root_pem()));
        write_apns_key(folder, self.apns.rules.key_pem());
        write("service-account.json", &self.fcm.service_account());
        write("vapid.pem", &KeyPair::generate().expect("a key").serialize_pem());
        format!(
            "[push]\nallow_networks = [\"127.0.0.0/8\"]\nextra_ca_file = \"{}\"\n\
             [[push.apns]]\ntopic = \"{TOPIC}\"\nteam_id = \"{TEAM_ID}\"\nkey_id = \"{KEY_ID}\"\n\
             key_file = \"{}\"\nurl = \"{}\"\n\
             [[push.fcm]]\nproject = \"{PROJECT}\"\nservice_account_file = \"{}\"\nurl = \"{}\"\n\
             [push.web_push]\nkey_file = \"{}\"\ncontact = \"mailto:operations@example.org\"\n",
            shown("all-push-ca.pem"),
            shown("apns.p8"),
            self.apns.server.base_url(),
            shown("service-account.json"),
            self.fcm.server.base_url(),
            shown("vapid.pem"),
        )
    }

    /// Once a broker with that configuration runs: browsers subscribe with its key.
    pub(crate) async fn subscribe_browsers(&self, house: &House) {
        let status = house.sotto(&["push", "status"]).await;
        let lane = |name: &str| {
            let rows = status.as_array().expect("rows").iter();
            rows.clone().find(|row| row["lane"] == name).expect("a lane").clone()
        };
        self.web.rules.subscribe_with(lane("web_push")["public_key"].as_str().expect("a key"));
        for name in ["unified_push", &format!("apns:{TOPIC}"), &format!("fcm:{PROJECT}")] {
            assert_eq!(lane(name)["breaker"], "closed");
        }
    }

    /// What the device of that number says of itself.
    pub(crate) fn registration(&self, kind: Kind, number: usize) -> Vec<u8> {
        let told = match kind {
            Kind::Apns => json!({"platform": "apns", "token": token(kind, number)}),
            Kind::Fcm => json!({"platform": "fcm", "app": PROJECT, "token": token(kind, number)}),
            // A whole subscription, as a browser has it.
            Kind::Web => json!({
                "platform": "web_push", "endpoint": self.web.endpoint(&token(kind, number)),
                "expirationTime": null, "keys": {"p256dh": "BNcRd", "auth": "tBHI"},
            }),
            Kind::Unified => json!({
                "platform": "unified_push",
                "endpoint": self.unified.endpoint_at(&format!("/push/{}", token(kind, number))),
            }),
        };
        told.to_string().into_bytes()
    }

    /// How often the device of that number was woken.
    pub(crate) fn delivered(&self, kind: Kind, number: usize) -> usize {
        let token = token(kind, number);
        let count = |delivered: HashMap<String, u32>| delivered.get(&token).copied().unwrap_or(0) as usize;
        match kind {
            Kind::Apns => count(self.apns.rules.delivered()),
            Kind::Fcm => count(self.fcm.rules.delivered()),
            Kind::Web => count(self.web.rules.delivered()),
            Kind::Unified => self.unified.accepted(&format!("/push/{token}")),
        }
    }

    pub(crate) async fn comes_to(&self, kind: Kind, number: usize, times: usize, limit: Duration) {
        let what = format!("{kind:?} {number} is woken {times} times");
        until_within(limit, &what, async || self.delivered(kind, number) >= times).await;
        assert_eq!(self.delivered(kind, number), times, "{what}");
    }

    /// All that the push services saw, but for what a device or a credential is known by.
    pub(crate) fn requests(&self, kind: Kind) -> Vec<Request> {
        match kind {
            Kind::Apns => self.apns.server.requests(),
            Kind::Fcm => self.fcm.server.requests(),
            Kind::Web => self.web.server.requests(),
            Kind::Unified => self.unified.requests().iter().map(parsed).collect(),
        }
    }
}

/// In the place of what is there, as a rotation does it.
pub(crate) fn write_apns_key(folder: &Path, pem: &str) {
    let new = folder.join("apns.p8.new");
    std::fs::write(&new, pem).expect("write a key");
    std::fs::rename(new, folder.join("apns.p8")).expect("put it in its place");
}

/// Of the form that the service gives tokens.
pub(crate) fn token(kind: Kind, number: usize) -> String {
    match kind {
        Kind::Apns => format!("{number:064x}"),
        Kind::Fcm => format!("token{number:04}:APA91b-_x"),
        Kind::Web | Kind::Unified => format!("subscription{number:04}"),
    }
}

/// HTTP/1.1, as it came.
fn parsed(request: &super::push_service::Request) -> Request {
    let mut lines = request.head.lines();
    let mut words = lines.next().expect("a request line").split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let mut headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    headers.sort_unstable();
    Request { method: method.to_owned(), path: path.to_owned(), headers, body: request.body.clone() }
}

/// The machine's, which the broker's processes go by too.
struct WallClock;

#[expect(clippy::disallowed_methods, reason = "the broker under test reads the same clock")]
impl Clock for WallClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn unix_now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        UnixMillis(u64::try_from(since.as_millis()).expect("before the year 500 million"))
    }

    fn draw(&self) -> u64 {
        uuid::Uuid::new_v4().as_u64_pair().0
    }
}
