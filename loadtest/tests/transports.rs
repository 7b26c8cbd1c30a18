//! Every way to reach a broker, and every way to say who one is, with a real broker. Where mosquitto is not
//! installed they are skipped, with a word on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for a broker to start")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Broker, free_port, loadtest, text};

fn transport(report: &Value) -> &str {
    report["target"]["transport"].as_str().expect("a transport")
}

#[test]
fn version_and_suite_are_those_asked_for() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    for (version, suite, negotiated) in [
        ("1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ("1.3", "TLS_CHACHA20_POLY1305_SHA256", "TLSv1_3 TLS13_CHACHA20_POLY1305_SHA256"),
    ] {
        let (output, report) =
            broker.load(&["hold", "--n", "3", "--hold", "0", "--tls-version", version, "--ciphers", suite]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(transport(&report), negotiated);
    }
}

#[test]
fn each_client_shows_its_own_certificate() {
    let access = "allow_anonymous false\nrequire_certificate true\nuse_identity_as_username true\n\
                  cafile {folder}/ca.pem";
    let Some(broker) = Broker::start(access) else { return };
    let path = |name: &str| broker.folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (cert, key) = (path("client-%i.pem"), path("client-%i.key"));
    let hold = ["hold", "--n", "4", "--hold", "0"];
    let (output, report) = broker.load(&[&hold[..], &["--cert", &cert, "--key", &key]].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["connecting"]["connected"], 4);
    // The fifth has none.
    let (output, _) =
        broker.load(&[&["hold", "--n", "5", "--hold", "0"], &["--cert", &cert, "--key", &key][..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("client-4.pem"), "{}", text(&output.stderr));
    let (output, _) = broker.load(&hold);
    assert_eq!(output.status.code(), Some(1), "without a certificate: {output:?}");
}

#[test]
fn every_client_of_a_credentials_file_signs_in_with_its_own_line() {
    let access = "allow_anonymous false\npassword_file {folder}/passwords";
    let passwords = tempfile::NamedTempFile::new().expect("a file");
    let access = access.replace("{folder}/passwords", passwords.path().to_str().expect("UTF-8"));
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", passwords.path().to_str().expect("UTF-8"), "ann", "one,two"])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let Some(broker) = Broker::start(&access) else { return };
    let file = broker.folder.path().join("credentials.csv");
    let load = |lines: &str, n: &str| {
        fs::write(&file, lines).expect("written");
        let file = file.to_str().expect("UTF-8");
        broker.load(&["hold", "--n", n, "--hold", "0", "--subscribe", "of/%u/%c", "--credentials", file])
    };
    let (output, _) = load("phone-a,ann,one,two\nphone-b,ann,one,two\n", "2");
    assert!(output.status.success(), "{output:?}");
    let (output, report) = load("phone-a,ann,one,two\nphone-b,ann,wrong\n", "2");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(report, Value::Null);
    let errors = text(&output.stderr);
    assert!(errors.contains("1 of 2 clients could not connect"), "{errors}");
    assert!(errors.contains("not_authorized"), "{errors}");
    let (output, _) = load("phone-a,ann,one,two\n", "2");
    assert!(text(&output.stderr).contains("1 lines for 2 clients"), "{output:?}");
}

#[test]
fn clients_take_the_addresses_in_turn() {
    let second = free_port();
    let access = format!(
        "allow_anonymous true\nlistener {second} 127.0.0.1\ncertfile {{folder}}/broker.pem\nkeyfile {{folder}}/broker.key"
    );
    let Some(broker) = Broker::start(&access) else { return };
    let both = format!("{},127.0.0.1:{second}", broker.address());
    let ca = broker.folder.path().join("ca.pem");
    let mut command = loadtest();
    let output =
        command.args(["hold", "--n", "10", "--hold", "0", "--addr", &both, "--ca"]).arg(&ca).output();
    let output = output.expect("run");
    assert!(output.status.success(), "{output:?}");
    let named = format!("hold {}, 127.0.0.1:{second}", broker.address());
    assert!(text(&output.stdout).contains(&named), "{output:?}");
    // One of them alone is missing: nothing begins.
    let half = format!("{},127.0.0.1:{}", broker.address(), free_port());
    let output =
        loadtest().args(["hold", "--n", "10", "--addr", &half, "--ca"]).arg(&ca).output().expect("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("connection refused"), "{output:?}");
}

#[test]
fn a_broker_on_ipv6_is_reached() {
    let port = free_port();
    let Some(_broker) = Broker::start(&format!("allow_anonymous true\nlistener {port} ::1")) else { return };
    let addr = format!("[::1]:{port}");
    let output = loadtest().args(["hold", "--n", "5", "--hold", "0", "--plain", "--addr", &addr]).output();
    let output = output.expect("run");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains(&addr), "{output:?}");
}

#[test]
fn members_of_a_share_divide_the_messages_and_those_of_all_topics_get_each() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let run = [
        "pubsub",
        "--pubs",
        "8",
        "--topics",
        "4",
        "--subs",
        "3",
        "--rate",
        "400",
        "--seconds",
        "1",
        "--all-topics",
    ];
    for (more, expected) in [(&["--share", "team"][..], 400), (&[][..], 1200)] {
        let (output, report) = broker.load(&[&run[..], more].concat());
        assert!(output.status.success(), "{output:?}");
        for (figure, expected) in
            [("expected", expected), ("delivered", expected), ("lost", 0), ("duplicates", 0)]
        {
            assert_eq!(report[figure], expected, "{figure} {more:?}: {report}");
        }
    }
}
