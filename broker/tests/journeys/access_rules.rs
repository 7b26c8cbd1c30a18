//! Topics beside conversations and inboxes: who may use them is what the tenant's access rules say.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, LastWill, Login, Phone};

on_both_stores!(rules_hold_as_soon_as_they_are_added_and_no_longer_than_they_are_there);

/// A change holds within this, for connected sessions too.
const WITHIN: Duration = Duration::from_secs(1);

const DENIED: u8 = ReasonCode::NotAuthorized as u8;

async fn rules_hold_as_soon_as_they_are_added_and_no_longer_than_they_are_there(kind: Kind) {
    let house = House::open(kind).await;
    let id = house.user_id("alice").await;
    let (own, other) = (format!("telemetry/{id}/pulse"), "telemetry/bob/pulse");
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    assert_eq!(alice.subscribe(&own, QoS::AtLeastOnce).await, DENIED);
    refused(&mut alice, &own).await;

    let rule = house.sotto(&["acl", "add", "demo", "allow", "all", "telemetry/%u/#"]).await;
    assert_eq!(alice.subscribe("telemetry/#", QoS::AtLeastOnce).await, DENIED);
    assert_eq!(alice.subscribe(&format!("telemetry/{id}/#"), QoS::AtLeastOnce).await, 1);
    assert_eq!(bob.subscribe(&own, QoS::AtLeastOnce).await, DENIED);
    refused(&mut bob, &own).await;
    refused(&mut alice, other).await;
    alice.publish(&own, b"allowed", QoS::AtLeastOnce).await;
    assert_eq!(alice.receive().await.text(), "allowed");
    house.sotto(&["acl", "add", "demo", "allow", "publish", "telemetry/#"]).await;
    bob.publish(&own, b"from bob", QoS::ExactlyOnce).await;
    assert_eq!(alice.receive().await.text(), "from bob");

    // Before the rule that allows it; then that one goes too.
    house.sotto(&["acl", "add", "demo", "deny", "subscribe", "telemetry/+/pulse", "--position", "1"]).await;
    let rows = house.sotto(&["acl", "list", "demo"]).await;
    let rows = rows.as_array().expect("rows").clone();
    let filters: Vec<_> = rows.iter().filter_map(|row| row["filter"].as_str()).collect();
    assert_eq!(filters, ["telemetry/+/pulse", "telemetry/%u/#", "telemetry/#"]);
    assert_eq!((&rows[1]["id"], &rows[1]["position"]), (&rule["id"], &2.into()));
    bob.publish(&own, b"withheld", QoS::AtLeastOnce).await;
    bob.publish(&format!("telemetry/{id}/step"), b"step", QoS::AtLeastOnce).await;
    assert_eq!(alice.receive().await.text(), "step");
    house.sotto(&["acl", "remove", "demo", rule["id"].as_str().expect("an id")]).await;
    bob.publish(&format!("telemetry/{id}/step"), b"withheld", QoS::AtLeastOnce).await;
    // Behind everything that was published before.
    let topic = house.topic();
    alice.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.publish(&topic, b"to members", QoS::AtLeastOnce).await;
    assert_eq!(alice.receive().await.text(), "to members");

    let audit = house.sotto(&["audit", "--tenant", "demo"]).await;
    let audit = audit.as_array().expect("rows").clone();
    let of = |action: &str| audit.iter().filter(|row| row["action"] == action).count();
    assert_eq!((of("acl.rule_added"), of("acl.rule_removed")), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_added_past_the_broker_is_followed() {
    let house = House::open(Kind::Postgres).await;
    house.sotto(&["acl", "add", "demo", "allow", "all", "news/#"]).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    assert_eq!(alice.subscribe("news/#", QoS::AtLeastOnce).await, 1);
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.publish("news/a", b"first", QoS::AtLeastOnce).await;
    assert_eq!(alice.receive().await.text(), "first");
    let denial = ["acl", "add", "demo", "deny", "subscribe", "news/a", "--position", "1"];
    house.sotto_elsewhere(&denial).await;
    tokio::time::sleep(WITHIN).await;
    bob.publish("news/a", b"withheld", QoS::AtLeastOnce).await;
    bob.publish("news/b", b"second", QoS::AtLeastOnce).await;
    assert_eq!(alice.receive().await.text(), "second");
}

fn rule(tenant: &str, effect: &str, action: &str, filter: &str) -> String {
    format!(
        "[[acl]]\ntenant = \"{tenant}\"\neffect = \"{effect}\"\naction = \"{action}\"\nfilter = \"{filter}\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_the_configuration_goes_before_those_of_the_store() {
    let config = rule("demo", "deny", "publish", "state/%c") + &rule("demo", "allow", "publish", "wish/%c/#");
    let house = House::configured(Kind::Sqlite, &config).await;
    house.sotto(&["acl", "add", "demo", "allow", "publish", "state/#", "--position", "1"]).await;
    let rows = house.sotto(&["acl", "list", "demo"]).await;
    assert_eq!((&rows[0]["filter"], &rows[0]["id"]), (&"state/%c".into(), &serde_json::Value::Null));
    assert_eq!((&rows[2]["filter"], &rows[2]["position"]), (&"state/#".into(), &1.into()));

    // The Client Identifier has two levels.
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    refused(&mut alice, "state/alice/phone").await;
    alice.publish("state/alice/tablet", b"", QoS::AtLeastOnce).await;
    alice.publish("wish/alice/phone/water", b"", QoS::AtLeastOnce).await;
    refused(&mut alice, "wish/alice/tablet/water").await;

    let mut old = Login::of(&house, "alice", "old-phone").v3().connect(&house).await;
    old.send_publish("state/alice/old-phone", b"", QoS::AtLeastOnce).await;
    // [MQTT-3.3.5-2]
    assert_eq!(old.next().await, Heard::Closed);

    let will = |topic: &str| LastWill {
        topic: topic.to_owned(),
        payload: b"gone".to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    let login = Login::of(&house, "alice", "watch");
    let willing = login.clone().will(will("state/alice/watch")).try_connect(&house).await;
    assert_eq!(willing.err(), Some(ReasonCode::NotAuthorized));
    assert!(login.will(will("wish/alice/watch/x")).try_connect(&house).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_denied_in_part_gets_the_rest_however_it_comes() {
    let config = "lab = true\n".to_owned()
        + &rule("lab", "deny", "subscribe", "ward/+/secret")
        + &rule("lab", "deny", "subscribe", "closed/#");
    let house = House::configured(Kind::Sqlite, &config).await;
    let lasting = Login::anonymous("sleeper").lasting();
    let mut sleeper = lasting.connect(&house).await;
    let mut waking = Login::anonymous("waking").connect(&house).await;
    for client in [&mut sleeper, &mut waking] {
        for refused in ["closed/#", "closed/a", "ward/1/secret", "ward/+/secret"] {
            assert_eq!(client.subscribe(refused, QoS::AtLeastOnce).await, DENIED, "{refused}");
        }
        assert_eq!(client.subscribe("ward/#", QoS::AtLeastOnce).await, 1);
    }
    let mut old = Login::anonymous("old").v3().clean_start().connect(&house).await;
    // [MQTT-3.9.3-2]
    assert_eq!(old.subscribe("closed/#", QoS::AtLeastOnce).await, 0x80);
    sleeper.disconnect().await;

    let mut nurse = Login::anonymous("nurse").connect(&house).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        nurse.publish("ward/1/secret", b"withheld", qos).await;
    }
    nurse.publish_retained("ward/2/secret", b"withheld").await;
    nurse.publish_retained("ward/2/open", b"retained").await;
    // Live, from the log, and retained.
    assert_eq!(waking.receive().await.text(), "retained");
    let mut sleeper = lasting.connect(&house).await;
    assert!(sleeper.present);
    assert_eq!(sleeper.receive().await.text(), "retained");
    let mut late = Login::anonymous("late").connect(&house).await;
    assert_eq!(late.subscribe("#", QoS::AtLeastOnce).await, 1);
    assert_eq!(late.receive().await.text(), "retained");

    let will = LastWill {
        topic: "ward/3/secret".to_owned(),
        payload: b"withheld".to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    Login::anonymous("frail").will(will).connect(&house).await.vanish();
    house.connections_come_to(5).await;
    nurse.publish("ward/3/open", b"last", QoS::AtLeastOnce).await;
    for client in [&mut waking, &mut sleeper, &mut late] {
        assert_eq!(client.receive().await.text(), "last");
        assert!(client.has_nothing_aside());
    }
    // A tenant without rules of its own is as it was.
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    refused(&mut alice, "ward/1/open").await;
}

/// Publishing to the topic, at every QoS that is answered.
async fn refused(phone: &mut Phone, topic: &str) {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let packet_id = phone.send_publish(topic, b"refused", qos).await;
        assert_eq!(phone.answer(packet_id).await, ReasonCode::NotAuthorized, "{topic}");
    }
}
