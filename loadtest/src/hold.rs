//! The scenario `hold`: sessions connect at their rate and stay; what does each cost?

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::args::HoldArgs;
use crate::connecting::connect_all;
use crate::crew::{Crew, Watched};
use crate::demand::Demand;
use crate::finished::Finished;
use crate::holder::Holding;
use crate::objectives::{Limits, Measured};
use crate::progress::Progress;
use crate::report::{ConnectReport, Report, Rows, Verdict};
use crate::setup::Setup;
use crate::subscription::Subscription;
use crate::table::Table;
use crate::worker::ConnectTally;

#[derive(Debug, Serialize)]
pub(crate) struct HoldOutcome {
    /// After the last had connected.
    held_seconds: f64,
    /// Of CPU, while nothing but PINGREQ happened.
    server_cpu_per_second_us: Option<f64>,
}

pub(crate) fn run(args: &HoldArgs) -> anyhow::Result<Verdict> {
    let setup = Setup::prepare(&args.common, Demand::of(args.n.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = async {
        setup.listen_for_interrupt();
        hold(args, &setup).await
    };
    let (report, _) = runtime.context("start runtime")?.block_on(run)?;
    report.publish(&args.common.output).context("write report")
}

/// With what connecting has come to, in full.
pub(crate) async fn hold(
    args: &HoldArgs,
    setup: &Setup,
) -> anyhow::Result<(Report<HoldOutcome>, ConnectTally)> {
    let target = setup.probe().await?;
    let subscribe = args.subscribe.clone().map(|filter| Subscription { filter, qos: args.qos });
    let before = setup.sample_server();
    let crew = Crew::start(&setup.lean(), 0..args.n, Holding { subscribe })?;
    let connecting = connect_all(&crew, setup, args.n.into(), before).await;
    let cpu_before = setup.sample_server();
    let held_since = Instant::now();
    let watched = match connecting.watched {
        Watched::Done => hold_on(&crew, setup, Duration::from_secs(args.hold)).await,
        Watched::Interrupted => Watched::Interrupted,
    };
    let held_seconds = held_since.elapsed().as_secs_f64();
    let cpu_after = setup.sample_server();
    let start = crew.start;
    let Finished { connects: tally, .. } = crew.finish()?;
    let seconds = tally.last.since(start).as_secs_f64();
    let lost = tally.failed.total() + tally.broken.total();
    let connecting = ConnectReport::new(args.n.into(), &tally, seconds, connecting.server);
    let limits = Limits::of(&args.common.objectives);
    let report = Report {
        scenario: "hold",
        run: setup.connector.run.to_string(),
        recorded: setup.recorded(),
        target,
        outcome: HoldOutcome {
            held_seconds,
            server_cpu_per_second_us: cpu_before.zip(cpu_after).map(|(before, after)| {
                (after.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1e6 / held_seconds.max(1e-3)
            }),
        },
        objectives: limits.judge(Measured {
            latency_of: "connecting",
            latency: connecting.total,
            lost_of: "sessions failed",
            lost,
            rate_of: "connections",
            per_second: connecting.connects_per_second,
            duplicates: None,
            bytes_per_connection: connecting.server.map(|server| server.bytes_per_connection),
        }),
        connecting,
        broken: tally.broken.clone(),
        interrupted: watched == Watched::Interrupted,
    };
    Ok((report, tally))
}

/// Until the time is over, or every session.
async fn hold_on(crew: &Crew<()>, setup: &Setup, duration: Duration) -> Watched {
    setup.recorder.mark("holding");
    let mut progress = Progress::begin("holding", duration.as_secs()).with_rates(&setup.recorder);
    let since = Instant::now();
    let watched = crew
        .watch(Some(since + duration), |totals| {
            progress.show(since.elapsed().as_secs(), || format!("s · {} sessions", totals.live()));
            totals.live() == 0
        })
        .await;
    progress.end();
    watched
}

impl Rows for HoldOutcome {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        table.row("held", &format!("{:.1} s", self.held_seconds))?;
        if let Some(micros) = self.server_cpu_per_second_us {
            table.row("server CPU while held", &format!("{micros:.0} µs/s"))?;
        }
        Ok(())
    }
}
