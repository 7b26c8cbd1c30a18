//! The pusher for Apple's devices against a service that checks as Apple says it does.

mod support;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use sotto_model::{Clock, UnixMillis, Urgency};
use sotto_push_emulators::apns::{KEY_ID, TEAM_ID, TOPIC};
use sotto_push_emulators::{Answer, ApnsEmulator, Authority, Fault, Request};
use sotto_storage::push_registry::Platform;
use sotto_wakeup::{Apns, ApnsConfig, HttpTimings, PushOutcome, PushToken, Pusher, PusherError, Wakeup};
use support::clock::ManualClock;
use support::log::Log;
use tokio::task::JoinSet;

const DELIVERED: PushOutcome = PushOutcome::Delivered;
const UNAVAILABLE: PushOutcome = PushOutcome::Unavailable(None);
const TIMINGS: HttpTimings = HttpTimings {
    connect: Duration::from_secs(2),
    request: Duration::from_secs(3),
    keep_alive_interval: Duration::from_millis(500),
    keep_alive_timeout: Duration::from_millis(500),
};

struct Fixture {
    authority: Authority,
    emulator: ApnsEmulator,
    service_clock: Arc<ManualClock>,
    clock: Arc<ManualClock>,
    key_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with_streams(None).await
    }

    async fn with_streams(max_concurrent_streams: Option<u32>) -> Self {
        let authority = Authority::new();
        let (clock, service_clock) = (ManualClock::new(), ManualClock::new());
        let emulator = ApnsEmulator::start(&authority, service_clock.clone(), max_concurrent_streams).await;
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("AuthKey.p8");
        std::fs::write(&key_file, emulator.rules.key_pem()).expect("written");
        Self { authority, emulator, service_clock, clock, key_file, _folder: folder }
    }

    fn config(&self) -> ApnsConfig {
        ApnsConfig {
            topic: TOPIC.to_owned(),
            team_id: TEAM_ID.to_owned(),
            key_id: KEY_ID.to_owned(),
            key_file: self.key_file.clone(),
            base_url: self.emulator.server.base_url().parse().expect("an origin"),
            extra_roots: Some(self.authority.root_pem().into()),
            timings: TIMINGS,
        }
    }

    fn pusher(&self) -> Arc<Apns> {
        Arc::new(Apns::new(self.config(), self.clock.clone()).expect("a pusher"))
    }

    /// One that has pushed once.
    async fn proven(&self) -> Arc<Apns> {
        let apns = self.pusher();
        assert_eq!(push(&apns, 0).await, DELIVERED);
        apns
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.service_clock.advance(by);
    }

    fn next(&self, answer: Answer) {
        self.emulator.rules.script.add(Fault::Answer(answer));
    }

    /// Every device from `first` on was woken so often.
    fn assert_delivered(&self, devices: std::ops::Range<usize>, times: u32) {
        let delivered = self.emulator.rules.delivered();
        for device in devices {
            assert_eq!(delivered.get(&token(device)), Some(&times), "device {device}");
        }
    }
}

fn token(device: usize) -> String {
    format!("{device:064x}")
}

async fn push(apns: &Apns, device: usize) -> PushOutcome {
    push_as(apns, device, Urgency::High).await
}

async fn push_as(apns: &Apns, device: usize, urgency: Urgency) -> PushOutcome {
    apns.push(Wakeup { token: PushToken::new(token(device)), platform: Platform::Apns, urgency }).await
}

/// All at once.
async fn push_all(apns: &Arc<Apns>, devices: std::ops::Range<usize>) -> Vec<PushOutcome> {
    let mut pushes = JoinSet::new();
    for device in devices {
        let apns = apns.clone();
        pushes.spawn(async move { push(&apns, device).await });
    }
    pushes.join_all().await
}

fn reason(status: u16, reason: &str) -> Answer {
    Answer::json(status, &serde_json::json!({ "reason": reason }))
}

