//! The comparison for real, as small as it gets. It takes Sotto and the load tester as the whole suite has built
//! them; without them, and without mosquitto, it is skipped with a word on standard error.

#![expect(clippy::disallowed_macros, reason = "it says that it has been skipped")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn a_storm_on_sotto_and_on_mosquitto_is_measured() {
    let Some(comparison) = measure("sotto,mosquitto", "storm") else { return };
    let storm = &comparison.report["sections"][0];
    assert_eq!(brokers(storm), ["sotto", "mosquitto"]);
    for row in storm["rows"].as_array().expect("rows") {
        for figure in ["all_connected_seconds", "bytes_per_connection"] {
            let median = row["figures"][figure]["median"].as_f64();
            assert!(median.is_some_and(|median| median > 0.0), "{figure}: {row}");
        }
    }
    let suites = comparison.report["conditions"]["suites"].as_object().expect("suites");
    assert_eq!(suites.keys().collect::<Vec<_>>(), ["TLSv1_3 TLS13_AES_128_GCM_SHA256"]);
}

#[test]
fn messages_through_a_broker_that_stores_and_one_that_does_not_are_measured() {
    let Some(comparison) = measure("sotto-sqlite,mosquitto", "storm,qos1-window16") else { return };
    let [storm, messages] = [0, 1].map(|at| &comparison.report["sections"][at]);
    assert_eq!(brokers(storm), ["mosquitto"], "what stores does nothing else in a storm");
    assert_eq!(brokers(messages), ["sotto-sqlite", "mosquitto"]);
    for row in messages["rows"].as_array().expect("rows") {
        for figure in ["cpu_per_delivery_us", "deliveries_per_second"] {
            let median = row["figures"][figure]["median"].as_f64();
            assert!(median.is_some_and(|median| median > 0.0), "{figure}: {row}");
        }
    }
    let title = "QoS 1, 1 → 1, 16 outstanding";
    assert!(comparison.page.contains(&format!("<h2>{title}</h2>")), "{}", comparison.page);
    assert!(comparison.tables.contains(&format!("### {title}")), "{}", comparison.tables);
}

#[test]
fn a_peer_that_is_not_installed_is_skipped_by_name() {
    let nowhere = tempfile::tempdir().expect("a folder");
    let folder = nowhere.path().display().to_string();
    let Some(output) = compare(&["--peers", "rmqtt,aedes", "--peers-dir", &folder, "--rounds", "1"]) else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("skipped: rmqtt is not installed: --install gets it"), "{errors}");
    assert!(errors.contains("skipped: aedes is not installed: --install gets it"), "{errors}");
}

#[test]
fn peers_that_do_not_start_are_footnotes_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    fs::create_dir(file("bin")).expect("a folder");
    let script = |name: &str, does: &str| {
        fs::write(file(name), format!("#!/bin/sh\n{does}\n")).expect("written");
        fs::set_permissions(file(name), Permissions::from_mode(0o755)).expect("made a program");
    };
    script("bin/rmqtt-peer", "exit 3");
    let pid = file("pid");
    script(
        "bin/rumqttd",
        &format!("[ $1 = --version ] && exit; echo $$ > {}; exec sleep 600", pid.display()),
    );
    let (peers_dir, json) = (folder.path().display().to_string(), file("report.json").display().to_string());
    let what = ["--peers", "sotto,rmqtt,rumqttd", "--scenarios", "storm", "--clients", "5", "--rounds", "1"];
    let where_to = ["--peers-dir", &peers_dir, "--json", &json];
    let Some(output) = compare(&[what.as_slice(), &where_to].concat()) else { return };
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(json).expect("a report")).expect("JSON");
    let footnotes = [
        "rmqtt, round 1: failed: ended before it listened: exit status: 3",
        "rumqttd, round 1: failed: does not listen after 10 s",
    ];
    assert_eq!(report["footnotes"], serde_json::json!(footnotes));
    let rows = &report["sections"][0]["rows"];
    assert_eq!(rows[2]["footnotes"], serde_json::json!([2]));
    assert!(rows[0]["figures"]["bytes_per_connection"]["median"].is_f64(), "{report}");
    let pid = fs::read_to_string(pid).expect("it was started");
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "it still runs");
}

struct Comparison {
    report: Value,
    page: String,
    tables: String,
}

/// `None`, and a word about it, where something of it is not here.
fn measure(peers: &str, scenarios: &str) -> Option<Comparison> {
    let folder = tempfile::tempdir().expect("a folder");
    let [report, page] = ["report.json", "report.html"].map(|name| folder.path().join(name));
    let (json, html) = (report.display().to_string(), page.display().to_string());
    let small = ["--clients", "20", "--seconds", "1", "--rounds", "1", "--json", &json, "--html", &html];
    let output = compare(&[["--peers", peers, "--scenarios", scenarios].as_slice(), &small].concat())?;
    assert!(output.status.success(), "{output:?}");
    let errors = text(&output.stderr);
    if errors.contains("skipped: ") {
        eprint!("{errors}");
        return None;
    }
    let report = fs::read(report).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["footnotes"], serde_json::json!([]), "{report}");
    let page = fs::read_to_string(page).expect("a page");
    Some(Comparison { report, page, tables: text(&output.stdout) })
}

/// `None`, and a word about it, where the broker has not been built.
fn compare(arguments: &[&str]) -> Option<Output> {
    let program = Path::new(env!("CARGO_BIN_EXE_sotto-peers"));
    let built: PathBuf = program.parent().expect("the target folder").into();
    if !["sotto", "sotto-loadtest"].iter().all(|name| built.join(name).is_file()) {
        eprintln!("skipped: cargo build -p sotto -p loadtest makes what it compares");
        return None;
    }
    let mut command = Command::new(program);
    command.arg("--bin-dir").arg(built).args(arguments);
    Some(command.output().expect("run the comparison"))
}

fn brokers(section: &Value) -> Vec<&str> {
    let rows = section["rows"].as_array().expect("rows");
    rows.iter().map(|row| row["broker"].as_str().expect("a name")).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
