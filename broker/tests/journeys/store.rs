//! `sotto store`: checking a store, beside the broker that serves from it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use sotto_model::QoS;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::Login;

on_both_stores!(a_store_is_verified_while_a_broker_serves_from_it);

async fn a_store_is_verified_while_a_broker_serves_from_it(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for _ in 0..10 {
        alice.publish(&topic, b"canary", QoS::AtLeastOnce).await;
    }
    let report = house.sotto(&["store", "verify"]).await;
    assert_eq!((&report["whole"], &report["opened"]["messages"]), (&true.into(), &10.into()), "{report}");
    assert_eq!(report["rows"]["messages"], 10);
    let sampled = house.sotto(&["store", "verify", "--sample", "1"]).await;
    assert_eq!((&sampled["whole"], &sampled["sampled"]), (&true.into(), &true.into()), "{sampled}");
    alice.publish(&topic, b"the broker serves on", QoS::AtLeastOnce).await;

    // Another root key is told from damage: one finding, whatever the number of messages.
    let key = house.data().join("root.key");
    std::fs::write(&key, [7; 32]).expect("exchange the key");
    let (code, said, error) = house.sotto_failing(&["store", "verify"]).await;
    assert_eq!(code, Some(1));
    assert!(said.starts_with("root-key-is-not-of-this-store count=1\nrows: "), "{said}");
    assert_eq!(error, "sotto: the store is damaged: 1 findings\n");
    std::fs::remove_file(&key).expect("lose the key");
    let (code, said, error) = house.sotto_failing(&["store", "verify"]).await;
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(error.contains("root.key") && error.contains("No such file"), "{error}");
    assert!(!key.exists(), "no key is made");
    std::fs::write(&key, [7; 32]).expect("write");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("set the mode");
    let (_, _, error) = house.sotto_failing(&["store", "verify"]).await;
    assert!(error.contains("0600"), "{error}");
    assert!(!house.printed().contains("canary"));
    assert_eq!(house.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_by_kind_and_number() {
    let house = House::open(Kind::Postgres).await;
    let topic = house.topic();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    for _ in 0..30 {
        alice.publish(&topic, b"canary", QoS::AtLeastOnce).await;
    }
    house.database.run("UPDATE messages SET message_id = gen_random_uuid()");
    let (code, said, error) = house.sotto_failing(&["store", "verify"]).await;
    assert_eq!((code, error.as_str()), (Some(1), "sotto: the store is damaged: 30 findings\n"));
    let named = said.lines().filter(|line| line.starts_with("message-does-not-open tenant=")).count();
    assert_eq!(named, 20, "{said}");
    assert!(said.contains("\nmessage-does-not-open and 10 more\n"), "{said}");
    assert!(!said.contains("canary") && !said.contains(&topic), "{said}");
}
