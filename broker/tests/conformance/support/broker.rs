//! The broker as a process, with an open tenant and MQTT without TLS.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Serves until the tests' process ends, which closes the pipe that `cat` reads.
const UNTIL_THE_PIPE_CLOSES: &str = r#"
"$1" serve --json --lab --plain 127.0.0.1:0 --mqtts 127.0.0.1:0 --wss 127.0.0.1:0 \
    --private 127.0.0.1:0 --data "$2/data" &
broker=$!
cat
kill "$broker"
wait "$broker"
rm -rf "$2"
"#;

/// The one broker that most tests share; their topics and Client Identifiers are their own.
pub(crate) fn address() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let folder = folder().keep();
        let child = Command::new("sh")
            .args(["-c", UNTIL_THE_PIPE_CLOSES, "sh", env!("CARGO_BIN_EXE_sotto")])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start sh");
        let mut child = child;
        let address = announced(&mut child);
        // The pipe stays open for as long as this process lives.
        std::mem::forget(child);
        address
    })
}

/// A broker of a test's own, to be stopped and started again; killed when dropped.
pub(crate) struct Broker {
    folder: TempDir,
    config: String,
    running: Option<(Child, SocketAddr)>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::configured("")
    }

    pub(crate) fn configured(config: &str) -> Self {
        let mut broker = Self { folder: folder(), config: config.to_owned(), running: None };
        broker.run();
        broker
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").1
    }

    /// SIGTERM, then a new process on the same data.
    pub(crate) fn restart(&mut self) {
        let (mut child, _) = self.running.take().expect("it runs");
        let ended = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(ended.expect("run kill").success());
        child.wait().expect("wait for the broker");
        self.run();
    }

    /// SIGKILL, then a new process on the same data.
    pub(crate) fn crash_and_restart(&mut self) {
        let (mut child, _) = self.running.take().expect("it runs");
        child.kill().expect("kill the broker");
        child.wait().expect("wait for the broker");
        self.run();
    }

    fn run(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
        command.args(["serve", "--json", "--lab", "--plain", "127.0.0.1:0", "--mqtts", "127.0.0.1:0"]);
        command.args(["--wss", "127.0.0.1:0", "--private", "127.0.0.1:0", "--data"]).arg(self.file("data"));
        if !self.config.is_empty() {
            std::fs::write(self.file("sotto.toml"), &self.config).expect("write the configuration");
            command.arg("--config").arg(self.file("sotto.toml"));
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("start sotto");
        let address = announced(&mut child);
        self.running = Some((child, address));
    }

    fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.running {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sotto-conformance-").tempdir().expect("make a folder")
}

/// Where it listens, from the line that it prints when it serves.
fn announced(child: &mut Child) -> SocketAddr {
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("read the broker's output");
    let started: serde_json::Value = serde_json::from_str(&line).expect("the broker serves");
    started["plain"].as_str().expect("MQTT without TLS").parse().expect("an address")
}
