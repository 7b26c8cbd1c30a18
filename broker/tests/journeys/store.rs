//! `sotto store`: checking a store, beside the broker that serves from it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use sotto_model::QoS;
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, Login};

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

/// Between the offsets before a restore and those after it.
const GAP: u64 = 1 << 32;

on_both_stores!(after_a_restore_no_offset_is_given_out_again);

async fn after_a_restore_no_offset_is_given_out_again(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::ExactlyOnce).await;
    bob.disconnect().await;
    let laptop = Login::of(&house, "alice", "laptop").lasting();
    let mut alice = laptop.connect(&house).await;
    for text in ["one", "two"] {
        alice.publish(&topic, text.as_bytes(), QoS::AtLeastOnce).await;
    }
    // Committed, and its PUBREL does not come.
    let packet_id = alice.send_publish(&topic, b"three", QoS::ExactlyOnce).await;
    alice.expect(Heard::PubRec(packet_id, ReasonCode::Success)).await;
    let (_, _, said) = house.sotto_failing(&["store", "restored"]).await;
    assert!(
        said.contains("in use by another sotto") || said.contains("another process holds the log"),
        "{said}"
    );
    assert_eq!(house.terminate().await.code(), Some(0));

    let done = house.sotto(&["store", "restored"]).await;
    assert_eq!((&done["logs"], &done["packet_ids_forgotten"]), (&1.into(), &1.into()), "{done}");
    house.start().await;
    let mut alice = laptop.connect(&house).await;
    alice.publish(&topic, b"four", QoS::AtLeastOnce).await;
    let mut bob = phone.connect(&house).await;
    for text in ["one", "two", "three", "four"] {
        assert_eq!(bob.receive().await.text(), text);
    }
    let report = house.sotto(&["store", "verify"]).await;
    assert_eq!(report["whole"], true, "{report}");
    let heads: Vec<_> = report["tenants"].as_array().expect("rows").iter().map(|row| &row["head"]).collect();
    assert_eq!(heads, [GAP + 4]);
    let audit = house.sotto(&["audit"]).await;
    let restored = |row: &&serde_json::Value| row["action"] == "store.restored";
    assert_eq!(audit.as_array().expect("rows").iter().filter(restored).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_serving_broker_is_served_from_elsewhere() {
    let mut house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"before", QoS::AtLeastOnce).await;
    let copy = house.folder().join("copy.db");
    let file = copy.display().to_string();
    let made = house.sotto(&["store", "backup", "--to", &file]).await;
    let length = std::fs::metadata(&copy).expect("the copy").len();
    assert_eq!(made["bytes"], length);
    assert_eq!(std::fs::metadata(&copy).expect("the copy").permissions().mode() & 0o777, 0o600);
    let (_, _, said) = house.sotto_failing(&["store", "backup", "--to", &file]).await;
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(std::fs::metadata(&copy).expect("the copy").len(), length, "it is left alone");
    let nowhere = house.folder().join("nowhere/copy.db").display().to_string();
    let (_, _, said) = house.sotto_failing(&["store", "backup", "--to", &nowhere]).await;
    assert!(said.contains("not found"), "{said}");
    alice.publish(&topic, b"after", QoS::AtLeastOnce).await;
    house.kill().await;

    // The disk is gone; the copy and the keys were kept apart.
    let data = house.data();
    for file in ["sotto.db", "sotto.db-wal", "sotto.db-shm"] {
        std::fs::remove_file(data.join(file)).expect("lose the database");
    }
    std::fs::rename(&copy, data.join("sotto.db")).expect("restore");
    assert_eq!(house.sotto(&["store", "verify"]).await["whole"], true);
    house.start().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"again", QoS::AtLeastOnce).await;
    let mut bob = phone.connect(&house).await;
    for text in ["before", "again"] {
        assert_eq!(bob.receive().await.text(), text);
    }
    bob.disconnect().await;
    // Once.
    house.kill_and_start().await;
    let report = house.sotto(&["store", "verify"]).await;
    assert_eq!(report["tenants"][0]["head"], GAP + 2, "{report}");
}
