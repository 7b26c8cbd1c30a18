//! The scenario `suite`: the cases of the Open MQTT Benchmark Suite one after the other, in one report.

use std::io;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::demand::Demand;
use crate::figures::{mebibytes, milliseconds};
use crate::hold::hold;
use crate::latencies::LatencySummary;
use crate::objectives::{Limits, Measured};
use crate::pubsub::{can_be_spread, pubsub};
use crate::report::{ConnectReport, Report, Rows, Verdict};
use crate::scenario_args::SuiteArgs;
use crate::setup::Setup;
use crate::suite_case::{CASES, CaseRun, SuiteCase};
use crate::table::Table;
use crate::worker::ConnectTally;

#[derive(Debug, Serialize)]
struct SuiteOutcome {
    scale: f64,
    seconds: u64,
    cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize)]
struct CaseReport {
    case: &'static str,
    transport: String,
    clients: u64,
    connected: u64,
    connects_per_second: f64,
    connect: LatencySummary,
    /// `None` where nothing is published.
    messages: Option<CaseMessages>,
    server_rss_bytes: Option<u64>,
    server_bytes_per_connection: Option<f64>,
    failed: u64,
    /// Every client connected and stayed, and nothing was lost.
    succeeded: bool,
}

#[derive(Debug, Serialize)]
struct CaseMessages {
    published_per_second: f64,
    delivered_per_second: f64,
    expected: u64,
    lost: u64,
    duplicates: u64,
    delivery: LatencySummary,
    server_cores: Option<f64>,
}

pub(crate) fn run(args: &SuiteArgs) -> anyhow::Result<Verdict> {
    let ways = args.ways();
    let common = &ways[0];
    let cases = if args.case.is_empty() { CASES.to_vec() } else { named(&args.case)? };
    let runs: Vec<_> = cases.iter().map(|case| case.run(args.scale, args.seconds, common)).collect();
    for run in &runs {
        if let CaseRun::Pubsub(args) = run {
            can_be_spread(args)?;
        }
    }
    let largest = runs.iter().map(CaseRun::clients).max().unwrap_or_default();
    let setups = Setup::prepare_ways(&ways, Demand::of(largest))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runs: Vec<_> = cases.into_iter().zip(runs).collect();
    let report = runtime.context("start runtime")?.block_on(suite(args, &setups, &runs))?;
    report.publish(&common.output).context("write report")
}

fn named(names: &[String]) -> anyhow::Result<Vec<SuiteCase>> {
    let find = |name: &String| {
        let known = CASES.map(|case| case.name).join(", ");
        SuiteCase::find(name).with_context(|| format!("no case is called `{name}`; there are {known}"))
    };
    names.iter().map(find).collect()
}

async fn suite(
    args: &SuiteArgs,
    setups: &[Setup],
    runs: &[(SuiteCase, CaseRun)],
) -> anyhow::Result<Report<SuiteOutcome>> {
    let setup = setups.first().context("there is a setup")?;
    setup.listen_for_interrupt();
    let target = setup.probe().await?;
    for other in &setups[1..] {
        other.probe().await?;
    }
    let mut connects = ConnectTally::new();
    let mut cases = Vec::new();
    let (mut wanted, mut trouble) = (0, None);
    'all: for setup in setups {
        for (case, run) in runs {
            if setup.interrupted.load(Ordering::Relaxed) {
                break 'all;
            }
            eprintln!("{} ({} clients)", case.name, run.clients());
            let ran = run_case(*case, run, setup).await.context(case.name);
            match ran {
                Ok((report, tally)) => {
                    wanted += report.clients;
                    connects.add(&tally);
                    cases.push(report);
                }
                Err(error) if cases.is_empty() => return Err(error),
                // What was measured before stands.
                Err(error) => {
                    trouble = Some(format!("{error:#}"));
                    break 'all;
                }
            }
        }
    }
    if cases.is_empty() {
        bail!("stopped before the first case was done");
    }
    let sum = |of: fn(&CaseReport) -> u64| cases.iter().map(of).sum::<u64>();
    let worst =
        cases.iter().filter_map(|case| case.messages.as_ref()).max_by_key(|case| case.delivery.p99_us);
    let objectives = Limits::of(&args.common.objectives).judge(Measured {
        latency_of: "delivery, in the slowest case",
        latency: worst.map_or_else(LatencySummary::default, |worst| worst.delivery),
        lost_of: "deliveries lost, in all cases",
        lost: sum(|case| case.messages.as_ref().map_or(0, |messages| messages.lost)),
        rate_of: "deliveries, in the fastest case",
        per_second: cases
            .iter()
            .filter_map(|case| Some(case.messages.as_ref()?.delivered_per_second))
            .fold(0.0, f64::max),
        duplicates: Some(sum(|case| case.messages.as_ref().map_or(0, |messages| messages.duplicates))),
        bytes_per_connection: cases
            .iter()
            .filter_map(|case| case.server_bytes_per_connection)
            .reduce(f64::max),
    });
    let seconds = connects.last.since(crate::run_clock::Micros(0)).as_secs_f64();
    Ok(Report {
        scenario: "suite",
        run: setup.connector.run.to_string(),
        recorded: setup.recorded().with_troubles(trouble),
        target,
        objectives,
        connecting: ConnectReport::new(wanted, &connects, seconds, None),
        broken: connects.broken,
        interrupted: setup.interrupted.load(Ordering::Relaxed),
        outcome: SuiteOutcome { scale: args.scale, seconds: args.seconds, cases },
    })
}