#[tokio::test]
async fn an_urgent_wakeup_is_one_constant_and_another_one_is_another() {
    let fixture = Fixture::new().await;
    let apns = fixture.pusher();
    for (urgency, body, particular) in [
        (
            Urgency::High,
            &br#"{"aps":{"alert":{"loc-key":"W"},"mutable-content":1}}"#[..],
            &[("apns-collapse-id", "w"), ("apns-priority", "10"), ("apns-push-type", "alert")][..],
        ),
        (
            Urgency::Low,
            br#"{"aps":{"content-available":1}}"#,
            &[("apns-priority", "5"), ("apns-push-type", "background")],
        ),
    ] {
        assert_eq!(push_as(&apns, 1, urgency).await, DELIVERED);
        let request = fixture.emulator.server.requests().pop().expect("a request");
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", format!("/3/device/{}", token(1)).as_str())
        );
        assert_eq!(request.body, body);
        let length = body.len().to_string();
        // 784111777 in a day, to the hour.
        let mut expected = vec![
            ("accept", "*/*"),
            ("apns-expiration", "784195200"),
            ("apns-topic", TOPIC),
            ("content-length", &length),
        ];
        expected.extend(particular);
        expected.sort_unstable();
        assert_eq!(without_authorization(&request), expected);
        assert!(request.header("authorization").expect("a token").starts_with("bearer "));
    }
    assert_eq!(fixture.emulator.server.connections(), 1);
}

fn without_authorization(request: &Request) -> Vec<(&str, &str)> {
    let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers.filter(|(name, _)| *name != "authorization").collect()
}

#[tokio::test]
async fn what_is_above_a_goaway_is_replayed_at_once_and_nothing_is_delivered_twice() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.emulator.server.delay(Duration::from_millis(50));
    fixture.emulator.rules.script.pass(4);
    fixture.emulator.rules.script.add(Fault::GoAway(Reason::NO_ERROR));
    assert_eq!(push_all(&apns, 1..11).await, [DELIVERED; 10]);
    fixture.assert_delivered(0..11, 1);
    assert_eq!(fixture.emulator.server.connections(), 2, "the connection is replaced");
    assert_eq!(push(&apns, 11).await, DELIVERED);
    assert_eq!(fixture.emulator.server.connections(), 2);
}

#[tokio::test]
async fn a_goaway_for_a_reason_is_no_different() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.emulator.server.delay(Duration::from_millis(50));
    fixture.emulator.rules.script.add(Fault::GoAway(Reason::ENHANCE_YOUR_CALM));
    let outcomes = push_all(&apns, 1..6).await;
    assert_eq!(outcomes, [DELIVERED; 5]);
    assert_eq!(fixture.emulator.server.connections(), 2);
}

#[tokio::test]
async fn a_refused_stream_is_replayed_so_often_and_not_more() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    let refuse = |times| {
        for _ in 0..times {
            fixture.emulator.rules.script.add(Fault::Reset(Reason::REFUSED_STREAM));
        }
    };
    refuse(3);
    assert_eq!(push(&apns, 1).await, DELIVERED);
    refuse(4);
    assert_eq!(push(&apns, 2).await, UNAVAILABLE);
    assert_eq!(push(&apns, 2).await, DELIVERED);
    fixture.assert_delivered(0..3, 1);
    assert_eq!(fixture.emulator.server.connections(), 1);
}

#[tokio::test]
async fn a_stream_reset_for_another_reason_is_not_replayed() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.emulator.rules.script.add(Fault::Reset(Reason::INTERNAL_ERROR));
    assert_eq!(push(&apns, 1).await, UNAVAILABLE);
    assert_eq!(fixture.emulator.server.requests().len(), 2);
}

#[tokio::test]
async fn a_stalled_stream_times_out_while_others_go_on() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.emulator.rules.script.add(Fault::Stall);
    let stalled = tokio::spawn({
        let apns = apns.clone();
        async move { push(&apns, 1).await }
    });
    fixture.emulator.server.saw(2).await;
    for device in 2..8 {
        assert_eq!(push(&apns, device).await, DELIVERED);
    }
    assert!(!stalled.is_finished());
    assert_eq!(stalled.await.expect("it ends"), UNAVAILABLE);
    assert_eq!(push(&apns, 1).await, DELIVERED);
    assert_eq!(fixture.emulator.server.connections(), 1, "it was the stream, not the connection");
}

