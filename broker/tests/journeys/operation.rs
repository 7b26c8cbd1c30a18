//! What operators see: metrics and health, and a database that goes away.

use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::packet::Packet;
use sotto_mqtt::reason::ReasonCode;
use sotto_postgres::testing::{Durability, Server};

use crate::support::database::{Database, Kind};
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, ack};
use crate::support::push_service::PushService;

on_both_stores!(metrics_tell_what_happened);

async fn metrics_tell_what_happened(kind: Kind) {
    let service = PushService::start().await;
    let mut house = House::closed(Database::create(kind).await, "");
    house.configure(service.config(house.folder()));
    house.start().await;
    let topic = house.topic();
    let endpoint = service.endpoint();
    let of = ["--tenant", "demo", "--user", "carol", "--device", "phone", "--endpoint", &endpoint];
    house.sotto(&[&["push", "register"][..], &of].concat()).await;
    let mut carol = Login::of(&house, "carol", "phone").lasting().connect(&house).await;
    carol.subscribe("c/+/m", QoS::AtLeastOnce).await;
    carol.disconnect().await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe("c/+/m", QoS::ExactlyOnce).await;
    for (qos, count) in [(QoS::AtMostOnce, 1), (QoS::AtLeastOnce, 2), (QoS::ExactlyOnce, 3)] {
        for _ in 0..count {
            alice.publish(&topic, b"hello", qos).await;
            assert_eq!(bob.receive().await.qos, qos);
        }
    }
    let refused = Login::with("alice@demo", "alice/laptop", "wrong").try_connect(&house).await;
    assert_eq!(refused.err(), Some(ReasonCode::BadUserNameOrPassword));

    service.comes_to(1).await;
    let delivered = "sotto_wakeups_total{platform=\"unified_push\",outcome=\"delivered\"}";
    until("the wakeup is counted", async || house.metrics().await.count(delivered) == 1).await;
    house.connections_come_to(2).await;
    until("the outbox is empty", async || house.metrics().await.count("sotto_outbox_rows") == 0).await;
    let metrics = house.metrics().await;
    for (sample, count) in [
        ("sotto_connections{listener=\"mqtts\"}", 2),
        ("sotto_connects_total{outcome=\"success\"}", 3),
        ("sotto_connects_total{outcome=\"bad_user_name_or_password\"}", 1),
        ("sotto_messages_in_total{qos=\"0\"}", 1),
        ("sotto_messages_in_total{qos=\"1\"}", 2),
        ("sotto_messages_in_total{qos=\"2\"}", 3),
        ("sotto_messages_out_total{qos=\"0\"}", 1),
        ("sotto_messages_out_total{qos=\"1\"}", 2),
        ("sotto_messages_out_total{qos=\"2\"}", 3),
        ("sotto_commit_batch_records_sum", 5),
        ("sotto_ready", 1),
    ] {
        assert_eq!(metrics.count(sample), count, "{sample} in {}", metrics.text());
    }
    let commits = metrics.count("sotto_commit_seconds_count");
    assert!((1..=5).contains(&commits), "{commits} commits");
    let took = metrics.value("sotto_commit_seconds_sum");
    assert!(took > 0.0 && took < 10.0, "{took} s");
    for sample in ["sotto_outbox_oldest_seconds ", "sotto_wakeups_outstanding{", "sotto_dead_letters "] {
        assert!(metrics.text().contains(&format!("\n{sample}")), "{sample}");
    }
    assert_eq!(house.get("/health/live").await, (200, "live\n".to_owned()));
    assert_eq!(house.get("/health/ready").await, (200, "ready\n".to_owned()));
    // Administration asks for its token.
    assert_eq!(house.get("/v1/tenants").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_told_and_delays_acknowledgements_without_loss() {
    /// Long enough for a commit that does not wait for the database to be acknowledged.
    const AWAY: Duration = Duration::from_secs(2);
    let server = tokio::task::spawn_blocking(|| Server::start(Durability::Full)).await.expect("a server");
    let mut house = House::closed(Database::Own(server.url("postgres")), "");
    house.start().await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"before", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "before");

    tokio::task::block_in_place(|| server.stop());
    until("the broker is not ready", async || house.get("/health/ready").await.0 == 503).await;
    assert_eq!(house.get("/health/live").await.0, 200);
    assert_eq!(house.metrics().await.count("sotto_ready"), 0);
    let packet_id = alice.send_publish(&topic, b"meanwhile", QoS::AtLeastOnce).await;
    assert_eq!(alice.next_within(AWAY).await, None);
    assert_eq!(bob.next_within(Duration::ZERO).await, None);

    tokio::task::block_in_place(|| server.resume());
    alice.expect(Heard::PubAck(packet_id, ReasonCode::Success)).await;
    until("the broker is ready again", async || house.get("/health/ready").await.0 == 200).await;
    assert_eq!(bob.receive().await.text(), "meanwhile");
    alice.publish(&topic, b"after", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "after");
    house.kill_and_start().await;
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"the last", QoS::AtLeastOnce).await;
    let mut again = Vec::new();
    while again.last().is_none_or(|last| last != "the last") {
        again.push(bob.receive().await.text());
    }
    assert!(
        ["before", "meanwhile", "after", "the last"]
            .ends_with(&again.iter().map(String::as_str).collect::<Vec<_>>()),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_outlasts_a_database_that_is_away_for_long() {
    /// Longer than a session change waits for the database, and than an ending connection for its commits.
    const AWAY: Duration = Duration::from_secs(12);
    const PUBLISHERS: usize = 6;
    let server = tokio::task::spawn_blocking(|| Server::start(Durability::None)).await.expect("a server");
    let mut house = House::closed(Database::Own(server.url("postgres")), "");
    house.start().await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").lasting().connect(&house).await;
    bob.subscribe("c/+/m", QoS::ExactlyOnce).await;
    let mut carol = Login::of(&house, "carol", "phone").lasting().connect(&house).await;
    let released = carol.send_publish(&topic, b"carol", QoS::ExactlyOnce).await;
    carol.expect(Heard::PubRec(released, ReasonCode::Success)).await;
    assert_eq!(bob.receive().await.text(), "carol");

    let logins: Vec<Login> =
        (0..PUBLISHERS).map(|n| Login::of(&house, "alice", &format!("phone-{n}")).lasting()).collect();
    let mut alices = Vec::new();
    for login in &logins {
        alices.push(login.connect(&house).await);
    }
    tokio::task::block_in_place(|| server.stop());
    // One waits for its PUBCOMP, others for the PUBREC of connections that are gone.
    carol.send(&Packet::PubRel(ack(released))).await;
    let mut sent = Vec::new();
    for (n, mut alice) in alices.into_iter().enumerate() {
        sent.push(alice.send_publish(&topic, format!("alice {n}").as_bytes(), QoS::ExactlyOnce).await);
        alice.vanish();
    }
    tokio::time::sleep(AWAY).await;
    carol.ping().await;
    let again = async {
        let coming = logins.iter().zip(&sent).enumerate().map(|(n, (login, packet_id))| {
            let (house, topic) = (&house, &topic);
            async move {
                let mut alice = loop {
                    match login.try_connect(house).await {
                        Ok(alice) => break alice,
                        Err(ReasonCode::ServerBusy | ReasonCode::ServerUnavailable) => {}
                        Err(reason) => panic!("refused: {reason:?}"),
                    }
                };
                assert!(alice.present);
                alice.send_again(*packet_id, topic, format!("alice {n}").as_bytes()).await;
                alice.expect(Heard::PubRec(*packet_id, ReasonCode::Success)).await;
            }
        });
        futures::future::join_all(coming).await;
    };
    let comes_back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| server.resume());
    };
    tokio::join!(again, comes_back);
    carol.expect(Heard::PubComp(released)).await;
    carol.publish(&topic, b"the last", QoS::ExactlyOnce).await;

    let mut received = Vec::new();
    while received.last().is_none_or(|last| last != "the last") {
        received.push(bob.receive().await.text());
    }
    received.sort_unstable();
    let mut expected: Vec<String> = (0..PUBLISHERS).map(|n| format!("alice {n}")).collect();
    expected.push("the last".to_owned());
    assert_eq!(received, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_makes_the_broker_unready() {
    let server = tokio::task::spawn_blocking(|| Server::start(Durability::None)).await.expect("a server");
    let mut house = House::closed(Database::Own(server.url("postgres")), "");
    house.start().await;
    let topic = house.topic();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"before", QoS::AtLeastOnce).await;

    let set = |read_only: &str| {
        let mut psql = server.client("psql");
        psql.args([
            "--quiet",
            "--dbname",
            "postgres",
            "--command",
            &format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}"),
            "--command",
            "SELECT pg_reload_conf()",
        ]);
        assert!(psql.stdout(std::process::Stdio::null()).status().expect("run psql").success());
    };
    set("on");
    // Also where nobody publishes: it is asked.
    until("the broker is not ready", async || house.get("/health/ready").await.0 == 503).await;
    let waiting = alice.send_publish(&topic, b"meanwhile", QoS::AtLeastOnce).await;
    assert_eq!(alice.next_within(Duration::from_secs(1)).await, None);
    set("off");
    alice.expect(Heard::PubAck(waiting, ReasonCode::Success)).await;
    until("the broker is ready again", async || house.get("/health/ready").await.0 == 200).await;
}
