//! The scenario `churn`: connections come and go; what does a whole one cost, and does the broker forget it?

use std::io;
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::churner::{ChurnPlan, ChurnTally};
use crate::crew::{Crew, Watched};
use crate::demand::Demand;
use crate::figures::{mebibytes, per_second};
use crate::finished::Finished;
use crate::latencies::LatencySummary;
use crate::limits::{CLIENTS_MAX, SETTLE, TIME_WAIT};
use crate::objectives::{Limits, Measured};
use crate::progress::Progress;
use crate::report::{ConnectReport, Report, Rows, Verdict};
use crate::scenario_args::ChurnArgs;
use crate::server_process::ServerSample;
use crate::setup::Setup;
use crate::table::Table;

#[derive(Debug, Serialize)]
struct ChurnOutcome {
    rate_wanted: f64,
    cycles: u64,
    cycles_per_second: f64,
    qos: u8,
    /// Accepted by the broker, and not received by who published it.
    lost: u64,
    /// From PUBLISH.
    acknowledged: LatencySummary,
    delivery: LatencySummary,
    unsuback: LatencySummary,
    /// From when the connection was due to UNSUBACK.
    whole: LatencySummary,
    server: Option<ServerChurn>,
}

/// What a cycle costs the broker.
#[derive(Clone, Copy, Debug, Serialize)]
struct ServerChurn {
    cpu_per_cycle_us: f64,
    rss_before_bytes: u64,
    /// With a quarter of the cycles done: pools and caches are filled.
    rss_warm_bytes: u64,
    /// With all connections gone.
    rss_after_bytes: u64,
    /// Kept of each cycle after the first quarter.
    kept_per_cycle_bytes: f64,
}

pub(crate) fn run(args: &ChurnArgs) -> anyhow::Result<Verdict> {
    if args.rate == 0.0 {
        bail!("--rate 0 would have all connections come at once: that is `storm`");
    }
    let cycles = cycles(args);
    if i64::from(cycles) >= CLIENTS_MAX {
        bail!("{} connections/s for {} s are more than {CLIENTS_MAX}", args.rate, args.seconds);
    }
    let demand = Demand {
        connections: cycles.min(args.common.connect_in_flight).into(),
        ports: ports(args, cycles),
        numbers: cycles.into(),
    };
    let setup = Setup::prepare(&args.common, demand)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.context("start runtime")?.block_on(churn(args, &setup, cycles))?;
    report.publish(&args.common.output).context("write report")
}

async fn churn(args: &ChurnArgs, setup: &Setup, cycles: u32) -> anyhow::Result<Report<ChurnOutcome>> {
    setup.listen_for_interrupt();
    let target = setup.probe().await?;
    let before = setup.sample_server();
    let plan = ChurnPlan { topic: args.topic.clone(), qos: args.qos, size_bytes: args.size as usize };
    let at_rate = setup.with_connects(args.rate, 0);
    let crew = Crew::start(&at_rate, 0..cycles, plan)?;
    let (mut progress, begun) =
        (Progress::begin("churning", cycles.into()).with_rates(&setup.recorder), Instant::now());
    let mut warm = None;
    let watched = crew
        .watch(None, |totals| {
            let over = totals.ended + totals.connect_failed;
            progress.show(over, || format!("· {} failed", totals.connect_failed));
            if warm.is_none() && over >= u64::from(cycles) / 4 {
                warm = setup.sample_server().map(|sample| (sample, totals.ended));
            }
            over >= cycles.into()
        })
        .await;
    progress.end();
    let seconds = begun.elapsed().as_secs_f64();
    let after = setup.sample_server();
    let start = crew.start;
    let Finished { connects, outcomes, totals, .. } = crew.finish()?;
    if before.is_some() {
        tokio::time::sleep(SETTLE).await;
    }
    let mut tally = ChurnTally::new();
    for thread in &outcomes {
        tally.add(thread);
    }
    let whole = tally.whole.summary();
    let server = match (before, warm, after, setup.sample_server()) {
        (Some(before), Some(warm), Some(after), Some(settled)) => {
            Some(ServerChurn::new(before, warm, after, settled, totals.ended))
        }
        _ => None,
    };
    let outcome = ChurnOutcome {
        rate_wanted: args.rate,
        cycles: whole.count,
        cycles_per_second: per_second(whole.count, seconds),
        qos: args.qos as u8,
        lost: totals.accepted.saturating_sub(totals.delivered),
        acknowledged: tally.acknowledged.summary(),
        delivery: tally.delivered.summary(),
        unsuback: tally.unsuback.summary(),
        whole,
        server,
    };
    let connect_seconds = connects.last.since(start).as_secs_f64();
    Ok(Report {
        scenario: "churn",
        run: setup.connector.run.to_string(),
        recorded: setup.recorded(),
        target,
        objectives: Limits::of(&args.common.objectives).judge(Measured {
            latency_of: "a whole cycle",
            latency: whole,
            lost_of: "cycles that failed",
            lost: u64::from(cycles) - whole.count,
            rate_of: "cycles",
            per_second: outcome.cycles_per_second,
            duplicates: None,
            bytes_per_connection: server.map(|server| server.kept_per_cycle_bytes),
        }),
        outcome,
        connecting: ConnectReport::new(cycles.into(), &connects, connect_seconds, None),
        broken: connects.broken,
        interrupted: watched == Watched::Interrupted,
    })
}

/// Those of the connections that there are, or were within the time that a port rests.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the largest number, and not negative"
)]
fn ports(args: &ChurnArgs, cycles: u32) -> u64 {
    (args.rate * TIME_WAIT.as_secs_f64()).min(f64::from(cycles)).ceil() as u64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the largest number, and not negative"
)]
fn cycles(args: &ChurnArgs) -> u32 {
    (args.rate * args.seconds as f64).round().clamp(1.0, f64::from(u32::MAX)) as u32
}

impl ServerChurn {
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
    fn new(
        before: ServerSample,
        (warm, cycles_warm): (ServerSample, u64),
        after: ServerSample,
        settled: ServerSample,
        cycles: u64,
    ) -> Self {
        let kept = settled.rss_bytes as f64 - warm.rss_bytes as f64;
        Self {
            cpu_per_cycle_us: after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / cycles.max(1) as f64,
            rss_before_bytes: before.rss_bytes,
            rss_warm_bytes: warm.rss_bytes,
            rss_after_bytes: settled.rss_bytes,
            kept_per_cycle_bytes: kept / cycles.saturating_sub(cycles_warm).max(1) as f64,
        }
    }
}

impl Rows for ChurnOutcome {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        let Self { cycles, cycles_per_second, rate_wanted, qos, lost, .. } = self;
        table.row(
            "cycles",
            &format!("{cycles}; {cycles_per_second:.0}/s ({rate_wanted}/s wanted), QoS {qos}"),
        )?;
        table.row("lost", &lost.to_string())?;
        table.latencies(&[
            ("PUBACK", self.acknowledged),
            ("delivery", self.delivery),
            ("UNSUBACK", self.unsuback),
            ("whole cycle, since due", self.whole),
        ])?;
        if let Some(server) = self.server {
            table.row("server CPU per cycle", &format!("{:.1} µs", server.cpu_per_cycle_us))?;
            let [before, warm, after] =
                [server.rss_before_bytes, server.rss_warm_bytes, server.rss_after_bytes].map(mebibytes);
            table.row(
                "server memory",
                &format!(
                    "{before:.1} MiB before, {warm:.1} at a quarter, {after:.1} after: {:.0} bytes kept a cycle",
                    server.kept_per_cycle_bytes
                ),
            )?;
        }
        Ok(())
    }
}
