//! Waking phones that sleep.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::packet::Version;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::{Database, Kind};
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login};
use crate::support::push_service::PushService;

on_both_stores!(
    ten_messages_cost_a_sleeping_phone_one_push_that_says_nothing,
    a_push_that_was_due_when_the_broker_was_killed_comes_after_its_restart,
    a_device_registers_itself_in_both_versions,
    a_request_that_is_none_is_refused_with_its_reason,
    what_is_not_urgent_waits_and_an_urgent_message_overtakes_it,
    a_muted_conversation_does_not_wake_urgently,
    over_its_quota_a_tenant_s_wakeups_come_later_and_none_is_lost,
    nobody_is_woken_who_is_gone,
    a_dead_letter_is_shown_and_replayed,
    an_operator_sees_and_tries_a_push_service,
);

/// A claim of a process that died is another's after this (the dispatcher's lease), and a little.
const LEASE: Duration = Duration::from_secs(75);

async fn with_push(kind: Kind, service: &PushService) -> House {
    let mut house = House::closed(Database::create(kind).await, "");
    house.configure(service.config(house.folder()));
    house.start().await;
    house
}

async fn register(house: &House, user: &str, service: &PushService) {
    let of = ["--tenant", "demo", "--user", user, "--device", "phone"];
    let endpoint = service.endpoint();
    house.sotto(&[&["push", "register"][..], &of, &["--endpoint", &endpoint]].concat()).await;
}

async fn ten_messages_cost_a_sleeping_phone_one_push_that_says_nothing(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let topic = house.topic();
    // The sender's own phone sleeps too, and must not be woken by its user's messages.
    register(&house, "alice", &service).await;
    let mut alice = Login::of(&house, "alice", "phone").lasting().connect(&house).await;
    alice.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.disconnect().await;
    let mut alice = Login::of(&house, "alice", "tablet").connect(&house).await;

    register(&house, "bob", &service).await;
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.publish(&topic, b"while connected", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "while connected");
    service.stays_at(0).await;
    bob.disconnect().await;

    for _ in 0..10 {
        alice.publish(&topic, b"while asleep", QoS::AtLeastOnce).await;
    }
    service.comes_to(1).await;
    service.stays_at(1).await;

    let request = service.requests().remove(0);
    assert_eq!(request.body, b"1");
    assert!(request.head.starts_with("POST /push/0190a0b0 HTTP/1.1\r\n"), "{}", request.head);
    let users = house.sotto(&["user", "list", "--tenant", "demo"]).await;
    let ids = users.as_array().expect("rows").iter().map(|row| row["id"].as_str().expect("an id"));
    let conversation = house.conversation();
    let devices = house.sotto(&["push", "list", "--tenant", "demo"]).await;
    let devices = devices.as_array().expect("rows").iter().map(|row| row["device"].as_str().expect("an id"));
    let told = ["alice", "bob", "phone", "demo", "sotto", "c/", "10", conversation.as_str()];
    let whole = request.whole().replace("/push/0190a0b0", "").replace(&service.endpoint_host(), "");
    for word in told.into_iter().chain(ids).chain(devices) {
        assert!(!whole.to_lowercase().contains(word), "{word} in {whole}");
    }

    let mut bob = phone.connect(&house).await;
    assert_eq!(bob.receive_payloads(10).await, vec!["while asleep"; 10]);
    bob.disconnect().await;
    alice.publish(&topic, b"asleep again", QoS::AtLeastOnce).await;
    alice.publish(&topic, b"and again", QoS::AtLeastOnce).await;
    service.comes_to(2).await;
    service.stays_at(2).await;
}

async fn a_push_that_was_due_when_the_broker_was_killed_comes_after_its_restart(kind: Kind) {
    let service = PushService::start().await;
    let mut house = with_push(kind, &service).await;
    let topic = house.topic();
    register(&house, "bob", &service).await;
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"acknowledged, then killed", QoS::AtLeastOnce).await;
    house.kill_and_start().await;

    service.comes_to_within(1, LEASE).await;
    service.stays_at(service.requests().len()).await;
    assert!(service.requests().len() <= 2);
}

fn registration(service: &PushService, path: &str) -> Vec<u8> {
    let payload = serde_json::json!({"platform": "unified_push", "endpoint": service.endpoint_at(path)});
    payload.to_string().into_bytes()
}

