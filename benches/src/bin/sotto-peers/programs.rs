//! Where the programs are, and of which version.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use sotto_postgres::testing::Server;

use crate::args::{Args, absolute};
use crate::broker::Broker;

pub(crate) struct Programs {
    pub(crate) sotto: PathBuf,
    pub(crate) loadtest: PathBuf,
    peers_dir: PathBuf,
    /// Not here, each with how to get it.
    pub(crate) skipped: Vec<String>,
}

/// A way to a broker that is not here.
const BY_INSTALL: &str = "--install gets it";

impl Programs {
    pub(crate) fn find(args: &Args) -> anyhow::Result<Self> {
        let folder = if let Some(folder) = &args.bin_dir {
            absolute(folder.clone())
        } else {
            build_sotto()?;
            let own = env::current_exe().context("find this program")?;
            own.parent().context("find this program's folder")?.to_owned()
        };
        let [sotto, loadtest] = ["sotto", "sotto-loadtest"].map(|name| folder.join(name));
        for program in [&sotto, &loadtest] {
            let built = "cargo build --release -p sotto -p loadtest makes it";
            ensure!(program.is_file(), "{} is not there: {built}", program.display());
        }
        Ok(Self { sotto, loadtest, peers_dir: args.peers_dir(), skipped: Vec::new() })
    }

    /// Those that are here; says which are not.
    pub(crate) fn of(&mut self, brokers: &[Broker]) -> Vec<Broker> {
        let (found, missing): (Vec<_>, Vec<_>) = brokers
            .iter()
            .map(|broker| (*broker, self.of_broker(*broker)))
            .partition(|(_, found)| found.is_ok());
        for (broker, missing) in missing {
            let how = missing.err().unwrap_or_default();
            let skipped = format!("{} is not installed: {how}", broker.name());
            eprintln!("skipped: {skipped}");
            self.skipped.push(skipped);
        }
        found.into_iter().map(|(broker, _)| broker).collect()
    }

    /// The program of a broker, or how to get it.
    pub(crate) fn of_broker(&self, broker: Broker) -> Result<PathBuf, &'static str> {
        match broker {
            Broker::Sotto | Broker::SottoSqlite => Ok(self.sotto.clone()),
            Broker::SottoPostgres if Server::is_installed() => Ok(self.sotto.clone()),
            Broker::SottoPostgres => Err("apt-get install postgresql"),
            Broker::Mosquitto => on_path("mosquitto").ok_or("apt-get install mosquitto"),
            Broker::Rmqtt => self.installed("rmqtt-peer").ok_or(BY_INSTALL),
            Broker::Rumqttd => self.installed("rumqttd").or_else(|| on_path("rumqttd")).ok_or(BY_INSTALL),
            Broker::Aedes => {
                let is_installed = self.aedes_dir().join("node_modules/aedes").is_dir();
                on_path("node").filter(|_| is_installed).ok_or(BY_INSTALL)
            }
        }
    }

    pub(crate) fn aedes_dir(&self) -> PathBuf {
        self.peers_dir.join("aedes")
    }

    pub(crate) fn version(&self, broker: Broker) -> String {
        let program = self.of_broker(broker).unwrap_or_default();
        match broker {
            Broker::Sotto | Broker::SottoSqlite => sotto_version(&program),
            Broker::SottoPostgres => {
                let database = said(Command::new("psql").arg("--version")).unwrap_or_default();
                format!("{}, {database}", sotto_version(&program))
            }
            // It has no `--version`, and says it with its help.
            Broker::Mosquitto => said(Command::new(program).arg("-h")).unwrap_or_default(),
            Broker::Rmqtt | Broker::Rumqttd => {
                said(Command::new(program).arg("--version")).unwrap_or_default()
            }
            Broker::Aedes => {
                let manifest = fs::read(self.aedes_dir().join("node_modules/aedes/package.json"));
                let manifest: Value =
                    serde_json::from_slice(&manifest.unwrap_or_default()).unwrap_or_default();
                let node = said(Command::new(program).arg("--version")).unwrap_or_default();
                format!("aedes {}, node {node}", manifest["version"].as_str().unwrap_or("?"))
            }
        }
    }

    fn installed(&self, name: &str) -> Option<PathBuf> {
        Some(self.peers_dir.join("bin").join(name)).filter(|program| program.is_file())
    }
}

/// Under `cargo run`, so that what is measured is what is in the source tree. Otherwise it is taken as it is.
fn build_sotto() -> anyhow::Result<()> {
    let Some(cargo) = env::var_os("CARGO") else { return Ok(()) };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "sotto", "--package", "loadtest"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    ensure!(build.status().context("run cargo")?.success(), "Sotto does not build");
    Ok(())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian puts daemons where only root has its PATH.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn sotto_version(program: &Path) -> String {
    let version = said(Command::new(program).arg("--version")).unwrap_or_default();
    let folder = env!("CARGO_MANIFEST_DIR");
    let commit = said(Command::new("git").args(["-C", folder, "rev-parse", "--short", "HEAD"]));
    commit.map_or(version.clone(), |commit| format!("{version} ({commit})"))
}

/// The first line that a command prints.
pub(crate) fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