#[tokio::test]
async fn a_connection_that_is_dead_is_found_out_and_replaced() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.emulator.rules.script.add(Fault::Freeze);
    let started = fixture.emulator.server.connections();
    let outcome = tokio::time::timeout(Duration::from_millis(2500), push(&apns, 1)).await;
    assert_eq!(outcome.expect("before the request times out"), UNAVAILABLE);
    assert_eq!(push(&apns, 1).await, DELIVERED);
    assert_eq!(fixture.emulator.server.connections(), started + 1);
}

#[tokio::test]
async fn a_connection_that_the_service_closes_is_replaced() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.emulator.server.hang_up();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(push(&apns, 1).await, DELIVERED, "nothing was under way");
    assert_eq!(fixture.emulator.server.connections(), 2);

    fixture.emulator.rules.script.add(Fault::Stall);
    let under_way = tokio::spawn({
        let apns = apns.clone();
        async move { push(&apns, 2).await }
    });
    fixture.emulator.server.saw(3).await;
    fixture.emulator.server.hang_up();
    assert_eq!(under_way.await.expect("it ends"), UNAVAILABLE, "it may have been delivered");
    assert_eq!(push(&apns, 2).await, DELIVERED);
    assert_eq!(fixture.emulator.server.connections(), 3);
}

#[tokio::test]
async fn a_busy_service_is_heard_and_the_device_is_told_from_the_service() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (answer, outcome) in [
        (reason(429, "TooManyRequests"), PushOutcome::RetryAfter(None)),
        (
            reason(429, "TooManyRequests").with_header("retry-after", "30"),
            PushOutcome::RetryAfter(seconds(30)),
        ),
        (reason(503, "ServiceUnavailable"), PushOutcome::Unavailable(seconds(900))),
        (
            reason(503, "ServiceUnavailable").with_header("retry-after", "7"),
            PushOutcome::Unavailable(seconds(7)),
        ),
        (reason(500, "InternalServerError"), PushOutcome::Unavailable(seconds(900))),
        (reason(503, "Shutdown"), UNAVAILABLE),
    ] {
        fixture.next(answer);
        assert_eq!(push(&apns, 1).await, outcome);
    }
    assert_eq!(push(&apns, 1).await, DELIVERED);
}

#[tokio::test]
async fn a_dead_token_is_dead_since_the_moment_that_the_service_names() {
    let fixture = Fixture::new().await;
    let apns = fixture.pusher();
    let since = UnixMillis(fixture.clock.unix_now().0 - 1234);
    fixture.emulator.rules.unregister(&token(3), since);
    assert_eq!(push(&apns, 3).await, PushOutcome::TokenInvalid { since: Some(since) });
    fixture.next(reason(400, "BadDeviceToken"));
    assert_eq!(push(&apns, 4).await, PushOutcome::TokenInvalid { since: None });
}

#[tokio::test]
async fn a_provider_token_is_minted_seldom_and_by_nobody_twice() {
    let fixture = Fixture::new().await;
    let apns = fixture.pusher();
    assert_eq!(push_all(&apns, 0..50).await, [DELIVERED; 50]);
    assert_eq!(fixture.emulator.rules.provider_tokens(), 1);
    for hour in 1..=6 {
        for _ in 0..6 {
            fixture.advance(Duration::from_mins(10));
            assert_eq!(push_all(&apns, 0..5).await, [DELIVERED; 5], "hour {hour}");
        }
    }
    // Six hours in pieces of 40 minutes.
    assert_eq!(fixture.emulator.rules.provider_tokens(), 1 + 9);
    assert!(fixture.emulator.server.seen().iter().all(|(_, status)| *status == Some(200)));
}