async fn run_case(
    case: SuiteCase,
    run: &CaseRun,
    setup: &Setup,
) -> anyhow::Result<(CaseReport, ConnectTally)> {
    match run {
        CaseRun::Hold(args) => {
            let setup = setup.with_connects(args.common.connect_rate, 0);
            let (report, tally) = hold(args, &setup).await?;
            Ok((CaseReport::new(case, &report.target.transport, &report.connecting, &tally, None), tally))
        }
        CaseRun::Pubsub(args) => {
            let (report, tally) = pubsub(args, setup).await?;
            let outcome = &report.outcome;
            let messages = CaseMessages {
                published_per_second: outcome.published_per_second,
                delivered_per_second: outcome.delivered_per_second,
                expected: outcome.expected,
                lost: outcome.lost,
                duplicates: outcome.duplicates,
                delivery: outcome.delivery,
                server_cores: outcome.server.map(|server| server.cores),
            };
            let report =
                CaseReport::new(case, &report.target.transport, &report.connecting, &tally, Some(messages));
            Ok((report, tally))
        }
    }
}

impl CaseReport {
    fn new(
        case: SuiteCase,
        transport: &str,
        connecting: &ConnectReport,
        tally: &ConnectTally,
        messages: Option<CaseMessages>,
    ) -> Self {
        let failed = tally.failed.total() + tally.broken.total();
        let lost = messages.as_ref().map_or(0, |messages| messages.lost);
        Self {
            case: case.name,
            transport: transport.to_owned(),
            clients: connecting.wanted,
            connected: connecting.connected,
            connects_per_second: connecting.connects_per_second,
            connect: connecting.total,
            messages,
            server_rss_bytes: connecting.server.map(|server| server.rss_after_bytes),
            server_bytes_per_connection: connecting.server.map(|server| server.bytes_per_connection),
            failed,
            succeeded: failed == 0 && lost == 0,
        }
    }
}

impl Rows for SuiteOutcome {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        table.row("size", &format!("{} of the full suite, {} s a case", self.scale, self.seconds))?;
        self.cases.iter().try_for_each(|case| case.rows(table))
    }
}

impl Rows for CaseReport {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        let verdict = if self.succeeded { "" } else { "FAILED: " };
        let Self { clients, connected, connects_per_second, .. } = self;
        let mut text = format!(
            "{verdict}{connected} of {clients} connected, {connects_per_second:.0}/s, p99 {:.1} ms",
            milliseconds(self.connect.p99_us)
        );
        if let Some(messages) = &self.messages {
            let CaseMessages { published_per_second, delivered_per_second, expected, lost, .. } = messages;
            let [p50, p90, p99] =
                [messages.delivery.p50_us, messages.delivery.p90_us, messages.delivery.p99_us]
                    .map(milliseconds);
            text = format!(
                "{verdict}{published_per_second:.0}/s in, {delivered_per_second:.0}/s out, {lost} of {expected} lost, \
                 p50/p90/p99 {p50:.2}/{p90:.2}/{p99:.2} ms"
            );
        }
        if let Some(cores) = self.messages.as_ref().and_then(|messages| messages.server_cores) {
            text = format!("{text}, {cores:.2} cores");
        }
        if let Some(bytes) = self.server_rss_bytes {
            text = format!("{text}, {:.0} MiB", mebibytes(bytes));
        }
        table.row(self.case, &text)?;
        table.row("", &self.transport)
    }
}