/// A phone of a demo user, registered by its own hand and asleep.
async fn asleep(house: &House, service: &PushService, user: &str, device: &str) -> Login {
    let login = Login::of(house, user, device).lasting();
    let mut phone = login.connect(house).await;
    phone.subscribe("c/+/m", QoS::AtLeastOnce).await;
    phone.publish("$sotto/push", &registration(service, &path_of(device)), QoS::AtLeastOnce).await;
    phone.disconnect().await;
    login
}

fn path_of(device: &str) -> String {
    format!("/push/of-{device}-")
}

async fn registrations(house: &House) -> usize {
    house.sotto(&["push", "list", "--tenant", "demo"]).await.as_array().expect("rows").len()
}

async fn a_device_registers_itself_in_both_versions(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let topic = house.topic();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for (number, version) in [Version::V3, Version::V5].into_iter().enumerate() {
        let device = format!("own-{number}");
        let login = Login::of(&house, "bob", &device).version(version).lasting();
        let mut bob = login.connect(&house).await;
        bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
        // At every QoS; what is published last holds.
        bob.publish("$sotto/push", &registration(&service, "/push/first-"), QoS::AtMostOnce).await;
        bob.publish("$sotto/push", &registration(&service, "/push/second-"), QoS::ExactlyOnce).await;
        bob.publish("$sotto/push", &registration(&service, &path_of(&device)), QoS::AtLeastOnce).await;
        assert_eq!(registrations(&house).await, 1);
        bob.disconnect().await;
        alice.publish(&topic, b"wake up", QoS::AtLeastOnce).await;
        service.comes_to(number + 1).await;
        assert_eq!(service.accepted(&path_of(&device)), 1);

        let mut bob = login.connect(&house).await;
        bob.publish("$sotto/push", b"", QoS::AtLeastOnce).await;
        bob.publish("$sotto/push", b"", QoS::AtLeastOnce).await;
        assert_eq!(registrations(&house).await, 0);
        assert_eq!(bob.receive().await.text(), "wake up");
        bob.disconnect().await;
    }
    alice.publish(&topic, b"nobody hears", QoS::AtLeastOnce).await;
    service.stays_at(2).await;
}

