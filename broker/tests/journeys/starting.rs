//! A broker that cannot start says why, in one line.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use sotto_model::QoS;
use sotto_postgres::testing::{Durability, Server, TestDatabase};

use crate::support::database::{Database, Kind};
use crate::support::house::{House, free_port};
use crate::support::on_both_stores;
use crate::support::patience::{soon, until};
use crate::support::phone::Login;
use crate::support::process::{Process, sotto};

/// Of a database.
const PASSWORD: &str = "hunter2-canary";

/// Runs `sotto serve`, which must fail; what it says on standard error.
async fn refused(folder: &Path, arguments: &[&str]) -> String {
    let mut command = sotto();
    command.current_dir(folder).arg("serve");
    for flag in ["--mqtts", "--wss", "--private"] {
        if !arguments.contains(&flag) {
            command.arg(flag).arg(format!("127.0.0.1:{}", free_port()));
        }
    }
    let output = soon("sotto to give up", command.args(arguments).output()).await.expect("run sotto");
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("sotto: "), "{said}");
    said
}

on_both_stores!(a_root_key_that_is_lost_or_broken_is_not_replaced);

async fn a_root_key_that_is_lost_or_broken_is_not_replaced(kind: Kind) {
    let mut house = House::open(kind).await;
    let topic = house.topic();
    let phone = Login::of(&house, "bob", "phone").lasting();
    let mut bob = phone.connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;
    bob.disconnect().await;
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&topic, b"sealed", QoS::AtLeastOnce).await;
    assert_eq!(house.terminate().await.code(), Some(0));

    let file = house.data().join("root.key");
    let key = std::fs::read(&file).expect("the root key");
    let data = house.data().display().to_string();
    let mut arguments = vec!["--data", &data];
    arguments.extend(house.database.url().map(|url| ["--database", url]).into_iter().flatten());
    std::fs::remove_file(&file).expect("lose the key");
    let said = refused(house.folder(), &arguments).await;
    assert!(said.contains("root.key") && said.contains("No such file"), "{said}");
    assert!(!file.exists(), "no other key is made");
    std::fs::write(&file, b"short").expect("write");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("set the mode");
    let said = refused(house.folder(), &arguments).await;
    assert!(said.contains("root.key") && !said.contains("short"), "{said}");
    std::fs::write(&file, &key).expect("write");
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("set the mode");
    let said = refused(house.folder(), &arguments).await;
    assert!(said.contains("root.key") && said.contains("0600"), "{said}");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("set the mode");

    house.start().await;
    let mut bob = phone.connect(&house).await;
    assert_eq!(bob.receive().await.text(), "sealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_that_cannot_be_understood_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("make a folder");
    for (arguments, culprit) in [
        (&["--mqtts", "nowhere"][..], "nowhere"),
        (&["--privat", "127.0.0.1:1"][..], "--privat"),
        (&["--plain", "127.0.0.1:1"][..], "lab"),
    ] {
        let said = refused(folder.path(), arguments).await;
        assert!(said.contains(culprit), "{said}");
    }
}

