//! Clients that others wrote, each through connecting, all qualities of service, retained messages, a will,
//! and a session that is taken up again.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use serde_json::json;
use sotto_model::QoS;
use sotto_mqtt::packet::Version;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::clients::{Over, absent, folder, node, python, shows_all};
use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::mosquitto::{self, Subscriber};
use crate::support::patience::until;
use crate::support::phone::Login;

const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

#[tokio::test(flavor = "multi_thread")]
async fn paho_for_python_finds_all_that_it_asks_for_over_tls_and_websocket() {
    let house = House::open(Kind::Sqlite).await;
    for version in VERSIONS {
        for over in [Over::Tls, Over::WebSocket] {
            let Some(command) = python("paho_client.py") else { return };
            shows_all(command, &house, version, over).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gmqtt_finds_all_that_it_asks_for() {
    let house = House::open(Kind::Sqlite).await;
    for version in VERSIONS {
        let Some(command) = python("gmqtt_client.py") else { return };
        shows_all(command, &house, version, Over::Tls).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_js_finds_all_that_it_asks_for_over_tls_and_websocket() {
    let house = House::open(Kind::Sqlite).await;
    for version in VERSIONS {
        for over in [Over::Tls, Over::WebSocket] {
            let Some(command) = node("mqttjs_client.js") else { return };
            shows_all(command, &house, version, over).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_clients_find_all_that_they_ask_for() {
    if !mosquitto::is_installed() {
        return;
    }
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let pinned = format!("c/{}/pinned", house.conversation());
    for (version, bobs_sessions) in [("311", 1), ("5", 2)] {
        let device = format!("bob/{version}");
        let version = ["-V", version];
        let lasting: &[&str] = if version[1] == "5" { &["-c", "-x", "3600"] } else { &["-c"] };
        // QoS, whether it was retained, payload: a line each.
        let bobs = [&version, lasting, &["-i", &device, "-q", "2", "-F", "%q %r %p", "-t", &topic]].concat();
        let publish = async |arguments: &[&str]| {
            mosquitto::publish_with(&house, "alice", &[&version, arguments].concat()).await;
        };
        let subscribed = Subscriber::start(&house, "bob", &[&bobs[..], &["-E"]].concat());
        assert_eq!(subscribed.rest().await, "");
        publish(&["-q", "2", "-t", &topic, "-m", "missed"]).await;
        let mut bob = Subscriber::start(&house, "bob", &bobs);
        assert_eq!(bob.line().await, "2 0 missed");
        for qos in ["0", "1", "2"] {
            publish(&["-q", qos, "-t", &topic, "-m", "live"]).await;
            assert_eq!(bob.line().await, format!("{qos} 0 live"));
        }

        publish(&["-q", "1", "-r", "-t", &pinned, "-m", "kept"]).await;
        let carols = [&version[..], &["-C", "1", "-q", "2", "-F", "%q %r %p", "-t", &pinned]].concat();
        assert_eq!(Subscriber::start(&house, "carol", &carols).rest().await, "1 1 kept\n");
        publish(&["-q", "1", "-r", "-t", &pinned, "-n"]).await;

        let subscriptions = async || house.metrics().await.count("sotto_subscriptions");
        until("carol's session has ended", async || subscriptions().await == bobs_sessions).await;
        let will = ["--will-topic", &topic, "--will-payload", "last will", "--will-qos", "1"];
        let dying = Subscriber::start(&house, "alice", &[&version[..], &will, &["-t", &pinned]].concat());
        until("alice has connected and subscribed", async || subscriptions().await == bobs_sessions + 1)
            .await;
        dying.kill().await;
        assert_eq!(bob.line().await, "1 0 last will");
        bob.kill().await;
    }
}

/// Keep Alive of the page, and how long it does nothing else than be there.
const PAGE_KEEP_ALIVE_SECONDS: u16 = 2;
const PAGE_HOLDS: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_chromium_holds_a_session_over_websocket() {
    let Some(script) = std::fs::read_to_string(folder().join("node_modules/mqtt/dist/mqtt.min.js")).ok()
    else {
        return absent("MQTT.js");
    };
    if std::process::Command::new("chromium").arg("--version").output().is_err() {
        return absent("chromium");
    }
    let house = House::open(Kind::Sqlite).await;
    let topic = house.topic();
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::ExactlyOnce).await;

    let page = std::fs::read_to_string(folder().join("page.html")).expect("the page");
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().expect("bound");
    let pages = Router::new()
        .route("/", get(async move || Html(page.clone())))
        .route("/mqtt.min.js", get(async move || ([(CONTENT_TYPE, "text/javascript")], script.clone())));
    tokio::spawn(async move { axum::serve(server, pages).await });
    let told = json!({
        "url": format!("wss://localhost:{}/mqtt", house.wss().port()),
        "username": "alice@demo",
        "password": house.password("alice"),
        "clientId": "alice/page",
        "topic": topic,
        "keepalive": PAGE_KEEP_ALIVE_SECONDS,
        "holdMilliseconds": PAGE_HOLDS.as_millis(),
    });
    let log = house.folder().join("chromium.log");
    let mut chromium =
        chromium(&house, &format!("http://{address}/#{}", BASE64.encode(told.to_string().as_bytes())))
            .stderr(std::fs::File::create(&log).expect("make a log"))
            .spawn()
            .expect("start chromium");

    let heard = bob.receive_payloads(1).await;
    assert_eq!(heard, ["from the page"], "{}", std::fs::read_to_string(&log).unwrap_or_default());
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        bob.publish(&topic, format!("to the page, {qos:?}").as_bytes(), qos).await;
    }
    // Its own messages and bob's come in any order.
    let heard: BTreeSet<String> = bob.receive_payloads(7).await.into_iter().collect();
    let expected: BTreeSet<String> = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .flat_map(|qos| [format!("to the page, {qos:?}"), format!("heard to the page, {qos:?}")])
        .chain(["held, 1 connection".to_owned()])
        .collect();
    assert_eq!(heard, expected);
    assert_eq!(house.metrics().await.count("sotto_connections{listener=\"wss\"}"), 1);
    chromium.kill().await.expect("kill chromium");
}

/// It trusts the broker's certificate by its key, and no other fault of any certificate.
fn chromium(house: &House, url: &str) -> Command {
    let certificate = CertificateDer::from_pem_file(house.data().join("server.crt")).expect("a certificate");
    let certificate = ParsedCertificate::try_from(&certificate).expect("a certificate");
    let key = digest(&SHA256, &certificate.subject_public_key_info());
    let pin = BASE64.encode(key.as_ref());
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", house.folder().join("chromium").display()))
        .arg(format!("--ignore-certificate-errors-spki-list={pin}"))
        .arg(url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}