#[tokio::test]
async fn a_provider_token_that_the_service_finds_too_old_is_replaced_unless_it_is_too_soon() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    // Clocks that go apart: by the service's the token is more than an hour old.
    fixture.service_clock.advance(Duration::from_mins(61));
    fixture.clock.advance(Duration::from_mins(19));
    assert_eq!(push(&apns, 1).await, PushOutcome::CredentialRefused("provider token is too old"));
    fixture.clock.advance(Duration::from_mins(2));
    assert_eq!(push_all(&apns, 1..20).await, [DELIVERED; 19]);
    assert_eq!(fixture.emulator.rules.provider_tokens(), 2);
}

#[tokio::test]
async fn with_too_many_provider_tokens_the_one_before_is_used() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    fixture.advance(Duration::from_mins(30));
    let _another_node = fixture.proven().await;
    fixture.advance(Duration::from_mins(10));
    assert_eq!(push(&apns, 1).await, DELIVERED);
    assert_eq!(fixture.emulator.rules.provider_tokens(), 2);
    let answers: Vec<_> = fixture.emulator.server.seen().iter().map(|(_, status)| *status).collect();
    assert_eq!(answers, [Some(200), Some(200), Some(429), Some(200)]);
}

#[tokio::test]
async fn a_refused_provider_token_waits_for_another_key_file() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    let before = apns.credential();
    assert_eq!(before.since, Some(fixture.clock.unix_now()));
    let pem = fixture.emulator.rules.replace_key();
    let refused = PushOutcome::CredentialRefused("provider token is refused");
    assert_eq!(push(&apns, 1).await, refused);
    std::fs::write(&fixture.key_file, "rubbish").expect("written");
    for _ in 0..3 {
        fixture.advance(Duration::from_secs(5));
        assert_eq!(push(&apns, 1).await, refused);
    }
    assert_eq!(apns.credential(), before);
    std::fs::write(&fixture.key_file, pem).expect("written");
    for _ in 0..2 {
        fixture.advance(Duration::from_secs(5));
        apns.credential();
    }
    assert_eq!(apns.credential().generation, before.generation + 1);
    assert_eq!(push(&apns, 1).await, DELIVERED);
}

#[tokio::test]
async fn no_more_streams_are_open_than_the_service_takes() {
    let fixture = Fixture::with_streams(Some(2)).await;
    let apns = fixture.pusher();
    fixture.emulator.server.delay(Duration::from_millis(10));
    assert_eq!(push_all(&apns, 0..40).await, [DELIVERED; 40]);
    fixture.assert_delivered(0..40, 1);
    assert_eq!(fixture.emulator.server.streams_peak(), 2);
    assert_eq!(fixture.emulator.server.connections(), 1);
}

#[tokio::test]
async fn until_the_first_push_is_taken_there_is_one_stream() {
    let fixture = Fixture::new().await;
    let apns = fixture.pusher();
    fixture.emulator.server.delay(Duration::from_millis(300));
    let pushes = tokio::spawn({
        let apns = apns.clone();
        async move { push_all(&apns, 0..20).await }
    });
    fixture.emulator.server.saw(1).await;
    assert_eq!(fixture.emulator.server.streams_peak(), 1);
    assert_eq!(pushes.await.expect("they end"), [DELIVERED; 20]);
    assert_eq!(fixture.emulator.server.streams_peak(), 19);
}

#[tokio::test]
async fn nobody_listening_is_a_service_that_is_away() {
    let fixture = Fixture::new().await;
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let base_url = format!("https://localhost:{port}").parse().expect("an origin");
    let apns = Apns::new(ApnsConfig { base_url, ..fixture.config() }, fixture.clock.clone());
    assert_eq!(push(&apns.expect("a pusher"), 1).await, UNAVAILABLE);
}

