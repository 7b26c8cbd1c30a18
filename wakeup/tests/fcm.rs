//! The pusher for Google's push service against one that checks as Google says it does.

mod support;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use sotto_model::{Clock, Urgency};
use sotto_push_emulators::fcm::{PROJECT, fcm_error, status};
use sotto_push_emulators::{Answer, Authority, Fault, FcmEmulator};
use sotto_storage::push_registry::Platform;
use sotto_wakeup::{Fcm, FcmConfig, HttpTimings, PushOutcome, PushToken, Pusher, Wakeup};
use support::clock::ManualClock;
use support::log::Log;
use tokio::task::JoinSet;

const DELIVERED: PushOutcome = PushOutcome::Delivered;
const AWAY: PushOutcome = PushOutcome::Unavailable(Some(Duration::from_secs(10)));
const TIMINGS: HttpTimings = HttpTimings {
    connect: Duration::from_secs(2),
    request: Duration::from_secs(3),
    keep_alive_interval: Duration::from_millis(500),
    keep_alive_timeout: Duration::from_millis(500),
};

struct Fixture {
    authority: Authority,
    emulator: FcmEmulator,
    clock: Arc<ManualClock>,
    account_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let authority = Authority::new();
        let clock = ManualClock::new();
        let emulator = FcmEmulator::start(&authority, clock.clone()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let account_file = folder.path().join("service-account.json");
        std::fs::write(&account_file, emulator.service_account()).expect("written");
        Self { authority, emulator, clock, account_file, _folder: folder }
    }

    fn config(&self) -> FcmConfig {
        FcmConfig {
            project: PROJECT.to_owned(),
            service_account_file: self.account_file.clone(),
            base_url: self.emulator.server.base_url().parse().expect("an origin"),
            extra_roots: Some(self.authority.root_pem().into()),
            timings: TIMINGS,
        }
    }

    fn pusher(&self) -> Arc<Fcm> {
        Arc::new(Fcm::new(self.config(), self.clock.clone()).expect("a pusher"))
    }

    async fn proven(&self) -> Arc<Fcm> {
        let fcm = self.pusher();
        assert_eq!(push(&fcm, 0).await, DELIVERED);
        fcm
    }

    fn next(&self, answer: Answer) {
        self.emulator.rules.script.add(Fault::Answer(answer));
    }

    fn next_token(&self, answer: Answer) {
        self.emulator.rules.token_script.add(Fault::Answer(answer));
    }

    /// How many requests came to the token endpoint.
    fn token_requests(&self) -> usize {
        self.emulator.server.requests().iter().filter(|request| request.path == "/token").count()
    }
}

fn token(device: usize) -> String {
    format!("fGx_-{device:011}:APA91b")
}

async fn push(fcm: &Fcm, device: usize) -> PushOutcome {
    push_as(fcm, &token(device), Urgency::High).await
}

async fn push_as(fcm: &Fcm, token: &str, urgency: Urgency) -> PushOutcome {
    fcm.push(Wakeup { token: PushToken::new(token.to_owned()), platform: Platform::Fcm, urgency }).await
}

async fn push_all(fcm: &Arc<Fcm>, devices: std::ops::Range<usize>) -> Vec<PushOutcome> {
    let mut pushes = JoinSet::new();
    for device in devices {
        let fcm = fcm.clone();
        pushes.spawn(async move { push(&fcm, device).await });
    }
    pushes.join_all().await
}

#[tokio::test]
async fn a_wakeup_is_a_constant_but_for_the_token() {
    let fixture = Fixture::new().await;
    let fcm = fixture.pusher();
    for (urgency, priority) in [(Urgency::High, "HIGH"), (Urgency::Low, "NORMAL")] {
        assert_eq!(push_as(&fcm, &token(1), urgency).await, DELIVERED);
        let request = fixture.emulator.server.requests().pop().expect("a request");
        let expected = format!(
            r#"{{"message":{{"token":"{}","android":{{"priority":"{priority}","ttl":"86400s"}},"data":{{"w":"1"}}}}}}"#,
            token(1)
        );
        assert_eq!(String::from_utf8_lossy(&request.body), expected);
        let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["accept", "authorization", "content-length", "content-type"]);
        assert_eq!(request.path, format!("/v1/projects/{PROJECT}/messages:send"));
    }
}

