//! Gets the peers that are no system packages, each from its own registry, into a folder of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Sources of what is wrapped here.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
const RUMQTTD: &str = "rumqttd@0.20.0";
const AEDES_FILES: [&str; 3] = ["package.json", "package-lock.json", "server.js"];

/// What is there already is left as it is.
pub(crate) fn install(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--root"]).arg(folder).arg("--target-dir").arg(folder.join("target"));
        cargo
    };
    // Without --locked: what its lock file names does not compile with a recent Rust.
    run("rumqttd", cargo().arg(RUMQTTD))?;
    run("rmqtt", cargo().args(["--locked", "--path"]).arg(format!("{PEERS}/rmqtt")))?;
    let aedes = folder.join("aedes");
    fs::create_dir_all(&aedes).with_context(|| format!("make {}", aedes.display()))?;
    for file in AEDES_FILES {
        fs::copy(format!("{PEERS}/aedes/{file}"), aedes.join(file))
            .with_context(|| format!("copy {file}"))?;
    }
    run(
        "aedes",
        Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&aedes),
    )
}

fn run(name: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("installing {name}");
    let status = command.status().with_context(|| format!("install {name}"))?;
    ensure!(status.success(), "{name} cannot be installed");
    Ok(())
}