#[tokio::test]
async fn a_service_whose_certificate_is_not_trusted_is_told_nothing() {
    let fixture = Fixture::new().await;
    let extra_roots = Some(Authority::new().root_pem().into());
    let apns = Apns::new(ApnsConfig { extra_roots, ..fixture.config() }, fixture.clock.clone());
    assert_eq!(push(&apns.expect("a pusher"), 1).await, UNAVAILABLE);
    assert!(fixture.emulator.server.requests().is_empty());
    assert!(fixture.emulator.server.connections() > 0);
}

#[tokio::test]
async fn a_body_that_is_huge_or_slow_or_rubbish_leaves_the_status_to_decide() {
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    // It would say something else if it were read to its end.
    let padding = "x".repeat(1 << 20);
    let other = serde_json::json!({ "reason": "TooManyProviderTokenUpdates", "padding": padding });
    let huge = Answer::json(429, &other);
    let slow = Answer {
        status: 429,
        body: vec![b'{'; 1000],
        body_pace: Some(Duration::from_millis(100)),
        ..Answer::default()
    };
    let rubbish = Answer { status: 429, body: b"\xff{\"reason\":".to_vec(), ..Answer::default() };
    for answer in [huge, slow, rubbish] {
        fixture.next(answer);
        let outcome = tokio::time::timeout(Duration::from_secs(8), push(&apns, 1)).await;
        assert_eq!(outcome.expect("in time"), PushOutcome::RetryAfter(None));
    }
    assert_eq!(push(&apns, 1).await, DELIVERED);
    assert_eq!(fixture.emulator.server.connections(), 1);
}

#[tokio::test]
async fn what_is_no_token_never_gets_into_a_url() {
    let fixture = Fixture::new().await;
    let apns = fixture.pusher();
    for raw in ["", "../../x", "0a?b", &"0".repeat(4000)] {
        let token = PushToken::new(raw.to_owned());
        let wakeup = Wakeup { token, platform: Platform::Apns, urgency: Urgency::High };
        assert_eq!(apns.push(wakeup).await, PushOutcome::Rejected("token is not valid"));
    }
    assert_eq!(fixture.emulator.server.connections(), 0);
}

#[tokio::test]
async fn neither_token_nor_key_is_in_any_line_of_the_log() {
    let (log, _guard) = Log::capture();
    let fixture = Fixture::new().await;
    let apns = fixture.proven().await;
    for fault in [Fault::Stall, Fault::Reset(Reason::INTERNAL_ERROR), Fault::Freeze] {
        fixture.emulator.rules.script.add(fault);
        push(&apns, 0xfeed).await;
    }
    fixture.next(reason(400, "BadDeviceToken"));
    push(&apns, 0xfeed).await;
    std::fs::write(&fixture.key_file, "a bad secret").expect("written");
    for _ in 0..2 {
        fixture.advance(Duration::from_secs(5));
        apns.credential();
    }
    let text = log.text();
    assert!(text.contains("push_credential_reload_failed"), "{text}");
    let bearer = fixture.emulator.server.requests().pop().expect("a request");
    let bearer = bearer.header("authorization").expect("one").to_owned();
    for secret in [token(0xfeed).as_str(), "feed", "a bad secret", &bearer] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_named_and_a_key_file_too() {
    let fixture = Fixture::new().await;
    let error = |config| Apns::new(config, fixture.clock.clone()).err().expect("refused").to_string();
    assert_eq!(error(ApnsConfig { topic: "a\nb".into(), ..fixture.config() }), "topic is not valid");
    assert_eq!(error(ApnsConfig { team_id: String::new(), ..fixture.config() }), "team_id is not valid");
    assert_eq!(error(ApnsConfig { key_id: "ü".into(), ..fixture.config() }), "key_id is not valid");
    let extra_roots = Some(b"-----BEGIN CERTIFICATE-----".to_vec());
    let refused = Apns::new(ApnsConfig { extra_roots, ..fixture.config() }, fixture.clock.clone());
    assert_eq!(refused.err(), Some(PusherError::ExtraRoots));
    std::fs::write(&fixture.key_file, "no key").expect("written");
    let expected = format!("credential file {}: holds no private key in PEM", fixture.key_file.display());
    assert_eq!(error(fixture.config()), expected);
}
