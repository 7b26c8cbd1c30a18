//! The drills that operators run, short ones: a database's disk is lost under load, and a broker serves again.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// One drill, everything included, on a busy machine.
const DRILL_MAX: Duration = Duration::from_mins(2);

async fn drill(script: &str, environment: &[(&str, &str)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the broker is in the workspace");
    let mut command = Command::new(root.join("deploy/drills").join(script));
    command.env("SOTTO", env!("CARGO_BIN_EXE_sotto")).env("SECONDS_OF_LOAD", "2");
    command.envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } =
        timeout(DRILL_MAX, command.output()).await.expect("the drill ends").expect("run the drill");
    let said = String::from_utf8(stdout).expect("UTF-8");
    assert!(status.success(), "{said}{}", String::from_utf8_lossy(&stderr));
    said
}

/// The number of acknowledged messages that were lost.
fn lost(said: &str) -> u32 {
    let line = said.lines().find_map(|line| line.strip_prefix("RPO")).expect("the drill says what was lost");
    line.split_whitespace().next().expect("a number").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_s_disk_is_lost_and_a_backup_serves() {
    let said = drill("sqlite.sh", &[]).await;
    // Those since the backup; the drill itself makes sure that no others are.
    assert!(lost(&said) > 0, "{said}");
    assert!(said.contains("the store is whole") && said.contains("RTO"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_s_disk_is_lost_and_nothing_that_was_acknowledged() {
    let said = drill("postgres.sh", &[("STREAM", "1")]).await;
    assert_eq!(lost(&said), 0, "{said}");
    assert_eq!(said.matches("the store is whole").count(), 2, "{said}");
}