async fn a_request_that_is_none_is_refused_with_its_reason(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    let cases: [(&str, &[u8], ReasonCode); 12] = [
        ("$sotto/push", b"x", ReasonCode::PayloadFormatInvalid),
        ("$sotto/push", b"{}", ReasonCode::PayloadFormatInvalid),
        ("$sotto/push", br#"{"platform":"pager","token":"1"}"#, ReasonCode::PayloadFormatInvalid),
        (
            "$sotto/push",
            br#"{"platform":"unified_push","endpoint":"http://a/"}"#,
            ReasonCode::PayloadFormatInvalid,
        ),
        (
            "$sotto/push",
            br#"{"platform":"unified_push","endpoint":"https://10.0.0.1/"}"#,
            ReasonCode::PayloadFormatInvalid,
        ),
        (
            "$sotto/push",
            br#"{"platform":"unified_push","endpoint":"https://a/","device":"other"}"#,
            ReasonCode::PayloadFormatInvalid,
        ),
        ("$sotto/push", br#"{"platform":"apns","token":"ab"}"#, ReasonCode::ImplementationSpecificError),
        ("$sotto/mute", b"{}", ReasonCode::PayloadFormatInvalid),
        (
            "$sotto/mute",
            br#"{"conversation":"4d3c2b1a-0000-4000-8000-000000000000","muted":true}"#,
            ReasonCode::NotAuthorized,
        ),
        ("$sotto/push/phone", b"{}", ReasonCode::NotAuthorized),
        ("$sotto/", b"", ReasonCode::NotAuthorized),
        ("$other", b"", ReasonCode::NotAuthorized),
    ];
    for (topic, payload, reason) in cases {
        let packet_id = bob.send_publish(topic, payload, QoS::AtLeastOnce).await;
        let text = String::from_utf8_lossy(payload);
        assert_eq!(bob.answer(packet_id).await, reason, "{topic} {text}");
    }
    let long = vec![b' '; 9000];
    let packet_id = bob.send_publish("$sotto/push", &long, QoS::ExactlyOnce).await;
    assert_eq!(bob.answer(packet_id).await, ReasonCode::PayloadFormatInvalid);
    // Nor can anybody listen there.
    assert!(bob.subscribe("$sotto/#", QoS::AtLeastOnce).await >= 0x80);
    // It still can, after all that.
    bob.publish("$sotto/push", &registration(&service, "/push/b-"), QoS::AtLeastOnce).await;
    assert_eq!(registrations(&house).await, 1);
    let mut old = Login::of(&house, "bob", "old").v3().connect(&house).await;
    old.send_publish("$sotto/push", b"x", QoS::AtLeastOnce).await;
    old.expect(Heard::Closed).await;
    assert_eq!(registrations(&house).await, 1);
}

async fn put_off(house: &House) -> u64 {
    house.metrics().await.count("sotto_wakeups_total{platform=\"unified_push\",outcome=\"put_off\"}")
}

async fn what_is_not_urgent_waits_and_an_urgent_message_overtakes_it(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let topic = house.topic();
    for number in 0..4 {
        asleep(&house, &service, "bob", &format!("low-{number}")).await;
    }
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let packet_id = alice.send_with(&topic, b"no hurry", "sotto-urgency", "low").await;
    assert_eq!(alice.answer(packet_id).await, ReasonCode::Success);
    until("most of them wait", async || put_off(&house).await >= 3).await;
    assert!(service.requests().len() <= 1);
    alice.publish(&topic, b"urgent", QoS::AtLeastOnce).await;
    for number in 0..4 {
        let path = path_of(&format!("low-{number}"));
        until("each is woken urgently", async || service.urgencies(&path).contains(&"high".to_owned())).await;
    }
    assert!(service.requests().len() <= 5);
    let packet_id = alice.send_with(&topic, b"?", "sotto-urgency", "extreme").await;
    assert_eq!(alice.answer(packet_id).await, ReasonCode::ImplementationSpecificError);
}

async fn a_muted_conversation_does_not_wake_urgently(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let other = house.add_conversation(&["alice", "bob"]).await;
    let login = asleep(&house, &service, "bob", "phone").await;
    let mut bob = login.connect(&house).await;
    let mute = serde_json::json!({"conversation": house.conversation(), "muted": true}).to_string();
    bob.publish("$sotto/mute", mute.as_bytes(), QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let of = ["--tenant", "demo", "--conversation"];
    let conversation = house.conversation();
    let list = [&["member", "list"][..], &of, &[&conversation]].concat();
    let rows = house.sotto(&list).await;
    let muted: Vec<bool> = ["alice", "bob"]
        .map(|name| {
            let row = rows.as_array().expect("rows").iter().find(|row| row["user"] == name).expect("a row");
            row["muted"].as_bool().expect("a flag")
        })
        .to_vec();
    assert_eq!(muted, [false, true]);

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&house.topic(), b"muted", QoS::AtLeastOnce).await;
    until("it is due", async || put_off(&house).await + service.requests().len() as u64 >= 1).await;
    assert!(!service.urgencies(&path_of("phone")).contains(&"high".to_owned()));
    alice.publish(&format!("c/{other}/m"), b"not muted", QoS::AtLeastOnce).await;
    until("that one is urgent", async || service.urgencies(&path_of("phone")).contains(&"high".to_owned()))
        .await;

    let unmute = [&["member", "mute"][..], &of, &[&conversation, "bob", "off"]].concat();
    house.sotto(&unmute).await;
    let mut bob = login.connect(&house).await;
    assert_eq!(bob.receive_payloads(2).await, ["muted", "not muted"]);
    bob.disconnect().await;
    let before = service.requests().len();
    alice.publish(&house.topic(), b"heard again", QoS::AtLeastOnce).await;
    service.comes_to(before + 1).await;
}

async fn over_its_quota_a_tenant_s_wakeups_come_later_and_none_is_lost(kind: Kind) {
    const SLEEPERS: u32 = 7;
    let service = PushService::start().await;
    let mut house = House::closed(Database::create(kind).await, "");
    house.configure(format!("{}wakeups_per_second = 2\nwakeups_burst = 2\n", service.config(house.folder())));
    house.start().await;
    for number in 0..SLEEPERS {
        asleep(&house, &service, "bob", &format!("phone-{number}")).await;
    }
    let mut live = Login::of(&house, "bob", "live").connect(&house).await;
    live.subscribe("c/+/m", QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    // Two at once, and the others half a second apart.
    let spread = Duration::from_millis(500) * (SLEEPERS - 2);
    let all = tokio::time::timeout(spread, service.comes_to(SLEEPERS as usize));
    let published = async {
        for _ in 0..5 {
            alice.publish(&house.topic(), b"x", QoS::AtLeastOnce).await;
        }
        // Who is connected does not feel it.
        assert_eq!(live.receive_payloads(5).await, vec!["x"; 5]);
    };
    let (all, ()) = tokio::join!(all, published);
    assert!(all.is_err(), "within the quota's time");
    service.comes_to(SLEEPERS as usize).await;
    service.stays_at(SLEEPERS as usize).await;
}

async fn nobody_is_woken_who_is_gone(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    let topic = house.topic();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    // A device that was removed; while it is connected, which ends.
    let login = asleep(&house, &service, "bob", "lost").await;
    let mut bob = login.connect(&house).await;
    house.sotto(&["device", "remove", "--tenant", "demo", "--user", "bob", "--device", "lost"]).await;
    bob.expect(Heard::Disconnect(ReasonCode::NotAuthorized)).await;
    assert_eq!(registrations(&house).await, 0);
    alice.publish(&topic, b"to nobody", QoS::AtLeastOnce).await;
    // A phone that was handed on: the token is its new user's.
    asleep(&house, &service, "bob", "handed-on").await;
    let mut next = Login::of(&house, "alice", "handed-on").lasting().connect(&house).await;
    let token = registration(&service, &path_of("handed-on"));
    next.publish("$sotto/push", &token, QoS::AtLeastOnce).await;
    assert_eq!(registrations(&house).await, 1);
    alice.publish(&topic, b"of the same user", QoS::AtLeastOnce).await;
    // A member who left.
    let other = house.add_conversation(&["alice", "bob"]).await;
    asleep(&house, &service, "bob", "left").await;
    house.remove_member(&other, "bob").await;
    alice.publish(&format!("c/{other}/m"), b"without bob", QoS::AtLeastOnce).await;
    service.stays_at(0).await;
    // The control.
    alice.publish(&topic, b"with bob", QoS::AtLeastOnce).await;
    service.comes_to(1).await;
    // A user who was removed.
    house.sotto(&["user", "remove", "--tenant", "demo", "bob"]).await;
    assert_eq!(registrations(&house).await, 1);
    alice.publish(&topic, b"of nobody's", QoS::AtLeastOnce).await;
    service.stays_at(1).await;
}

async fn a_dead_letter_is_shown_and_replayed(kind: Kind) {
    let service = PushService::start().await;
    let house = with_push(kind, &service).await;
    service.answers("400 Bad Request");
    asleep(&house, &service, "bob", "phone").await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&house.topic(), b"x", QoS::AtLeastOnce).await;
    service.comes_to(1).await;
    let letters = async || house.sotto(&["push", "dead-letters"]).await.as_array().expect("rows").clone();
    until("it is given up", async || letters().await.len() == 1).await;
    let letter = letters().await.remove(0);
    assert_eq!((&letter["outcome"], &letter["urgency"]), (&"bad request".into(), &"high".into()));
    assert_eq!((&letter["platform"], &letter["attempts"]), (&"unified_push".into(), &1.into()));

    service.answers("201 Created");
    let replayed = house.sotto(&["push", "dead-letters", "replay"]).await;
    assert_eq!((&replayed["due"], &replayed["gone"]), (&1.into(), &0.into()));
    service.comes_to(2).await;
    assert!(letters().await.is_empty());
    assert_eq!(house.sotto(&["push", "dead-letters", "replay"]).await["due"], 0);
}

async fn an_operator_sees_and_tries_a_push_service(kind: Kind) {
    let service = PushService::start().await;
    let mut house = with_push(kind, &service).await;
    asleep(&house, &service, "bob", "phone").await;
    let status = house.sotto(&["push", "status"]).await;
    let lane = &status.as_array().expect("rows")[0];
    assert_eq!((&lane["lane"], &lane["breaker"]), (&"unified_push".into(), &"closed".into()));
    assert_eq!((&lane["due"], &lane["configured"]), (&0.into(), &true.into()));

    let of = ["--tenant", "demo", "--user", "bob", "--device", "phone"];
    let test = [&["push", "test"][..], &of].concat();
    assert_eq!(house.sotto(&test).await["outcome"], "delivered");
    service.comes_to(1).await;
    service.answers("503 Service Unavailable");
    let (code, out, error) = house.sotto_failing(&test).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("retry_after") && error.contains("not delivered"), "{out} {error}");
    let none = ["push", "test", "--tenant", "demo", "--user", "alice", "--device", "phone"];
    assert!(house.sotto_failing(&none).await.2.contains("no such"));
    assert_eq!(house.terminate().await.code(), Some(0));
    // Without a broker there is nobody to ask, but the store has the numbers.
    assert!(house.sotto_failing(&test).await.2.contains("a broker must run"));
    assert_eq!(house.sotto(&["push", "status"]).await[0]["breaker"], serde_json::Value::Null);
}
