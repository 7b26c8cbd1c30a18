//! Eclipse Mosquitto's command line clients.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::clients::absent;
use super::house::House;
use super::patience::soon;

/// `mosquitto_sub`, alone or in a shell; killed when dropped.
pub(crate) struct Subscriber {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

pub(crate) fn is_installed() -> bool {
    let installed = |program: &str| {
        let status = std::process::Command::new(program)
            .arg("--help")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok()
    };
    let both = installed("mosquitto_pub") && installed("mosquitto_sub");
    if !both {
        absent("mosquitto_pub and mosquitto_sub");
    }
    both
}

impl Subscriber {
    pub(crate) fn start(house: &House, user: &str, arguments: &[&str]) -> Self {
        let mut command = client("mosquitto_sub", house, user);
        command.args(arguments);
        Self::spawn(command)
    }

    /// A line of shell, run in `folder`.
    pub(crate) fn shell(line: &str, folder: &Path) -> Self {
        let mut command = Command::new("sh");
        // The shell gives way to the client, so that killing the one kills the other.
        command.arg("-c").arg(format!("exec {line}")).current_dir(folder);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start mosquitto_sub");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The next line that it prints: a payload.
    pub(crate) async fn line(&mut self) -> String {
        let line = soon("a line of mosquitto_sub", self.lines.next_line()).await.expect("read its output");
        line.expect("mosquitto_sub goes on")
    }

    /// For one that ends by itself: all that it prints.
    pub(crate) async fn rest(mut self) -> String {
        let mut rest = String::new();
        let mut output = self.lines.into_inner();
        soon("the end of mosquitto_sub", output.read_to_string(&mut rest)).await.expect("read its output");
        let status = soon("the end of mosquitto_sub", self.child.wait()).await.expect("wait for it");
        assert!(status.success(), "mosquitto_sub: {status}");
        rest
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("kill mosquitto_sub");
    }
}

/// Publishes with QoS 1 by `mosquitto_pub`.
pub(crate) async fn publish(house: &House, user: &str, topic: &str, payload: &str) {
    publish_with(house, user, &["-q", "1", "-t", topic, "-m", payload]).await;
}

pub(crate) async fn publish_with(house: &House, user: &str, arguments: &[&str]) {
    let mut command = client("mosquitto_pub", house, user);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let status = soon("mosquitto_pub", command.status()).await.expect("run mosquitto_pub");
    assert!(status.success(), "mosquitto_pub: {status}");
}

/// A line of shell, run in `folder` to its end.
pub(crate) async fn run(line: &str, folder: &Path) -> ExitStatus {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    soon("a command", command.status()).await.expect("run a shell")
}

fn client(program: &str, house: &House, user: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-V", "5", "-h", "localhost", "-p", &house.mqtts().port().to_string()])
        .arg("--cafile")
        .arg(house.ca_file())
        .args(["-i", &format!("{user}/phone"), "-u", &format!("{user}@demo")])
        .args(["-P", &house.password(user)]);
    command
}
