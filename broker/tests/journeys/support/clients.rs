//! Clients that others wrote, in other languages. `.ci/test` installs them.

#![expect(clippy::disallowed_macros, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use sotto_mqtt::packet::Version;
use tokio::process::Command;

use super::house::House;
use super::patience::soon;

/// What MQTT is spoken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tls,
    WebSocket,
}

/// What every script shows, in this order.
const SHOWN: [&str; 6] = ["qos 0", "qos 1", "qos 2", "retained", "will", "missed"];

/// Notes that a client is not installed, which is a failure where all were to be.
pub(crate) fn absent(client: &str) {
    assert!(std::env::var_os("SOTTO_TEST_CLIENTS").is_none(), "{client} is not installed");
    println!("SKIPPED: {client} is not installed; .ci/test installs it");
}

/// Where the scripts are, and what they need.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

pub(crate) fn python(script: &str) -> Option<Command> {
    let python = folder().join(".venv/bin/python");
    if !python.exists() {
        absent(script);
        return None;
    }
    let mut command = Command::new(python);
    command.arg(folder().join(script));
    Some(command)
}

pub(crate) fn node(script: &str) -> Option<Command> {
    if !folder().join("node_modules").exists() {
        absent(script);
        return None;
    }
    let mut command = Command::new("node");
    command.arg(folder().join(script));
    Some(command)
}

/// Runs a script to its end, which must show all.
pub(crate) async fn shows_all(mut command: Command, house: &House, version: Version, over: Over) {
    let (address, path) = match over {
        Over::Tls => (house.mqtts(), None),
        Over::WebSocket => (house.wss(), Some("/mqtt")),
    };
    let config = json!({
        "host": "localhost",
        "port": address.port(),
        "path": path,
        "ca": house.ca_file(),
        "version": match version { Version::V3 => 4, Version::V5 => 5 },
        "conversation": house.conversation(),
        "device": format!("{version:?}-{over:?}").to_lowercase(),
        "passwords": {
            "alice": house.password("alice"), "bob": house.password("bob"), "carol": house.password("carol"),
        },
    });
    command.arg(config.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = soon("a client's script", command.kill_on_drop(true).output()).await.expect("run a script");
    let (said, faults) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let shown: Vec<&str> = said.lines().collect();
    assert_eq!(shown, SHOWN, "{version:?} over {over:?}: {faults}");
    assert!(ended.status.success(), "{version:?} over {over:?}: {faults}");
}
