//! One run in several processes, here and by agents, with a real broker. Where mosquitto is not installed it is
//! skipped, with a word on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for brokers and agents to start")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Broker, free_port, loadtest, text};

const PUBSUB: &[&str] =
    &["pubsub", "--pubs", "6", "--subs", "9", "--topics", "3", "--rate", "300", "--seconds", "2"];

#[test]
fn processes_share_the_clients_and_make_one_report() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    // With two processes, publishers and subscribers of a topic are apart; with three together.
    for processes in ["2", "3"] {
        let csv = broker.folder.path().join("timeline.csv");
        let spread = ["--processes", processes, "--max-loss", "0", "--csv", csv.to_str().expect("text")];
        let (output, report) = broker.load(&[PUBSUB, &spread].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(report["load_tester"]["processes"].to_string(), processes);
        assert_sums(&report);
        let rate = report["published_per_second"].as_f64().expect("a rate");
        assert!((1.0..330.0).contains(&rate), "{rate}");
        assert!(fs::read_to_string(&csv).expect("rows").lines().count() > 3);
    }
}

#[test]
fn members_of_a_shared_subscription_are_counted_together_wherever_they_are() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let share =
        ["pubsub", "--pubs", "3", "--subs", "5", "--rate", "300", "--seconds", "2", "--share", "workers"];
    for layout in [&["--topics", "1"][..], &["--topics", "3", "--all-topics"]] {
        let (output, report) =
            broker.load(&[&share[..], layout, &["--processes", "2", "--max-loss", "0"]].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(report["load_tester"]["processes"], 2);
        let sent = report["sent"].as_u64().expect("a number");
        assert!(sent > 10, "{report}");
        for (figure, expected) in
            [("accepted", sent), ("expected", sent), ("delivered", sent), ("lost", 0), ("duplicates", 0)]
        {
            assert_eq!(report[figure], expected, "{figure}: {report}");
        }
        assert_eq!((&report["foreign"], &report["reordered"]), (&0.into(), &0.into()), "{report}");
    }
}

#[test]
fn hold_is_spread_too() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let (output, report) =
        broker.load(&["hold", "--n", "31", "--hold", "1", "--subscribe", "a/%i", "--processes", "3"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["connecting"]["connected"], 31);
    assert_eq!(report["connecting"]["suback"]["count"], 31);
    assert_eq!(report["latencies"]["connect"], report["connecting"]["total"]);
}

#[test]
fn agents_with_the_same_token_do_the_work() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let token = token(broker.folder.path(), "token", "a token that both know");
    let (one, other) = (Agent::start(&token), Agent::start(&token));
    let agents = format!("{},{}", one.address, other.address);
    let spread = ["--agents", &agents, "--token-file", &token, "--max-loss", "0"];
    // An agent that has done its part waits for the next.
    for _ in 0..2 {
        let (output, report) = broker.load(&[PUBSUB, &spread].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(report["load_tester"]["processes"], 2);
        assert_sums(&report);
        let warnings = report["warnings"].to_string();
        for agent in [&one, &other] {
            let said = format!("the clock of agent {} was known to within 0.", agent.address);
            assert!(warnings.contains(&said), "{warnings}");
        }
    }
}

#[test]
fn an_agent_may_have_source_addresses_of_its_own() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let token = token(broker.folder.path(), "token", "a token that both know");
    let here = Agent::start(&token);
    // No machine has an address that is set aside for documentation.
    let elsewhere = Agent::start_with(&token, &["--source-range", "192.0.2.1"]);
    let agents = format!("{},{}", here.address, elsewhere.address);
    let hold = ["hold", "--n", "4", "--hold", "0", "--agents", &agents, "--token-file", &token];
    let output = broker.command(&hold).output().expect("run");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = broker.report();
    assert_eq!(report["connecting"]["connected"], 2, "{report}");
    assert!(text(&output.stderr).contains("2 of 4 clients could not connect"), "{output:?}");
    assert!(text(&output.stderr).contains("source address cannot be used"), "{output:?}");
}

#[test]
fn an_agent_that_cannot_be_reached_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = token(folder.path(), "token", "a token that both know");
    for (agent, said) in [
        (format!("127.0.0.1:{}", free_port()), "Connection refused"),
        ("nowhere.invalid:7883".into(), "lookup"),
        ("nowhere".into(), "invalid socket address"),
    ] {
        let output = loadtest()
            .args(["hold", "--plain", "--agents", &agent, "--token-file", &token])
            .output()
            .expect("run");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = text(&output.stderr);
        assert!(errors.starts_with(&format!("error: agent {agent}: ")) && errors.contains(said), "{errors}");
    }
}

