//! Storm, churn and inbox with a real broker. Where mosquitto is not installed they are skipped, with a word
//! on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for a broker to start")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Broker, text};

const KEEPS: &str = "allow_anonymous true\npersistence false";

#[test]
fn all_come_back_after_each_cut_and_steady_messages_arrive_meanwhile() {
    let Some(broker) = Broker::start(KEEPS) else { return };
    for drop in ["rst", "fin"] {
        let (output, report) = broker.load(&[
            "storm",
            "--n",
            "60",
            "--rounds",
            "2",
            "--pause",
            "0.2",
            "--drop",
            drop,
            "--resume",
            "1",
            "--subscribe",
            "a/%i",
            "--steady-pairs",
            "2",
            "--steady-rate",
            "50",
        ]);
        assert!(output.status.success(), "{drop}: {output:?}");
        for round in [1, 2] {
            assert_eq!(report["rounds"][round]["cut"], 60, "{report}");
            assert_eq!(report["rounds"][round]["back"]["count"], 60, "{report}");
            assert_eq!(report["rounds"][round]["broken"], serde_json::json!({}), "{report}");
        }
        assert_eq!(report["away"], 0, "{report}");
        assert_eq!(report["connecting"]["connected"], 60, "{report}");
        assert_eq!(report["returning"]["suback"]["count"], 120, "{report}");
        // In the first round, only those for whom the first connections have left a ticket.
        assert!(report["rounds"][2]["tls_resumed"].as_u64().is_some_and(|count| count > 30), "{report}");
        assert!(report["steady"]["delivered"].as_u64().is_some_and(|count| count > 0), "{report}");
        assert_eq!(report["steady"]["lost"], 0, "{report}");
    }
}

#[test]
fn returns_keep_the_rate_that_was_asked_for() {
    let Some(broker) = Broker::start(KEEPS) else { return };
    let (output, report) = broker.load(&[
        "storm",
        "--n",
        "30",
        "--rounds",
        "1",
        "--pause",
        "0",
        "--return-rate",
        "20",
        "--away",
        "1",
        "--steady-pairs",
        "0",
    ]);
    assert!(output.status.success(), "{output:?}");
    let longest = report["rounds"][1]["back"]["max_us"].as_u64().expect("a time");
    // The last is due a second and 29 twentieths after the cut.
    assert!((2_450_000..4_000_000).contains(&longest), "{report}");
}

#[test]
fn clients_find_back_to_a_broker_that_was_away() {
    let Some(mut broker) = Broker::start(KEEPS) else { return };
    let mut load = broker.command(&[
        "storm",
        "--n",
        "20",
        "--rounds",
        "0",
        "--hold",
        "6",
        "--backoff",
        "0.2",
        "--backoff-max",
        "1",
        "--subscribe",
        "a/%i",
    ]);
    let load = load.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run");
    sleep(Duration::from_secs(2));
    broker.stop();
    sleep(Duration::from_secs(1));
    broker.start_again();
    let output = load.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    let report = broker.report();
    let round = &report["rounds"][0];
    assert_eq!(round["recovered"]["count"], 20, "{report}");
    assert_eq!(report["away"], 0, "{report}");
    let refused = round["failed_attempts"]["TCP connection failed: connection refused"].as_u64();
    assert!(refused.is_some_and(|refused| refused >= 20), "{report}");
}

#[test]
fn a_broker_that_stays_away_is_told_with_how_many_wait_for_it() {
    let Some(mut broker) = Broker::start(KEEPS) else { return };
    let mut load = broker.command(&[
        "storm",
        "--n",
        "5",
        "--rounds",
        "0",
        "--hold",
        "3",
        "--backoff",
        "0.1",
        "--round-timeout",
        "1",
    ]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    sleep(Duration::from_secs(2));
    broker.stop();
    let output = load.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stderr).contains("5 of 5 clients ended early, most of them because: never came back"),
        "{output:?}"
    );
    assert_eq!(broker.report()["away"], 5);
}

