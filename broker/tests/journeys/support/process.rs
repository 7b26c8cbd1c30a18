//! The broker as a process.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::patience::{soon, until};

/// All that a process wrote, on standard output or standard error.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

/// A broker; killed when dropped.
pub(crate) struct Process {
    child: Child,
    readers: [JoinHandle<()>; 2],
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

pub(crate) fn sotto() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Process {
    /// Returns once it has printed `sign`, which it does when it serves.
    pub(crate) async fn start(arguments: &[String], folder: &Path, sign: &str) -> Self {
        Self::start_in(&[], arguments, folder, sign).await
    }

    /// The same, with more in its environment.
    pub(crate) async fn start_in(
        environment: &[(String, String)],
        arguments: &[String],
        folder: &Path,
        sign: &str,
    ) -> Self {
        let mut process = Self::spawn_in(environment, arguments, folder);
        until("the broker serves", async || {
            let ended = process.child.try_wait().expect("look at the broker");
            assert!(ended.is_none(), "the broker did not start: {}", process.stderr.text());
            process.stdout.text().contains(sign)
        })
        .await;
        process
    }

    /// Whether or not it comes to serve.
    pub(crate) fn spawn(arguments: &[String], folder: &Path) -> Self {
        Self::spawn_in(&[], arguments, folder)
    }

    fn spawn_in(environment: &[(String, String)], arguments: &[String], folder: &Path) -> Self {
        let mut child = sotto()
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start sotto");
        let (stdout, stderr) = (Output::default(), Output::default());
        let readers = [
            tokio::spawn(collect(child.stdout.take().expect("piped"), stdout.clone())),
            tokio::spawn(collect(child.stderr.take().expect("piped"), stderr.clone())),
        ];
        Self { child, readers, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("kill the broker");
        self.all_read().await;
    }

    /// `name` as `kill` knows it: `-TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args([name, &id]).status().await.expect("run kill");
        assert!(status.success());
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(self) -> ExitStatus {
        self.signal("-TERM").await;
        self.ended().await
    }

    pub(crate) async fn ended(mut self) -> ExitStatus {
        let status = soon("the broker to end", self.child.wait()).await.expect("wait for the broker");
        self.all_read().await;
        status
    }

    async fn all_read(&mut self) {
        for reader in &mut self.readers {
            soon("the end of the broker's output", reader).await.expect("read the output");
        }
    }
}

async fn collect(mut from: impl AsyncRead + Unpin, to: Output) {
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut chunk).await {
        to.0.lock().extend_from_slice(&chunk[..len]);
    }
}
