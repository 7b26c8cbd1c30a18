//! What someone does who has just installed it: starts it, and copies what it prints.

use std::net::SocketAddr;

use crate::support::database::{Database, Kind};
use crate::support::metrics::{Metrics, get};
use crate::support::mosquitto::{self, Subscriber};
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::process::Process;

on_both_stores!(the_printed_commands_work_as_they_stand);

async fn the_printed_commands_work_as_they_stand(kind: Kind) {
    if !mosquitto::is_installed() {
        return;
    }
    let folder = tempfile::tempdir().expect("make a folder");
    let database = Database::create(kind).await;
    let mut arguments =
        vec!["serve", "--mqtts", "127.0.0.1:0", "--wss", "127.0.0.1:0", "--private", "127.0.0.1:0"];
    if let Some(url) = database.url() {
        arguments.extend(["--database", url]);
    }
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let broker = Process::start(&arguments, folder.path(), "-m 'hello, bob'").await;
    let printed = broker.stdout.text();
    let mut bob = Subscriber::shell(&command(&printed, "mosquitto_sub"), folder.path());
    let private = private_address(&printed);
    until("bob has subscribed", async || {
        Metrics::of(get(private, "/metrics").await.1).count("sotto_subscriptions") == 1
    })
    .await;
    let alice = mosquitto::run(&command(&printed, "mosquitto_pub"), folder.path()).await;
    assert!(alice.success());
    assert_eq!(bob.line().await, "hello, bob");
    bob.kill().await;
    assert_eq!(broker.terminate().await.code(), Some(0));
}

/// A printed command, its continued lines together.
fn command(printed: &str, program: &str) -> String {
    let mut lines = printed.lines().skip_while(|line| !line.trim_start().starts_with(program));
    let mut command = String::new();
    for line in &mut lines {
        command.push_str(line);
        command.push('\n');
        if !line.ends_with('\\') {
            break;
        }
    }
    assert!(!command.is_empty(), "no {program} in {printed}");
    command.trim().to_owned()
}

fn private_address(printed: &str) -> SocketAddr {
    let at = printed.split_once("http://").expect("the private address").1;
    at.split_once('/').expect("paths behind it").0.parse().expect("an address")
}
