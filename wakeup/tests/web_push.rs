//! The pushers for endpoints that users name, against a push service of the Web.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use ipnet::IpNet;
use sotto_model::Urgency;
use sotto_push_emulators::{Answer, Authority, Fault, WebPushEmulator};
use sotto_storage::push_registry::Platform;
use sotto_wakeup::{
    HttpTimings, PushOutcome, PushToken, Pusher, PusherError, UnifiedPush, Wakeup, WebPush, WebPushConfig,
};
use support::clock::ManualClock;
use support::log::Log;
use tokio::task::JoinSet;

const DELIVERED: PushOutcome = PushOutcome::Delivered;
const RETRY: PushOutcome = PushOutcome::RetryAfter(None);
const TIMINGS: HttpTimings = HttpTimings {
    connect: Duration::from_secs(2),
    request: Duration::from_secs(2),
    keep_alive_interval: Duration::from_millis(500),
    keep_alive_timeout: Duration::from_millis(500),
};

struct Fixture {
    authority: Authority,
    emulator: WebPushEmulator,
    clock: Arc<ManualClock>,
    key_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let authority = Authority::new();
        let clock = ManualClock::new();
        let emulator = WebPushEmulator::start(&authority, clock.clone()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("vapid.pem");
        write_key(&key_file);
        Self { authority, emulator, clock, key_file, _folder: folder }
    }

    fn config(&self) -> WebPushConfig {
        WebPushConfig {
            key_file: self.key_file.clone(),
            subject: "mailto:push@example.org".to_owned(),
            allow_networks: loopback(),
            extra_roots: Some(self.authority.root_pem().into()),
            timings: TIMINGS,
        }
    }

    fn pusher(&self) -> Arc<WebPush> {
        let pusher = WebPush::new(self.config(), self.clock.clone()).expect("a pusher");
        self.emulator.rules.subscribe_with(&pusher.application_server_key());
        Arc::new(pusher)
    }
}

fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network")).into()
}

fn write_key(path: &PathBuf) {
    std::fs::write(path, rcgen::KeyPair::generate().expect("a key").serialize_pem()).expect("written");
}

async fn push(pusher: &dyn Pusher, endpoint: &str, urgency: Urgency) -> PushOutcome {
    let token = PushToken::new(endpoint.to_owned());
    pusher.push(Wakeup { token, platform: Platform::WebPush, urgency }).await
}

#[tokio::test]
async fn a_push_is_empty_and_signed_for_its_service() {
    let fixture = Fixture::new().await;
    let pusher = fixture.pusher();
    for (urgency, said) in [(Urgency::High, "high"), (Urgency::Low, "low")] {
        assert_eq!(push(&*pusher, &fixture.emulator.endpoint("s"), urgency).await, DELIVERED);
        let request = fixture.emulator.server.requests().pop().expect("a request");
        assert_eq!((request.path.as_str(), request.body.as_slice()), ("/push/s", &b""[..]));
        let headers: Vec<_> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| *name != "authorization")
            .collect();
        let expected =
            [("accept", "*/*"), ("content-length", "0"), ("topic", "w"), ("ttl", "86400"), ("urgency", said)];
        assert_eq!(headers, expected);
    }
}

#[tokio::test]
async fn a_statement_serves_an_origin_for_hours_and_is_never_too_old() {
    let fixture = Fixture::new().await;
    let pusher = fixture.pusher();
    for _ in 0..48 {
        for subscription in ["a", "b"] {
            assert_eq!(
                push(&*pusher, &fixture.emulator.endpoint(subscription), Urgency::High).await,
                DELIVERED
            );
        }
        fixture.clock.advance(Duration::from_hours(1));
    }
    assert_eq!(fixture.emulator.rules.statements(), 5);
}