#[test]
fn an_agent_refuses_who_does_not_know_its_token_and_a_second_run() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let token_file = token(broker.folder.path(), "token", "a token that both know");
    let agent = Agent::start(&token_file);
    let other = token(broker.folder.path(), "other", "a token of somebody else");
    let run = |token: &str| {
        let mut command = broker.command(PUBSUB);
        command.args(["--agents", &agent.address, "--token-file", token]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let refused = run(&other).output().expect("run");
    assert_eq!(refused.status.code(), Some(1));
    let said = format!("error: agent {}: token does not match\n", agent.address);
    assert_eq!(text(&refused.stderr), said);

    let first = run(&token_file).spawn().expect("run");
    sleep(Duration::from_millis(800));
    let second = run(&token_file).output().expect("run");
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(text(&second.stderr).contains("is busy with another run"), "{second:?}");
    let first = first.wait_with_output().expect("ended");
    assert!(first.status.success(), "{first:?}");
}

#[test]
fn an_agent_that_dies_is_named_and_the_others_results_are_kept() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let token = token(broker.folder.path(), "token", "a token that both know");
    let (stays, mut dies) = (Agent::start(&token), Agent::start(&token));
    let agents = format!("{},{}", stays.address, dies.address);
    let mut load = broker.command(&["pubsub", "--pubs", "2", "--subs", "2", "--topics", "2"]);
    load.args(["--rate", "200", "--seconds", "60", "--agents", &agents, "--token-file", &token]);
    let metrics = format!("127.0.0.1:{}", free_port());
    load.args(["--prometheus", &metrics]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    wait_for(&metrics, "delivered_total", 100, Duration::from_mins(1));
    let output = end_without(&mut dies, load);
    let errors = text(&output.stderr);
    assert!(errors.contains(&format!("error: agent {} was lost: connection lost", dies.address)), "{errors}");
    let report = broker.report();
    assert!(report["delivery"]["count"].as_u64().is_some_and(|count| count > 50), "{report}");
    assert_eq!(report["interrupted"], true);
    // The one that is left takes another run.
    let mut again = broker.command(&["hold", "--n", "4", "--hold", "0"]);
    let again = again.args(["--agents", &stays.address, "--token-file", &token]).output().expect("run");
    assert!(again.status.success(), "{again:?}");
}

#[test]
fn a_storm_cuts_all_clients_of_all_processes_and_all_come_back() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let storm = ["storm", "--n", "61", "--rounds", "2", "--pause", "0.2", "--subscribe", "a/%i"];
    let steady =
        ["--steady-pairs", "3", "--steady-rate", "60", "--return-rate", "200", "--round-timeout", "120"];
    for processes in [&[][..], &["--processes", "2"]] {
        let (output, report) = broker.load(&[&storm[..], &steady, processes].concat());
        assert!(output.status.success(), "{output:?}");
        let count = if processes.is_empty() { 1 } else { 2 };
        assert_eq!(report["load_tester"]["processes"], count);
        assert_eq!(report["connecting"]["connected"], 61, "{report}");
        for round in [1, 2] {
            let round = &report["rounds"][round];
            assert_eq!(round["cut"], 61, "{report}");
            assert_eq!(round["back"]["count"], 61, "{report}");
            assert_eq!(round["gone"]["count"], 61, "{report}");
            // After the moment that was named to all, and not as soon as each heard of it.
            let gone = round["gone"]["max_us"].as_u64().expect("a time");
            assert!(gone >= 10, "{report}");
            assert_eq!(round["broken"], serde_json::json!({}), "{report}");
            // Client 60 is due 60 two-hundredths of a second after the moment at which all were cut.
            let last = round["back"]["max_us"].as_u64().expect("a time");
            assert!(last >= 300_000, "{report}");
        }
        assert_eq!(report["returning"]["suback"]["count"], 122, "{report}");
        assert_eq!(report["away"], 0, "{report}");
        assert!(report["steady"]["delivered"].as_u64().is_some_and(|count| count > 20), "{report}");
        assert_eq!(report["steady"]["delivered"], report["steady"]["accepted"], "{report}");
        assert_eq!(report["steady"]["lost"], 0, "{report}");
        // First, returns and pairs.
        assert_eq!(report["latencies"]["connect"]["count"], 61 + 122 + 6, "{report}");
    }
}

