//! One run in several processes, here and by agents, with a real broker. Where mosquitto is not installed it is
//! skipped, with a word on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for brokers and agents to start")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
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
    let since = Instant::now();
    while delivered(&metrics).is_none_or(|delivered| delivered < 100) {
        assert!(since.elapsed() < Duration::from_mins(1), "nothing is delivered");
        sleep(Duration::from_millis(100));
    }
    dies.process.kill().expect("killed");
    let since = Instant::now();
    let output = load.wait_with_output().expect("ended");
    assert!(since.elapsed() < Duration::from_secs(40), "it goes on without its agent");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
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
fn what_processes_cannot_know_of_each_other_is_refused() {
    let Some(broker) = Broker::start("allow_anonymous true") else { return };
    let closed_loop: &[&str] = &["pubsub", "--subs", "2", "--rate", "0", "--qos", "0"];
    for (args, said) in [
        (&["pubsub", "--share", "workers"][..], "--share needs one process"),
        (closed_loop, "take a multiple of 2 topics"),
        (&["churn"], "this scenario runs in one process"),
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
fn delivered(metrics: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(metrics).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let count = answer.lines().find_map(|line| line.strip_prefix("sotto_loadtest_delivered_total "))?;
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
        let address = format!("127.0.0.1:{}", free_port());
        let mut process = loadtest()
            .args(["agent", "--listen", &address, "--token-file", token])
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