#[tokio::test]
async fn an_answer_is_told_from_another() {
    let fixture = Fixture::new().await;
    let pusher = fixture.pusher();
    fixture.emulator.rules.unsubscribe("gone");
    let dead = PushOutcome::TokenInvalid { since: None };
    assert_eq!(push(&*pusher, &fixture.emulator.endpoint("gone"), Urgency::High).await, dead);
    let seconds = |seconds| PushOutcome::RetryAfter(Some(Duration::from_secs(seconds)));
    for (answer, outcome) in [
        (Answer::status(404), dead),
        (Answer::status(413), PushOutcome::Rejected("too large")),
        (Answer::status(429), RETRY),
        (Answer::status(429).with_header("retry-after", "5"), seconds(5)),
        (Answer::status(503).with_header("retry-after", "6"), seconds(6)),
        (Answer::status(500), RETRY),
        (Answer::status(307).with_header("location", "/push/elsewhere"), PushOutcome::Rejected("redirected")),
    ] {
        fixture.emulator.rules.script.add(Fault::Answer(answer));
        assert_eq!(push(&*pusher, &fixture.emulator.endpoint("s"), Urgency::High).await, outcome);
    }
    for fault in [Fault::Reset(Reason::INTERNAL_ERROR), Fault::Stall, Fault::Freeze] {
        fixture.emulator.rules.script.add(fault);
        assert_eq!(push(&*pusher, &fixture.emulator.endpoint("s"), Urgency::High).await, RETRY);
    }
    assert_eq!(push(&*pusher, &fixture.emulator.endpoint("s"), Urgency::High).await, DELIVERED);
}

#[tokio::test]
async fn a_subscription_for_another_key_stops_nobody_else() {
    let fixture = Fixture::new().await;
    let pusher = fixture.pusher();
    for _ in 0..20 {
        fixture.emulator.rules.script.add(Fault::Answer(Answer::status(403)));
        let outcome = push(&*pusher, &fixture.emulator.endpoint("other"), Urgency::High).await;
        assert_eq!(outcome, PushOutcome::Rejected("not authorized"));
    }
    assert_eq!(push(&*pusher, &fixture.emulator.endpoint("s"), Urgency::High).await, DELIVERED);
}

#[tokio::test]
async fn a_host_that_stalls_is_left_alone_and_takes_no_more_than_its_places() {
    let fixture = Fixture::new().await;
    let healthy = WebPushEmulator::start(&fixture.authority, fixture.clock.clone()).await;
    let pusher = fixture.pusher();
    healthy.rules.subscribe_with(&pusher.application_server_key());
    for _ in 0..100 {
        fixture.emulator.rules.script.add(Fault::Stall);
    }
    let mut stalled = JoinSet::new();
    for _ in 0..100 {
        let (pusher, endpoint) = (pusher.clone(), fixture.emulator.endpoint("s"));
        stalled.spawn(async move { push(&*pusher, &endpoint, Urgency::High).await });
    }
    fixture.emulator.server.saw(8).await;
    assert_eq!(push(&*pusher, &healthy.endpoint("s"), Urgency::High).await, DELIVERED);
    let outcomes = stalled.join_all().await;
    let deferred = outcomes.iter().filter(|outcome| matches!(outcome, PushOutcome::Deferred(_))).count();
    let tried = outcomes.iter().filter(|outcome| **outcome == RETRY).count();
    assert_eq!((tried, deferred), (8, 92));

    // Its breaker is open: nothing is sent until its wait is over, then one push alone.
    fixture.emulator.rules.script.clear();
    let seen = fixture.emulator.server.requests().len();
    let endpoint = fixture.emulator.endpoint("s");
    let PushOutcome::Deferred(wait) = push(&*pusher, &endpoint, Urgency::High).await else {
        panic!("it was tried");
    };
    assert_eq!(fixture.emulator.server.requests().len(), seen);
    assert_eq!(push(&*pusher, &healthy.endpoint("s"), Urgency::High).await, DELIVERED);
    fixture.clock.advance(wait);
    assert_eq!(push(&*pusher, &endpoint, Urgency::High).await, DELIVERED);
    assert_eq!(push(&*pusher, &endpoint, Urgency::High).await, DELIVERED);
}