#[test]
fn an_agent_that_dies_amid_a_storm_ends_it_and_is_named() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let token = token(broker.folder.path(), "token", "a token that both know");
    let (stays, mut dies) = (Agent::start(&token), Agent::start(&token));
    let agents = format!("{},{}", stays.address, dies.address);
    let mut load = broker.command(&["storm", "--n", "20", "--rounds", "500", "--pause", "0.1"]);
    load.args(["--steady-pairs", "2", "--agents", &agents, "--token-file", &token]);
    let metrics = format!("127.0.0.1:{}", free_port());
    load.args(["--prometheus", &metrics]);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    // All have connected, with the pairs, and come back at least once.
    wait_for(&metrics, "connects_total", 50, Duration::from_mins(3));
    let output = end_without(&mut dies, load);
    let errors = text(&output.stderr);
    let named = format!("error: agent {} was lost: connection lost", dies.address);
    assert_eq!(errors.matches(&named).count(), 1, "{errors}");
    let report = broker.report();
    assert_eq!(report["interrupted"], true, "{report}");
    // Of the one that is left, and of both before that.
    assert!(report["rounds"][1]["back"]["count"].as_u64().is_some_and(|count| count >= 10), "{report}");
    assert!(report["rounds"].as_array().is_some_and(|rounds| rounds.len() < 400), "{report}");
    assert!(report["steady"]["delivered"].as_u64().is_some_and(|count| count > 0), "{report}");
    // Of the second in which it died its latencies are not known.
    assert!(report["latencies"]["connect"]["count"].as_u64().is_some_and(|count| count >= 24), "{report}");
}

#[test]
fn an_inbox_is_filled_and_drained_by_several_processes() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let inbox = ["inbox", "--subs", "9", "--messages", "40", "--max-loss", "0", "--processes", "2"];
    let (output, report) = broker.load(&inbox);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["load_tester"]["processes"], 2);
    for (figure, expected) in [
        ("sent", 360),
        ("accepted", 360),
        ("expected", 360),
        ("delivered", 360),
        ("lost", 0),
        ("duplicates", 0),
        ("reordered", 0),
        ("foreign", 0),
        ("sessions_present", 9),
    ] {
        assert_eq!(report[figure], expected, "{figure}: {report}");
    }
}

#[test]
fn connections_come_and_go_from_several_processes() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let (output, report) = broker.load(&["churn", "--rate", "50", "--seconds", "2", "--processes", "3"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["load_tester"]["processes"], 3);
    for figure in ["acknowledged", "delivery", "unsuback", "whole"] {
        assert_eq!(report[figure]["count"], 100, "{figure}: {report}");
    }
    assert_eq!((&report["cycles"], &report["lost"]), (&100.into(), &0.into()), "{report}");
    assert_eq!(report["latencies"]["connect"], report["connecting"]["total"]);
    // The last is due 99 fiftieths of a second after the first, whichever process it is in.
    let seconds = report["connecting"]["seconds"].as_f64();
    assert!(seconds.is_some_and(|seconds| seconds > 1.9), "{report}");
}

#[test]
fn a_soak_holds_its_idle_sessions_in_the_processes_that_carry_the_load() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let soak = ["soak", "--pairs", "4", "--rate", "100", "--idle", "11", "--seconds", "5", "--interval", "2"];
    let (output, report) = broker.load(&[&soak[..], &["--processes", "2", "--max-loss", "0"]].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["load_tester"]["processes"], 2);
    assert_eq!(report["intervals"][0]["connections"], 19, "{report}");
    assert_eq!(report["delivered"], report["accepted"], "{report}");
    assert!(report["delivered"].as_u64().is_some_and(|delivered| delivered > 100), "{report}");
    assert_eq!(report["latencies"]["connect"]["count"], 19, "{report}");
}