async fn refused_config(folder: &Path, config: &str) -> String {
    let file = folder.join("sotto.toml");
    std::fs::write(&file, config).expect("write the configuration");
    refused(folder, &["--config", "sotto.toml"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_is_refused_with_its_key() {
    let folder = tempfile::tempdir().expect("make a folder");
    for (config, culprits) in [
        ("mqqts = \"127.0.0.1:8883\"\n", &["sotto.toml", "line 1", "mqqts"][..]),
        ("\nmqtts = \"nowhere\"\n", &["sotto.toml", "line 2"][..]),
        ("[push]\nallow_netwroks = []\n", &["sotto.toml", "allow_netwroks"][..]),
        ("plain = \"127.0.0.1:1883\"\n", &["plain", "lab"][..]),
        ("environment = \"prod\"\n", &["prod", "key service"][..]),
        (
            "database_url_file = \"/nonexistent/url\"\n",
            &["database_url_file", "/nonexistent/url", "not found"][..],
        ),
        ("[push]\nextra_ca_file = \"/nonexistent/ca\"\n", &["push.extra_ca_file", "/nonexistent/ca"][..]),
        ("[tls]\nkey_file = \"/nonexistent/key\"\n", &["tls.certificate_file", "tls.key_file"][..]),
        (
            "[tls]\ncertificate_file = \"/nonexistent/crt\"\nkey_file = \"/nonexistent/key\"\n",
            &["/nonexistent/crt"][..],
        ),
    ] {
        let said = refused_config(folder.path(), config).await;
        for culprit in culprits {
            assert!(said.contains(culprit), "{culprit} in {said}");
        }
    }
    let said = refused_config(folder.path(), "[[acl]]\ntenant = \"demo\"\neffect = \"deny\"\n").await;
    assert!(said.contains("line 1") && said.contains("action"), "{said}");
    let said = refused(folder.path(), &["--config", "nowhere.toml"]).await;
    assert!(said.contains("nowhere.toml") && said.contains("not found"), "{said}");
    assert!(!folder.path().join("sotto-data/sotto.db").exists(), "nothing is made by a refused start");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_rule_of_a_tenant_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().expect("make a folder");
    // The lab is there only where it is asked for.
    for tenant in ["clinics", "lab"] {
        let rule = "effect = \"deny\"\naction = \"all\"\nfilter = \"a\"\n";
        let said = refused_config(folder.path(), &format!("[[acl]]\ntenant = \"{tenant}\"\n{rule}")).await;
        assert!(said.contains("acl") && said.contains(tenant), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_cannot_be_read_or_is_no_key_is_named() {
    let folder = tempfile::tempdir().expect("make a folder");
    let config = "[tls]\ncertificate_file = \"server.crt\"\nkey_file = \"server.key\"\n";
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("a certificate").pem();
    std::fs::write(folder.path().join("server.crt"), certificate).expect("write");
    let said = refused_config(folder.path(), config).await;
    assert!(said.contains("server.key") && said.contains("not found"), "{said}");
    std::fs::write(folder.path().join("server.key"), "no key").expect("write");
    let said = refused_config(folder.path(), config).await;
    assert!(said.contains("server.key"), "{said}");
    // The key of another certificate.
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    std::fs::write(folder.path().join("server.key"), &other).expect("write");
    let said = refused_config(folder.path(), config).await;
    assert!(!said.contains("PRIVATE") && !said.contains(other.lines().nth(1).expect("base64")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_and_a_folder_in_use_are_named() {
    let folder = tempfile::tempdir().expect("make a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["--mqtts", "--wss", "--private"] {
        let said = refused(folder.path(), &[flag, &address]).await;
        assert!(said.contains(&address) && said.contains("in use"), "{said}");
    }
    let house = House::open(Kind::Sqlite).await;
    let data = house.data().display().to_string();
    let said = refused(house.folder(), &["--data", &data]).await;
    assert!(said.contains(&data) && said.contains("in use by another sotto"), "{said}");
    assert_eq!(house.get("/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_is_waited_for_until_sigterm_and_told_once_without_its_password() {
    /// Long enough for several attempts.
    const ATTEMPTS: Duration = Duration::from_millis(1500);
    let folder = tempfile::tempdir().expect("make a folder");
    let nobody = free_port();
    let url = format!("postgres://sotto:{PASSWORD}@127.0.0.1:{nobody}/sotto");
    std::fs::write(folder.path().join("url"), &url).expect("write");
    std::fs::write(folder.path().join("sotto.toml"), "database_url_file = \"url\"\n").expect("write");
    for (place, flags) in [("flag", ["--database", url.as_str()]), ("file", ["--config", "sotto.toml"])] {
        let mut arguments = vec!["serve", "--data", place];
        arguments.extend(flags);
        let any = ["--mqtts", "--wss", "--private"].map(|flag| [flag, "127.0.0.1:0"]);
        arguments.extend(any.as_flattened());
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let process = Process::spawn(&arguments, folder.path());
        let (stdout, stderr) = (process.stdout.clone(), process.stderr.clone());
        until("the database is awaited", async || stderr.text().contains("database_awaited")).await;
        tokio::time::sleep(ATTEMPTS).await;
        assert_eq!(process.terminate().await.code(), Some(0));
        let said = stderr.text();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("open PostgreSQL") && said.contains("connection refused"), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
        assert_eq!(stdout.text(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_after_the_broker_is_served_from() {
    let server = tokio::task::spawn_blocking(|| Server::start(Durability::None)).await.expect("a server");
    tokio::task::block_in_place(|| server.stop());
    let mut house = House::closed(Database::Own(server.url("postgres")), "");
    let comes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| server.resume());
    };
    tokio::join!(house.start(), comes);
    assert_eq!(house.get("/health/ready").await.0, 200);
    assert!(house.printed().contains("database_there"), "{}", house.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_is_told_without_its_password() {
    let folder = tempfile::tempdir().expect("make a folder");
    let said = refused(folder.path(), &["--database", &format!("mysql://sotto:{PASSWORD}@host/db")]).await;
    assert!(!said.contains(PASSWORD), "{said}");
    // A database that is not there.
    let database = TestDatabase::create().await;
    let missing = database.url().replacen("/sotto_", "/missing_", 1);
    let said = refused(folder.path(), &["--database", &missing]).await;
    assert!(said.contains("PostgreSQL"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_database_does_not_serve_beside_the_first() {
    let house = House::open(Kind::Postgres).await;
    let folder = tempfile::tempdir().expect("make a folder");
    let url = house.database.url().expect("PostgreSQL").to_owned();
    let said = refused(folder.path(), &["--database", &url]).await;
    assert!(!said.contains("password"), "{said}");
    assert_eq!(house.get("/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_serve_would_do_and_refuses_what_serve_refuses() {
    let mut house = House::closed(Database::Sqlite, "");
    house.configure("mqtts = \"127.0.0.1:7777\"\nwss = \"127.0.0.1:7778\"\n".to_owned());
    let plan = house.sotto(&["check"]).await;
    assert_eq!((&plan["mqtts"], &plan["store"]), (&"127.0.0.1:7777".into(), &"embedded SQLite".into()));
    assert_eq!(plan["wss"], "127.0.0.1:7778");
    assert!(!house.data().exists(), "it makes nothing");
}