#[tokio::test]
async fn another_key_file_is_another_application_server_key() {
    let fixture = Fixture::new().await;
    let pusher = fixture.pusher();
    let (before, key) = (pusher.credential(), pusher.application_server_key());
    write_key(&fixture.key_file);
    for _ in 0..2 {
        fixture.clock.advance(Duration::from_secs(5));
        pusher.credential();
    }
    assert_eq!(pusher.credential().generation, before.generation + 1);
    assert_ne!(pusher.application_server_key(), key);
    let endpoint = fixture.emulator.endpoint("s");
    assert_eq!(push(&*pusher, &endpoint, Urgency::High).await, PushOutcome::Rejected("not authorized"));
    fixture.emulator.rules.subscribe_with(&pusher.application_server_key());
    assert_eq!(push(&*pusher, &endpoint, Urgency::High).await, DELIVERED);
}

#[tokio::test]
async fn an_endpoint_inside_the_operator_s_network_is_not_even_connected_to() {
    let fixture = Fixture::new().await;
    let config = WebPushConfig { allow_networks: Vec::new(), ..fixture.config() };
    let pusher = WebPush::new(config, fixture.clock.clone()).expect("a pusher");
    let endpoint = fixture.emulator.endpoint("s");
    for endpoint in [endpoint.replace("localhost", "127.0.0.1"), endpoint] {
        let outcome = push(&pusher, &endpoint, Urgency::High).await;
        assert_eq!(outcome, PushOutcome::Rejected("address is not permitted"));
    }
    let outcome = push(&pusher, "http://push.example/", Urgency::High).await;
    assert_eq!(outcome, PushOutcome::Rejected("endpoint is not valid"));
    assert_eq!(fixture.emulator.server.connections(), 0);
}

#[tokio::test]
async fn unified_push_says_how_urgent_and_nothing_else() {
    let fixture = Fixture::new().await;
    let roots = fixture.authority.root_pem().as_bytes();
    let pusher = UnifiedPush::new(fixture.clock.clone(), loopback(), Some(roots)).expect("a pusher");
    for (urgency, said) in [(Urgency::High, "high"), (Urgency::Low, "low")] {
        fixture.emulator.rules.script.add(Fault::Answer(Answer::status(202)));
        assert_eq!(push(&pusher, &fixture.emulator.endpoint("u"), urgency).await, DELIVERED);
        let request = fixture.emulator.server.requests().pop().expect("a request");
        assert_eq!(request.body, b"1");
        assert_eq!(request.header("urgency"), Some(said));
    }
}

#[tokio::test]
async fn neither_endpoint_nor_key_is_in_any_line_of_the_log() {
    let (log, _guard) = Log::capture();
    let fixture = Fixture::new().await;
    let pusher = fixture.pusher();
    for fault in [Fault::Stall, Fault::Reset(Reason::INTERNAL_ERROR), Fault::Answer(Answer::status(500))] {
        fixture.emulator.rules.script.add(fault);
        push(&*pusher, &fixture.emulator.endpoint("canary"), Urgency::High).await;
    }
    std::fs::write(&fixture.key_file, "a bad secret").expect("written");
    for _ in 0..2 {
        fixture.clock.advance(Duration::from_secs(5));
        pusher.credential();
    }
    let text = log.text();
    assert!(text.contains("push_credential_reload_failed"), "{text}");
    for secret in ["canary", "localhost", "a bad secret"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_named() {
    let fixture = Fixture::new().await;
    let config = WebPushConfig { subject: "push@example.org".to_owned(), ..fixture.config() };
    let refused = WebPush::new(config, fixture.clock.clone()).err();
    assert_eq!(refused, Some(PusherError::Setting("subject")));
}
