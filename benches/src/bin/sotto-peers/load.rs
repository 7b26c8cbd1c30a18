//! The load tester, run once.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::limits::{KEEP_ALIVE_SECONDS, LOAD_POLL};
use crate::scenario::Shape;

/// The one that every broker speaks here, whichever it would choose.
const SUITE: &str = "TLS13_AES_128_GCM_SHA256";

pub(crate) struct Load<'a> {
    pub(crate) program: &'a Path,
    pub(crate) authority: PathBuf,
    /// Of the broker.
    pub(crate) process: u32,
    pub(crate) tls: SocketAddr,
    pub(crate) plain: SocketAddr,
    /// Whether sessions outlive their connections.
    pub(crate) stored: bool,
}

impl Load<'_> {
    /// What the load tester reports; an error is one line, its own where it has one.
    pub(crate) fn run(&self, shape: Shape) -> anyhow::Result<Value> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let report = folder.path().join("report.json");
        let errors = folder.path().join("errors");
        let mut command = Command::new(self.program);
        command.args(shape.arguments()).args(["--protocol", "3"]);
        command.args(["--keep-alive", &KEEP_ALIVE_SECONDS.to_string()]);
        command.args(["--clean", if self.stored { "false" } else { "true" }]);
        if shape.is_plain() {
            command.args(["--plain", "--addr", &self.plain.to_string()]);
        } else {
            command.args(["--addr", &self.tls.to_string(), "--ca"]).arg(&self.authority);
            command.args(["--tls-version", "1.3", "--ciphers", SUITE]);
        }
        command.args(["--server-pid", &self.process.to_string(), "--json"]).arg(&report);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&errors).context("make a file")?);
        let process = command.spawn().context("start the load tester")?;
        let succeeded = Ended { process, _folder: &folder }.wait(shape)?;
        if !succeeded {
            let errors = fs::read_to_string(&errors).unwrap_or_default();
            let last = errors.lines().rev().find_map(|line| line.strip_prefix("error: "));
            bail!("{}", last.unwrap_or("load tester failed"));
        }
        let report = fs::read(&report).context("read the load tester's report")?;
        serde_json::from_slice(&report).context("read the load tester's report")
    }
}

/// The load tester's process, ended when dropped.
struct Ended<'a> {
    process: Child,
    _folder: &'a TempDir,
}

impl Ended<'_> {
    /// Whether it succeeded; it is given up when it takes too long.
    fn wait(mut self, shape: Shape) -> anyhow::Result<bool> {
        let (since, longest) = (Instant::now(), shape.longest());
        loop {
            if let Some(status) = self.process.try_wait().context("look at the load tester")? {
                return Ok(status.success());
            }
            if since.elapsed() > longest {
                bail!("load tester did not end within {} s", longest.as_secs());
            }
            sleep(LOAD_POLL);
        }
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        // It has ended already, unless it was given up.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
