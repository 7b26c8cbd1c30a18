//! The load tester against Sotto itself: what only Sotto has. Where the binary `sotto` is not built, they are
//! skipped, with a word on standard error.

#![expect(clippy::disallowed_methods, reason = "it waits for a broker to start")]
#![expect(clippy::disallowed_macros, reason = "it says that it has been skipped")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{free_port, loadtest, text};

const START_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn every_acknowledged_message_is_found_in_the_database_and_a_missing_one_is_missed() {
    let Some(sotto) = Sotto::start() else { return };
    let url = format!("sqlite:{}", sotto.database().display());
    let run = ["pubsub", "--pubs", "4", "--subs", "4", "--topics", "4", "--rate", "500", "--seconds", "2"];
    let (output, report) = sotto.load(&[&run[..], &["--verify-database", &url]].concat());
    assert!(output.status.success(), "{output:?}");
    assert!(report["accepted"].as_u64().is_some_and(|accepted| accepted > 900), "{report}");
    assert_eq!(report["stored"]["acknowledged"], report["accepted"], "{report}");
    assert_eq!(report["stored"]["stored"], report["accepted"], "{report}");
    assert_eq!(report["stored"]["missing"], 0, "{report}");
    // Against the database of another broker everything is missing.
    let Some(other) = Sotto::start() else { return };
    let url = format!("sqlite:{}", other.database().display());
    let (output, report) = sotto.load(&[&run[..], &["--verify-database", &url]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(report["stored"]["missing"], report["accepted"], "{report}");
}

#[test]
fn what_cannot_be_verified_is_said_before_the_run() {
    let Some(sotto) = Sotto::start() else { return };
    let refused = |more: &[&str]| {
        let (output, _) = sotto.load(&[&["pubsub", "--seconds", "1", "--verify-database"], more].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr)
    };
    let url = format!("sqlite:{}", sotto.database().display());
    assert!(refused(&[&url, "--qos", "0"]).contains("QoS 1 or 2"));
    assert!(refused(&[&url, "--protocol", "3"]).contains("MQTT 5"));
    assert!(refused(&["sqlite:/nonexistent.db"]).contains("database cannot be opened"));
}

#[test]
fn a_web_socket_carries_messages_of_every_size_both_ways() {
    let Some(sotto) = Sotto::start() else { return };
    let wss = format!("127.0.0.1:{}", sotto.wss);
    for size in ["16", "300", "70000"] {
        let (output, report) = sotto.load(&[
            "pubsub",
            "--ws",
            "--addr",
            &wss,
            "--pubs",
            "3",
            "--subs",
            "3",
            "--topics",
            "3",
            "--rate",
            "60",
            "--seconds",
            "1",
            "--size",
            size,
            "--max-loss",
            "0",
        ]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(report["delivered"], 60, "{report}");
        assert_eq!(report["connecting"]["web_socket"]["count"], 6, "{report}");
        let transport = report["target"]["transport"].as_str();
        assert!(transport.is_some_and(|text| text.starts_with("WebSocket over TLS")), "{report}");
    }
    let (output, _) = sotto.load(&["hold", "--ws", "--ws-path", "/elsewhere", "--addr", &wss]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("WebSocket was not opened: HTTP status 404"), "{output:?}");
}

#[test]
fn a_wrong_password_is_told_with_its_reason() {
    let Some(sotto) = Sotto::start() else { return };
    let password = sotto.folder.path().join("passwords");
    fs::write(&password, "wrong\n").expect("written");
    let password = password.to_str().expect("UTF-8");
    let (output, _) = sotto.load(&[
        "hold",
        "--n",
        "3",
        "--username",
        "alice@demo",
        "--client-id",
        "alice/%i",
        "--password-file",
        password,
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("broker refused CONNECT: bad_user_name_or_password (0x86)"), "{errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
}

struct Sotto {
    process: Child,
    mqtts: u16,
    wss: u16,
    folder: tempfile::TempDir,
}

impl Sotto {
    /// With a tenant whose clients need no names. `None`, and a word about it, where it is not built.
    fn start() -> Option<Self> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_sotto-loadtest")).with_file_name("sotto");
        if !program.is_file() {
            eprintln!("skipped: {} is not built", program.display());
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (mqtts, wss) = (free_port(), free_port());
        let process = Command::new(program)
            .args(["serve", "--lab", "--private", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .args(["--mqtts", &format!("127.0.0.1:{mqtts}"), "--wss", &format!("127.0.0.1:{wss}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sotto starts");
        let sotto = Self { process, mqtts, wss, folder };
        let since = Instant::now();
        // It may listen before its store is open.
        while !sotto.load(&["hold", "--n", "1", "--hold", "0"]).0.status.success() {
            assert!(since.elapsed() < START_TIMEOUT, "sotto takes no clients");
            sleep(Duration::from_millis(50));
        }
        Some(sotto)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn database(&self) -> PathBuf {
        self.data().join("sotto.db")
    }

    /// The report is null where there is none.
    fn load(&self, args: &[&str]) -> (Output, Value) {
        let report = self.folder.path().join("report.json");
        let mut command = loadtest();
        command.args(args).arg("--ca").arg(self.data().join("ca.crt")).arg("--json").arg(&report);
        if !args.contains(&"--addr") {
            command.args(["--addr", &format!("127.0.0.1:{}", self.mqtts)]);
        }
        let output = command.output().expect("run");
        let report = fs::read(report).ok().and_then(|json| serde_json::from_slice(&json).ok());
        (output, report.unwrap_or_default())
    }
}

impl Drop for Sotto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
