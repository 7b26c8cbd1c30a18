//! Scenarios against a real broker over TLS. Where mosquitto is not installed they are skipped, with a
//! word on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for a broker to start")]

mod support;

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Broker, authority, free_port, loadtest, text};

#[test]
fn hold_keeps_every_session_it_opened() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    // A broker closes after one and a half Keep Alives of silence: these sessions live by their PINGREQs.
    let (output, report) =
        broker.load(&["hold", "--n", "60", "--hold", "5", "--keep-alive", "2", "--subscribe", "inbox/%i"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["connecting"]["connected"], 60);
    assert_eq!(report["connecting"]["total"]["count"], 60);
    assert_eq!(report["connecting"]["tls"]["count"], 60);
    assert_eq!(report["connecting"]["suback"]["count"], 60);
    assert!(
        report["target"]["transport"].as_str().is_some_and(|text| text.starts_with("TLSv1_3")),
        "{report}"
    );
    assert!(report["connecting"]["server"]["bytes_per_connection"].is_f64(), "{report}");
    assert_eq!(report["broken"], serde_json::json!({}));
}

#[test]
fn every_message_arrives_once_whatever_the_qos_and_the_version() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    for (qos, protocol) in [("0", "5"), ("1", "3"), ("1", "5"), ("2", "3"), ("2", "5")] {
        let (output, report) = broker.load(&[
            "pubsub",
            "--pubs",
            "6",
            "--subs",
            "4",
            "--topics",
            "2",
            "--rate",
            "300",
            "--seconds",
            "1",
            "--qos",
            qos,
            "--protocol",
            protocol,
            "--max-loss",
            "0",
        ]);
        assert!(output.status.success(), "QoS {qos}, version {protocol}: {output:?}");
        assert_eq!(report["sent"], 300, "{report}");
        assert_eq!(report["accepted"], 300, "{report}");
        // Each topic has two subscribers.
        for (figure, expected) in
            [("expected", 600), ("delivered", 600), ("lost", 0), ("duplicates", 0), ("reordered", 0)]
        {
            assert_eq!(report[figure], expected, "{figure}, QoS {qos}, version {protocol}: {report}");
        }
        assert_eq!(report["delivery"]["count"], 600);
        assert_eq!(report["acknowledged"]["count"], if qos == "0" { 0 } else { 300 });
    }
}

#[test]
fn a_closed_loop_keeps_its_window_full_and_loses_nothing() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    for qos in ["0", "1"] {
        let (output, report) = broker.load(&[
            "pubsub",
            "--pubs",
            "2",
            "--subs",
            "2",
            "--topics",
            "2",
            "--rate",
            "0",
            "--window",
            "8",
            "--seconds",
            "1",
            "--qos",
            qos,
        ]);
        assert!(output.status.success(), "{output:?}");
        assert!(report["sent"].as_u64().is_some_and(|sent| sent > 100), "{report}");
        assert_eq!(report["delivered"], report["sent"], "{report}");
        assert_eq!(report["lost"], 0, "{report}");
    }
}

#[test]
fn a_missed_objective_is_told_by_exit_code_2() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let (output, report) = broker.load(&["hold", "--n", "3", "--hold", "0", "--min-rate", "1000000"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(report["objectives"][0]["met"], false);
}

#[test]
fn a_refusal_is_told_in_one_line_with_its_reason() {
    let Some(broker) = Broker::start("allow_anonymous false") else { return };
    for protocol in ["3", "5"] {
        let output = broker.command(&["hold", "--n", "50", "--protocol", protocol]).output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = text(&output.stderr);
        assert!(errors.contains("broker refused CONNECT: not_authorized (0x87)"), "{errors}");
        assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_told_in_one_line() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let other = broker.folder.path().join("other.pem");
    fs::write(&other, authority().pem()).expect("written");
    let output = loadtest()
        .args(["hold", "--n", "50", "--addr", &broker.address(), "--ca"])
        .arg(other)
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("TLS handshake failed: invalid peer certificate"), "{errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
}

#[test]
fn a_broker_that_dies_midway_leaves_what_was_measured_till_then() {
    let Some(mut broker) = Broker::start("allow_anonymous true") else { return };
    let mut load =
        broker.command(&["pubsub", "--rate", "500", "--seconds", "60", "--pubs", "2", "--subs", "2"]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    sleep(Duration::from_secs(6));
    broker.process.kill().expect("killed");
    let since = Instant::now();
    let output = load.wait_with_output().expect("ended");
    assert!(since.elapsed() < Duration::from_secs(20), "it goes on without a broker");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("error: 4 of 4 clients ended early"), "{errors}");
    assert!(text(&output.stdout).contains("delivery, since due"), "{output:?}");
    let report = broker.report();
    assert!(report["sent"].as_u64().is_some_and(|sent| sent > 0), "{report}");
    assert_eq!(report["lost"], 0, "what was not acknowledged is not lost: {report}");
}

#[test]
fn nobody_listening_is_told_in_one_line() {
    let port = free_port();
    let output =
        loadtest().args(["hold", "--plain", "--addr", &format!("127.0.0.1:{port}")]).output().expect("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        text(&output.stderr),
        format!("error: connect to 127.0.0.1:{port}: TCP connection failed: connection refused\n")
    );
}
