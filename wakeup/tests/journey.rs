//! From a committed message to a request at a real HTTPS endpoint.

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::Version;
use sotto_model::{Clock, UnixMillis, Urgency};
use sotto_storage::outbox::Outbox;
use sotto_storage::push_registry::PushRegistry;
use sotto_storage::push_registry::{Lane, Platform};
use sotto_wakeup::{PushOutcome, PushToken, UnifiedPush, Wakeup};
use support::flaky_outbox::FlakyOutbox;
use support::house::{House, TENANT};
use support::push_service::PushService;

const BOTH: [&str; 2] = ["h2", "http/1.1"];

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_wake_a_sleeping_phone_once_until_it_has_been_back() {
    let service = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.start(house.pusher(&service));
    house.publish(10).await;
    service.received_exactly(1).await;
    house.publish(3).await;
    service.received_exactly(1).await;

    let opened = house.connect().await;
    house.publish(5).await;
    service.received_exactly(1).await;

    // It leaves without having received those five.
    house.disconnect(opened).await;
    service.received_exactly(2).await;
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wakeup_is_the_same_request_and_says_nothing() {
    let service = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.start(house.pusher(&service));
    for (round, messages) in [1, 7, 30].into_iter().enumerate() {
        house.publish(messages).await;
        service.received_exactly(round + 1).await;
        let opened = house.connect().await;
        house.disconnect(opened).await;
    }
    let distinct: BTreeSet<_> = service.received().into_iter().collect();
    assert_eq!(distinct.len(), 1);
    let request = distinct.first().expect("one");
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/UP?id=0190a0b0"));
    assert_eq!(request.body, b"1");
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, [("accept", "*/*"), ("content-length", "1"), ("ttl", "86400"), ("urgency", "high")]);
    assert!(service.versions().iter().all(|version| *version == Version::HTTP_2));
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_speaks_only_http_1_is_reached_too() {
    let service = PushService::start(&["http/1.1"]).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.start(house.pusher(&service));
    house.publish(1).await;
    service.received_exactly(1).await;
    assert_eq!(service.versions(), [Version::HTTP_11]);
    assert_eq!(service.received()[0].body, b"1");
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_service_is_asked_again_when_it_said_and_not_before() {
    let service = PushService::start(&BOTH).await;
    service.answer(503, Some(("retry-after", "120")));
    service.answer(429, Some(("retry-after", "Sun, 06 Nov 1994 08:54:37 GMT")));
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.start(house.pusher(&service));
    house.publish(1).await;
    service.received_exactly(1).await;
    house.clock.advance(Duration::from_secs(119));
    service.received_exactly(1).await;
    house.clock.advance(Duration::from_secs(2));
    service.received_exactly(2).await;
    // The date is 300 s after the clock's start, 121 of which have passed.
    house.clock.advance(Duration::from_secs(178));
    service.received_exactly(2).await;
    house.clock.advance(Duration::from_secs(2));
    service.received_exactly(3).await;
    house.clock.advance(Duration::from_hours(24));
    service.received_exactly(3).await;
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_takes_its_registration_along() {
    let service = PushService::start(&BOTH).await;
    service.answer(410, None);
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.start(house.pusher(&service));
    house.publish(1).await;
    service.received_exactly(1).await;
    assert!(house.store.registrations(TENANT).await.expect("asked").is_empty());
    house.publish(5).await;
    service.received_exactly(1).await;
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_leaves_a_dead_letter_for_14_days() {
    let service = PushService::start(&BOTH).await;
    service.answer(307, Some(("location", "/elsewhere")));
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.start(house.pusher(&service));
    house.publish(1).await;
    service.received_exactly(1).await;
    assert_eq!(house.dead_letters().await, ["redirected"]);
    let before = |days: u64| UnixMillis(house.clock.unix_now().0 - days * 24 * 3600 * 1000);
    assert_eq!(house.store.purge_dead_letters(before(14), 10).await.expect("asked"), 0);
    house.clock.advance(Duration::from_hours(14 * 24 + 1));
    let mut left = usize::MAX;
    for _ in 0..20 {
        left = house.dead_letters().await.len();
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(left, 0, "housekeeping purges it");
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_inside_the_operator_s_network_is_not_even_connected_to() {
    let service = PushService::start(&BOTH).await;
    for endpoint in [service.endpoint(), service.endpoint().replace("localhost", "127.0.0.1")] {
        let mut house = House::with_sleeping_phone(&endpoint).await;
        let pusher = UnifiedPush::new(house.clock.clone(), [], Some(service.root_pem())).expect("a client");
        house.start(Arc::new(pusher));
        house.publish(1).await;
        service.received_exactly(0).await;
        assert_eq!(house.dead_letters().await, ["address is not permitted"]);
        house.shut().await;
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_certificate_is_not_trusted_is_told_nothing() {
    let service = PushService::start(&BOTH).await;
    let other = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    let pusher = house.pusher(&other);
    house.start(pusher.clone());
    house.publish(1).await;
    service.received_exactly(0).await;
    assert!(service.connections() > 0);
    assert_eq!(pusher.last_trouble().map(|(why, _)| why), Some("certificate is not trusted"));
    assert_eq!(
        house.store.lag(house.clock.unix_now()).await.expect("asked").wakeups_due,
        1,
        "it is tried again"
    );
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wakeup_is_tried_again_until_its_attempts_are_used_up() {
    // A port that nobody listens on.
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let service = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&format!("https://127.0.0.1:{port}/UP")).await;
    let pusher = house.pusher(&service);
    house.start(pusher.clone());
    house.publish(1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pusher.last_trouble().map(|(why, _)| why), Some("connection refused"));
    assert!(house.dead_letters().await.is_empty());
    for _ in 0..60 {
        house.clock.advance(Duration::from_hours(1));
        tokio::time::sleep(Duration::from_millis(500)).await;
        if !house.dead_letters().await.is_empty() {
            break;
        }
    }
    assert_eq!(house.dead_letters().await, ["attempts exhausted"]);
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_after_the_push_costs_one_push_more_when_its_lease_has_ended() {
    let service = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    house.publish(3).await;

    // The process that dies: it relays, claims, pushes, and never settles.
    let now = house.clock.unix_now();
    house.store.relay(100, now).await.expect("relayed");
    let lease_until = now.saturating_add(Duration::from_mins(1));
    let lane = Lane::without_app(Platform::UnifiedPush);
    assert_eq!(house.store.claim(&lane, 10, now, lease_until).await.expect("claimed").len(), 1);
    let wakeup = Wakeup {
        token: PushToken::new(service.endpoint()),
        platform: Platform::UnifiedPush,
        urgency: Urgency::High,
    };
    assert_eq!(house.pusher(&service).push(wakeup).await, PushOutcome::Delivered);

    // The one that takes over.
    house.start(house.pusher(&service));
    service.received_exactly(1).await;
    house.clock.advance(Duration::from_secs(61));
    service.received_exactly(2).await;
    house.clock.advance(Duration::from_hours(1));
    service.received_exactly(2).await;
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_away_delays_wakeups_and_loses_none() {
    let service = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    let outbox = Arc::new(FlakyOutbox::new(house.store.clone()));
    outbox.set_away(true);
    house.start_with(outbox.clone(), house.pusher(&service));
    house.publish(4).await;
    service.received_exactly(0).await;
    outbox.set_away(false);
    service.received_exactly(1).await;
    house.shut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_the_store_did_not_take_is_tried_again_and_not_the_push() {
    let service = PushService::start(&BOTH).await;
    let mut house = House::with_sleeping_phone(&service.endpoint()).await;
    let outbox = Arc::new(FlakyOutbox::new(house.store.clone()));
    outbox.lose_settlements(true);
    house.start_with(outbox.clone(), house.pusher(&service));
    house.publish(1).await;
    service.received_exactly(1).await;
    outbox.lose_settlements(false);
    let mut due = 1;
    for _ in 0..40 {
        due = house.store.lag(house.clock.unix_now()).await.expect("asked").wakeups_due;
        if due == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(due, 0, "it is settled");
    house.clock.advance(Duration::from_hours(1));
    service.received_exactly(1).await;
    house.shut().await;
}