#[tokio::test]
async fn an_access_token_is_fetched_by_one_and_renewed_before_it_ends() {
    let fixture = Fixture::new().await;
    let fcm = fixture.pusher();
    assert_eq!(push_all(&fcm, 0..50).await, [DELIVERED; 50]);
    assert_eq!(fixture.token_requests(), 1);
    fixture.clock.advance(Duration::from_mins(54));
    assert_eq!(push(&fcm, 0).await, DELIVERED);
    assert_eq!(fixture.token_requests(), 1);
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(push_all(&fcm, 0..50).await, [DELIVERED; 50]);
    assert_eq!(fixture.token_requests(), 2);
    // A night without a push.
    fixture.clock.advance(Duration::from_hours(9));
    assert_eq!(push_all(&fcm, 0..50).await, [DELIVERED; 50]);
    assert_eq!(fixture.token_requests(), 3);
    assert!(fixture.emulator.server.seen().iter().all(|(_, status)| *status == Some(200)));
}

#[tokio::test]
async fn while_renewing_fails_the_old_access_token_is_used_and_the_endpoint_is_left_alone_for_a_while() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    fixture.clock.advance(Duration::from_mins(56));
    for _ in 0..3 {
        fixture.next_token(Answer::status(503));
    }
    assert_eq!(push_all(&fcm, 0..20).await, [DELIVERED; 20]);
    assert_eq!(fixture.token_requests(), 2);
    fixture.clock.advance(Duration::from_secs(10));
    assert_eq!(push_all(&fcm, 0..20).await, [DELIVERED; 20]);
    assert_eq!(fixture.token_requests(), 3);
    // It ends before a new one is there.
    fixture.clock.advance(Duration::from_mins(4));
    assert_eq!(push_all(&fcm, 0..20).await, [PushOutcome::Unavailable(None); 20]);
    assert_eq!(fixture.token_requests(), 4);
    fixture.clock.advance(Duration::from_secs(10));
    assert_eq!(push_all(&fcm, 0..20).await, [DELIVERED; 20]);
}

#[tokio::test]
async fn a_token_endpoint_that_is_away_is_a_service_that_is_away_and_one_that_refuses_is_not() {
    let fixture = Fixture::new().await;
    let fcm = fixture.pusher();
    fixture.emulator.rules.token_script.add(Fault::Reset(Reason::INTERNAL_ERROR));
    assert_eq!(push(&fcm, 1).await, PushOutcome::Unavailable(None));
    fixture.clock.advance(Duration::from_secs(10));
    fixture.emulator.rules.token_script.add(Fault::Stall);
    assert_eq!(push(&fcm, 1).await, PushOutcome::Unavailable(None));
    fixture.clock.advance(Duration::from_secs(10));
    fixture.next_token(Answer::status(429).with_header("retry-after", "9"));
    assert_eq!(push(&fcm, 1).await, PushOutcome::Unavailable(Some(Duration::from_secs(9))));
    fixture.clock.advance(Duration::from_secs(10));
    fixture.next_token(Answer { status: 200, body: b"{}".to_vec(), ..Answer::default() });
    assert_eq!(push(&fcm, 1).await, PushOutcome::Unavailable(None));
    fixture.clock.advance(Duration::from_secs(10));
    assert_eq!(push(&fcm, 1).await, DELIVERED);

    fixture.emulator.rules.replace_key();
    fixture.clock.advance(Duration::from_hours(2));
    let refused = PushOutcome::CredentialRefused("service account is refused");
    assert_eq!(push_all(&fcm, 0..20).await, [refused; 20]);
}

#[tokio::test]
async fn an_access_token_that_has_become_void_is_replaced() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    fixture.emulator.rules.revoke();
    assert_eq!(push(&fcm, 1).await, PushOutcome::CredentialRefused("access token is refused"));
    assert_eq!(push(&fcm, 1).await, DELIVERED);
    assert_eq!(fixture.token_requests(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_told_from_what_is_wrong_with_us() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    let dead = PushOutcome::TokenInvalid { since: None };
    fixture.emulator.rules.unregister(&token(1));
    assert_eq!(push(&fcm, 1).await, dead);
    // Too short to be one.
    assert_eq!(push_as(&fcm, "short", Urgency::High).await, dead);
    fixture.next(status(400, "INVALID_ARGUMENT", &[fcm_error("INVALID_ARGUMENT")]));
    assert_eq!(push(&fcm, 2).await, PushOutcome::Rejected("request is refused"));
    fixture.next(status(403, "PERMISSION_DENIED", &[fcm_error("SENDER_ID_MISMATCH")]));
    assert_eq!(push(&fcm, 2).await, PushOutcome::Rejected("token is for another sender"));
    assert_eq!(push_as(&fcm, "a\"b", Urgency::High).await, PushOutcome::Rejected("token is not valid"));
    let elsewhere = FcmConfig { project: "another".into(), ..fixture.config() };
    let elsewhere = Fcm::new(elsewhere, fixture.clock.clone()).expect("a pusher");
    assert_eq!(push(&elsewhere, 2).await, PushOutcome::CredentialRefused("permission is denied"));
}

#[tokio::test]
async fn a_quota_that_is_used_up_and_a_service_that_fails_wait_as_asked() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    let quota = || status(429, "RESOURCE_EXHAUSTED", &[fcm_error("QUOTA_EXCEEDED")]);
    let seconds = |seconds| PushOutcome::Unavailable(Some(Duration::from_secs(seconds)));
    for (answer, outcome) in [
        (quota(), seconds(60)),
        (quota().with_header("retry-after", "30"), seconds(30)),
        (status(503, "UNAVAILABLE", &[]), AWAY),
        (status(503, "UNAVAILABLE", &[]).with_header("retry-after", "120"), seconds(120)),
        (status(500, "INTERNAL", &[]), AWAY),
    ] {
        fixture.next(answer);
        assert_eq!(push(&fcm, 1).await, outcome);
    }
}