#[test]
fn the_cases_of_the_suite_are_spread_over_each_transport() {
    let plain = free_port();
    let Some(broker) = Broker::start(&format!("allow_anonymous true\nlistener {plain} 127.0.0.1")) else {
        return;
    };
    let (ca, json) = (broker.folder.path().join("ca.pem"), broker.folder.path().join("suite.json"));
    let output = loadtest()
        .args(["suite", "--scale", "0.002", "--seconds", "1", "--connect-rate", "500", "--max-loss", "0"])
        .args(["--plain", "--addr", &format!("127.0.0.1:{plain}"), "--tls-addr", &broker.address()])
        .args(["--case", "conn-tcp-10K-100,fanout-5-1000-5-250K,p2p-1K-1K-1K-1K,sharedsub-1K-5-1K-1K"])
        .args(["--processes", "2"])
        .arg("--ca")
        .arg(&ca)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("run");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(json).expect("a report")).expect("JSON");
    assert_eq!(report["load_tester"]["processes"], 2);
    let cases = report["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 8, "{report}");
    for (case, transport) in cases.iter().zip(["plain TCP"; 4].iter().chain(&["TLS"; 4])) {
        assert_eq!(case["succeeded"], true, "{report}");
        assert!(case["transport"].as_str().is_some_and(|text| text.starts_with(transport)), "{report}");
    }
    // The agents take the same way as the one that asks whether it can be taken.
    assert_eq!(report["connecting"]["tls"]["count"], 20 + 7 + 4 + 4, "{report}");
    for (case, clients) in [(0, 20), (1, 7), (2, 4), (3, 4), (4, 20), (5, 7), (6, 4), (7, 4)] {
        assert_eq!(cases[case]["connected"], clients, "{report}");
    }
    for case in [1, 5] {
        // Two subscribers to 250 messages, if the machine is not too busy to send all of them.
        let expected = cases[case]["messages"]["expected"].as_u64().expect("a number");
        assert!((2..=500).contains(&expected) && expected.is_multiple_of(2), "{report}");
    }
}

#[test]
fn what_processes_cannot_know_of_each_other_is_refused() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let closed_loop: &[&str] = &["pubsub", "--subs", "2", "--rate", "0", "--qos", "0"];
    for (args, said) in [
        (closed_loop, "take a multiple of 2 topics"),
        (
            &["pubsub", "--share", "workers", "--rate", "20000", "--seconds", "86400"],
            "at most 1073741824 messages",
        ),
        (&["pubsub", "--share", "workers", "--rate", "0", "--seconds", "3601"], "at most 3600 s"),
    ] {
        let output = broker.command(args).args(["--processes", "2"]).output().expect("run");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{said}: {output:?}");
    }
}

/// Every message came once, and what was recorded by the second in each process adds up to the whole.
fn assert_sums(report: &Value) {
    // A machine that is busy with other things may not send all that is due.
    let sent = report["sent"].as_u64().expect("a number");
    assert!((1..=600).contains(&sent), "{report}");
    for (figure, expected) in
        [("accepted", sent), ("expected", 3 * sent), ("delivered", 3 * sent), ("lost", 0), ("duplicates", 0)]
    {
        assert_eq!(report[figure], expected, "{figure}: {report}");
    }
    assert_eq!(report["delivery"]["count"], 3 * sent);
    assert_eq!(report["connecting"]["connected"], 15);
    assert_eq!(report["latencies"]["delivery"], report["delivery"]);
    assert_eq!(report["latencies"]["acknowledged"], report["acknowledged"]);
    assert_eq!(report["foreign"], 0);
}

/// So far, as the load tester says.
/// Until a counter of the run under way says `at_least`.
fn wait_for(metrics: &str, counter: &str, at_least: u64, patience: Duration) {
    let since = Instant::now();
    while figure(metrics, counter).is_none_or(|count| count < at_least) {
        assert!(since.elapsed() < patience, "{counter} stays below {at_least}");
        sleep(Duration::from_millis(100));
    }
}

/// The run ends, and fails, soon after the agent has been killed.
fn end_without(agent: &mut Agent, load: Child) -> Output {
    agent.process.kill().expect("killed");
    let since = Instant::now();
    let output = load.wait_with_output().expect("ended");
    assert!(since.elapsed() < Duration::from_secs(40), "it goes on without its agent");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    output
}

fn figure(metrics: &str, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(metrics).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let prefix = format!("sotto_loadtest_{name} ");
    let count = answer.lines().find_map(|line| line.strip_prefix(&prefix))?;
    count.parse().ok()
}

fn token(folder: &Path, name: &str, token: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, token).expect("written");
    path.to_str().expect("text").to_owned()
}

struct Agent {
    process: Child,
    address: String,
}

impl Agent {
    fn start(token: &str) -> Self {
        Self::start_with(token, &[])
    }

    fn start_with(token: &str, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut process = loadtest()
            .args(["agent", "--listen", &address, "--token-file", token])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("an agent");
        // It says so when it listens; a connection to find out would be a stranger's.
        let mut said = [0; 8];
        process.stderr.as_mut().expect("piped").read_exact(&mut said).expect("a word");
        Self { process, address }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