#[test]
fn connections_come_and_go_with_one_message_each() {
    let Some(broker) = Broker::start(KEEPS) else { return };
    for (qos, protocol) in [("1", "5"), ("0", "3")] {
        let (output, report) =
            broker.load(&["churn", "--rate", "50", "--seconds", "2", "--qos", qos, "--protocol", protocol]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(report["cycles"], 100, "{report}");
        assert_eq!(report["lost"], 0, "{report}");
        assert_eq!(report["unsuback"]["count"], 100, "{report}");
        assert_eq!(report["delivery"]["count"], 100, "{report}");
        assert!(report["server"]["cpu_per_cycle_us"].is_f64(), "{report}");
    }
}

#[test]
fn churn_that_needs_more_ports_than_there_are_is_refused_before_it_begins() {
    let output = support::loadtest()
        .args(["churn", "--plain", "--rate", "1000", "--seconds", "60", "--source-range", "none"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("60000 ports") && errors.contains("--source-range"), "{errors}");
}

#[test]
fn who_comes_back_receives_everything_once_and_in_order() {
    let Some(broker) = Broker::start(KEEPS) else { return };
    for (qos, protocol) in [("1", "5"), ("2", "5"), ("1", "3")] {
        let (output, report) = broker.load(&[
            "inbox",
            "--subs",
            "10",
            "--messages",
            "50",
            "--qos",
            qos,
            "--protocol",
            protocol,
            "--max-loss",
            "0",
        ]);
        assert!(output.status.success(), "QoS {qos}: {output:?}");
        assert_eq!(report["sessions_present"], 10, "{report}");
        for (figure, expected) in [
            ("sent", 500),
            ("accepted", 500),
            ("expected", 500),
            ("delivered", 500),
            ("lost", 0),
            ("duplicates", 0),
            ("reordered", 0),
        ] {
            assert_eq!(report[figure], expected, "{figure}, QoS {qos}: {report}");
        }
        assert!(report["drain_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
    }
}

#[test]
fn what_a_broker_does_not_keep_is_counted_as_lost() {
    let Some(broker) = Broker::start("allow_anonymous true\nmax_queued_messages 20") else { return };
    let (output, report) = broker.load(&[
        "inbox",
        "--subs",
        "2",
        "--messages",
        "100",
        "--drain",
        "1",
        "--max-loss",
        "0",
        "--receive-maximum",
        "10",
    ]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let lost = report["lost"].as_u64().expect("a count");
    assert!(lost > 100, "{report}");
    assert_eq!(report["delivered"].as_u64().map(|delivered| delivered + lost), Some(200), "{report}");
}

#[test]
fn the_suite_has_a_row_for_each_case_over_each_transport() {
    let plain = support::free_port();
    let Some(broker) = Broker::start(&format!("allow_anonymous true\nlistener {plain} 127.0.0.1")) else {
        return;
    };
    let ca = broker.folder.path().join("ca.pem");
    let json = broker.folder.path().join("suite.json");
    let output = support::loadtest()
        .args(["suite", "--scale", "0.002", "--seconds", "1", "--connect-rate", "500", "--max-loss", "0"])
        .args(["--plain", "--addr", &format!("127.0.0.1:{plain}"), "--tls-addr", &broker.address()])
        .args(["--case", "conn-tcp-10K-100,fanout-5-1000-5-250K,p2p-1K-1K-1K-1K,sharedsub-1K-5-1K-1K"])
        .args(["--server-pid", &broker.process.id().to_string()])
        .arg("--ca")
        .arg(&ca)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("run");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let cases = report["cases"].as_array().expect("cases");
    let rows: Vec<_> = cases.iter().map(|case| (case["case"].as_str(), case["succeeded"] == true)).collect();
    let names = ["conn-tcp-10K-100", "fanout-5-1000-5-250K", "p2p-1K-1K-1K-1K", "sharedsub-1K-5-1K-1K"];
    let expected: Vec<_> = names.iter().chain(&names).map(|name| (Some(*name), true)).collect();
    assert_eq!(rows, expected, "{report}");
    assert_eq!(cases[0]["transport"], "plain TCP");
    assert!(cases[4]["transport"].as_str().is_some_and(|text| text.starts_with("TLS")), "{report}");
    assert_eq!(report["target"]["protocol"], "MQTT 3.1.1");
    // Two subscribers, five topics, 250 messages.
    assert_eq!(cases[1]["messages"]["expected"], 500, "{report}");
}

#[test]
fn cases_that_were_done_before_the_broker_died_are_in_the_report() {
    let plain = support::free_port();
    let Some(mut broker) = Broker::start(&format!("allow_anonymous true\nlistener {plain} 127.0.0.1")) else {
        return;
    };
    let json = broker.folder.path().join("suite.json");
    let mut suite = support::loadtest()
        .args([
            "suite",
            "--scale",
            "0.002",
            "--seconds",
            "1",
            "--connect-rate",
            "500",
            "--connect-timeout",
            "2",
        ])
        .args(["--plain", "--addr", &format!("127.0.0.1:{plain}")])
        .args(["--case", "conn-tcp-10K-100,p2p-1K-1K-1K-1K,fanout-1-1K-1-1K"])
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let mut said = BufReader::new(suite.stderr.take().expect("piped")).lines().map_while(Result::ok);
    // It names a case as it begins.
    assert!(said.any(|line| line.starts_with("p2p-")), "the second case does not begin");
    broker.stop();
    let errors: Vec<_> = said.collect();
    assert_eq!(suite.wait().expect("ended").code(), Some(1), "{errors:?}");
    assert!(errors.iter().any(|line| line.starts_with("error: ")), "{errors:?}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    assert_eq!(report["cases"][0]["case"], "conn-tcp-10K-100", "{report}");
    assert_eq!(report["cases"][0]["succeeded"], true, "{report}");
    let last = report["troubles"][0].as_str().expect("a trouble");
    // It may die before the second case has connected, or before the third.
    assert!(last.contains("connect to 127.0.0.1") && last.contains("-1K: "), "{last}");
}

#[test]
fn a_storm_ends_with_the_round_after_which_nobody_came_back() {
    let Some(mut broker) = Broker::start(KEEPS) else { return };
    let mut load = broker.command(&["storm", "--n", "5", "--rounds", "40", "--pause", "0.2"]);
    load.args(["--round-timeout", "2", "--backoff", "0.1", "--steady-pairs", "0"]);
    let load = load.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run");
    sleep(Duration::from_secs(2));
    broker.stop();
    let since = Instant::now();
    let output = load.wait_with_output().expect("ended");
    assert!(since.elapsed() < Duration::from_secs(30), "it goes on cutting nobody");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("never came back"), "{output:?}");
    assert_eq!(broker.report()["away"], 5);
}

#[test]
fn a_case_that_does_not_exist_is_answered_with_those_that_do() {
    let output = support::loadtest().args(["suite", "--plain", "--case", "p2p"]).output().expect("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("p2p-1K-1K-1K-1K"), "{output:?}");
}

#[test]
fn a_soak_tells_of_each_interval_and_of_the_drift() {
    let Some(broker) = Broker::start(KEEPS) else { return };
    let soak = ["soak", "--pairs", "4", "--rate", "200", "--idle", "10", "--seconds", "8", "--interval", "2"];
    let (output, report) = broker.load(&soak);
    assert!(output.status.success(), "{output:?}");
    assert!(report["intervals"].as_array().is_some_and(|rows| (3..=4).contains(&rows.len())), "{report}");
    assert!(
        report["intervals"][1]["delivered_per_second"].as_f64().is_some_and(|rate| rate > 150.0),
        "{report}"
    );
    assert_eq!(report["intervals"][0]["connections"], 18, "{report}");
    assert!(report["drift"]["server_rss_bytes_per_hour"].is_f64(), "{report}");
    assert!(report["drift"]["delivery_p99_ms_per_hour"].is_f64(), "{report}");
    assert!(text(&output.stderr).contains("18 sessions"), "{output:?}");
    // No broker shrinks so fast.
    let (output, _) = broker.load(&[&soak[..], &["--max-memory-growth", "-1000000"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