#[tokio::test]
async fn what_is_above_a_goaway_is_replayed_at_once_and_nothing_is_delivered_twice() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    fixture.emulator.server.delay(Duration::from_millis(50));
    fixture.emulator.rules.script.pass(3);
    fixture.emulator.rules.script.add(Fault::GoAway(Reason::NO_ERROR));
    assert_eq!(push_all(&fcm, 1..11).await, [DELIVERED; 10]);
    let delivered = fixture.emulator.rules.delivered();
    assert!((0..11).all(|device| delivered[&token(device)] == 1));
    assert_eq!(fixture.emulator.server.connections(), 2);
}

#[tokio::test]
async fn a_stalled_stream_and_a_dead_connection_are_found_out() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    fixture.emulator.rules.script.add(Fault::Stall);
    assert_eq!(push(&fcm, 1).await, AWAY);
    assert_eq!(fixture.emulator.server.connections(), 1);
    fixture.emulator.rules.script.add(Fault::Freeze);
    assert_eq!(push(&fcm, 1).await, AWAY);
    assert_eq!(push(&fcm, 1).await, DELIVERED);
    assert_eq!(fixture.emulator.server.connections(), 2);
}

#[tokio::test]
async fn a_service_that_is_not_there_or_not_trusted_is_away() {
    let fixture = Fixture::new().await;
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let base_url = format!("https://localhost:{port}").parse().expect("an origin");
    let fcm = Fcm::new(FcmConfig { base_url, ..fixture.config() }, fixture.clock.clone());
    assert_eq!(push(&fcm.expect("a pusher"), 1).await, AWAY);
    let extra_roots = Some(Authority::new().root_pem().into());
    let fcm = Fcm::new(FcmConfig { extra_roots, ..fixture.config() }, fixture.clock.clone());
    let seen = fixture.emulator.server.requests().len();
    assert_eq!(push(&fcm.expect("a pusher"), 1).await, PushOutcome::Unavailable(None));
    assert_eq!(fixture.emulator.server.requests().len(), seen);
}

#[tokio::test]
async fn a_changed_service_account_is_taken_into_use_and_rubbish_is_not() {
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    let before = fcm.credential();
    std::fs::write(&fixture.account_file, "{}").expect("written");
    for _ in 0..3 {
        fixture.clock.advance(Duration::from_secs(5));
        assert_eq!(push(&fcm, 1).await, DELIVERED);
    }
    assert_eq!(fcm.credential(), before);
    std::fs::write(&fixture.account_file, fixture.emulator.service_account()).expect("written");
    for _ in 0..2 {
        fixture.clock.advance(Duration::from_secs(5));
        fcm.credential();
    }
    assert_eq!(fcm.credential().generation, before.generation + 1);
    assert_eq!(fcm.credential().since, Some(fixture.clock.unix_now()));
    assert_eq!(push(&fcm, 1).await, DELIVERED);
    assert_eq!(fixture.token_requests(), 2);
}

#[tokio::test]
async fn neither_token_nor_key_is_in_any_line_of_the_log() {
    let (log, _guard) = Log::capture();
    let fixture = Fixture::new().await;
    let fcm = fixture.proven().await;
    for fault in [Fault::Stall, Fault::Reset(Reason::INTERNAL_ERROR), Fault::Answer(Answer::status(500))] {
        fixture.emulator.rules.script.add(fault);
        push(&fcm, 987_654).await;
    }
    std::fs::write(&fixture.account_file, "{\"private_key\":\"a bad secret\"}").expect("written");
    for _ in 0..2 {
        fixture.clock.advance(Duration::from_secs(5));
        fcm.credential();
    }
    let text = log.text();
    assert!(text.contains("push_credential_reload_failed"), "{text}");
    for secret in ["987654", "a bad secret", "ya29", "APA91b"] {
        assert!(!text.contains(secret), "{text}");
    }
}
