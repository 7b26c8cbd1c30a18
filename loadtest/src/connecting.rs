//! The first phase of every scenario: all clients connect.

use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::crew::{Crew, Watched};
use crate::limits::SETTLE;
use crate::progress::Progress;
use crate::report::ServerConnectReport;
use crate::server_process::ServerSample;
use crate::setup::Setup;

pub(crate) struct Connecting {
    pub(crate) watched: Watched,
    /// `None` without a process to look at, or when nothing connected.
    pub(crate) server: Option<ServerConnectReport>,
}

/// Until everyone has connected or failed. Gives up when nobody has got through for twice the time that each
/// has: then nobody will.
pub(crate) async fn connect_all<T: DeserializeOwned + Send + 'static>(
    crew: &Crew<T>,
    setup: &Setup,
    clients: u64,
    before: Option<ServerSample>,
) -> Connecting {
    let patience = setup.connector.timeout * 2;
    let mut progress = Progress::begin("connecting", clients).with_rates(&setup.recorder);
    let mut connected = 0;
    let mut connected_at = Instant::now();
    let watched = crew
        .watch(None, |totals| {
            if totals.connected > connected {
                connected = totals.connected;
                connected_at = Instant::now();
            }
            progress.show(connected, || format!("{} failed", totals.connect_failed));
            totals.connected + totals.connect_failed >= clients || connected_at.elapsed() > patience
        })
        .await;
    progress.end();
    let after = setup.sample_server();
    if watched == Watched::Done && before.is_some() {
        tokio::time::sleep(SETTLE).await;
    }
    let settled = setup.sample_server();
    let server = match (before, after, settled) {
        (Some(before), Some(after), Some(settled)) if connected > 0 => {
            Some(cost(before, after, settled, connected))
        }
        _ => None,
    };
    Connecting { watched, server }
}

#[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
fn cost(
    before: ServerSample,
    after: ServerSample,
    settled: ServerSample,
    connected: u64,
) -> ServerConnectReport {
    ServerConnectReport {
        rss_before_bytes: before.rss_bytes,
        rss_after_bytes: settled.rss_bytes,
        bytes_per_connection: (settled.rss_bytes as f64 - before.rss_bytes as f64) / connected as f64,
        cpu_per_connect_us: after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / connected as f64,
    }
}
