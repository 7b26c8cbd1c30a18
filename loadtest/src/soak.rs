//! The scenario `soak`: a steady load for hours; does the broker still answer as in the first?

use std::io;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::args::PubsubArgs;
use crate::connecting::connect_all;
use crate::crew::{Crew, Watched};
use crate::demand::Demand;
use crate::drift::slope_per_hour;
use crate::figures::{mebibytes, milliseconds};
use crate::holder::Holding;
use crate::limits::CLIENTS_MAX;
use crate::objectives::Objective;
use crate::pubsub::{PubsubOutcome, pubsub};
use crate::recorder::{Recorded, Recorder};
use crate::report::{Report, Rows, Verdict};
use crate::scenario_args::SoakArgs;
use crate::setup::Setup;
use crate::table::Table;
use crate::timeline::Point;

#[derive(Debug, Serialize)]
struct SoakOutcome {
    #[serde(flatten)]
    traffic: PubsubOutcome,
    idle_sessions: u32,
    interval_seconds: u64,
    intervals: Vec<IntervalReport>,
    drift: Drift,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct IntervalReport {
    /// Since messages began, of its end.
    at_seconds: f64,
    connections: u64,
    published_per_second: f64,
    delivered_per_second: f64,
    /// Mean of the seconds' medians.
    delivery_p50_us: f64,
    /// Mean of the seconds' p99.
    delivery_p99_us: f64,
    delivery_max_us: u64,
    /// At its end.
    server_rss_bytes: Option<u64>,
    server_cores: Option<f64>,
}

/// Of the time after the first tenth: the broker is warm then.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "units are named, in the JSON too")]
struct Drift {
    server_rss_bytes_per_hour: Option<f64>,
    delivery_p50_ms_per_hour: Option<f64>,
    delivery_p99_ms_per_hour: Option<f64>,
}

pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<Verdict> {
    let traffic = traffic(args);
    let messaging = traffic.pubs + traffic.subs;
    let clients = u64::from(messaging) + u64::from(args.idle);
    if i64::try_from(clients).is_ok_and(|clients| clients > CLIENTS_MAX) {
        bail!("at most {CLIENTS_MAX} clients");
    }
    let setup = Setup::prepare(&args.common, Demand::of(clients))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.context("start runtime")?.block_on(soak(args, &traffic, &setup))?;
    report.publish(&args.common.output).context("write report")
}

async fn soak(args: &SoakArgs, traffic: &PubsubArgs, setup: &Setup) -> anyhow::Result<Report<SoakOutcome>> {
    setup.listen_for_interrupt();
    setup.probe().await?;
    let messaging = traffic.pubs + traffic.subs;
    let idle = Crew::start(&setup.lean(), messaging..messaging + args.idle, Holding { subscribe: None })?;
    if connect_all(&idle, setup, args.idle.into(), None).await.watched == Watched::Interrupted {
        bail!("stopped while {} idle sessions connected", args.idle);
    }
    let told = tokio::spawn(tell(setup.clone(), args.interval));
    let (report, mut connects) = pubsub(traffic, setup).await?;
    told.abort();
    let held = idle.finish()?.connects;
    connects.broken.add(&held.broken);
    connects.failed.add(&held.failed);
    let recorded = setup.recorded();
    let points = publishing(&recorded);
    let drift = Drift::of(&points);
    let mut objectives = report.objectives;
    objectives.extend(drift.judge(args));
    let mut connecting = report.connecting;
    connecting.failed.add(&held.failed);
    Ok(Report {
        scenario: "soak",
        run: report.run,
        target: report.target,
        outcome: SoakOutcome {
            traffic: report.outcome,
            idle_sessions: args.idle,
            interval_seconds: args.interval,
            intervals: intervals(&points, args.interval),
            drift,
        },
        connecting,
        broken: connects.broken,
        interrupted: report.interrupted,
        objectives,
        recorded,
    })
}

fn traffic(args: &SoakArgs) -> PubsubArgs {
    PubsubArgs {
        pubs: args.pairs,
        subs: args.pairs,
        topics: args.pairs,
        rate: args.rate,
        window: 16,
        qos: args.qos,
        size: args.size,
        seconds: args.seconds,
        drain: 10,
        topic: "soak/%r/%i".parse().expect("a constant, and a template"),
        share: None,
        all_topics: false,
        message_expiry: None,
        verify_database: None,
        retain: false,
        common: args.common.clone(),
    }
}

/// A line on standard error for each interval, as it ends.
async fn tell(setup: Setup, interval_seconds: u64) {
    let mut ticks = tokio::time::interval(Duration::from_secs(interval_seconds));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Some(last) = last_interval(&setup.recorder, interval_seconds) {
            eprintln!("{last}");
        }
    }
}

fn last_interval(recorder: &Recorder, interval_seconds: u64) -> Option<IntervalReport> {
    intervals(&publishing(&recorder.recorded()), interval_seconds).pop()
}

/// The seconds in which messages were published, counted from the first.
fn publishing(recorded: &Recorded) -> Vec<Point> {
    let at = |what: &str| recorded.marks.iter().rfind(|mark| mark.what == what).map(|mark| mark.at_seconds);
    let Some(begin) = at("publishing") else { return Vec::new() };
    let end = at("draining").filter(|end| *end > begin).unwrap_or(f64::INFINITY);
    let within = |point: &&Point| point.at_seconds >= begin && point.at_seconds + point.seconds <= end;
    let mut points: Vec<Point> = recorded.timeline.iter().filter(within).cloned().collect();
    for point in &mut points {
        point.at_seconds -= begin;
    }
    points
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a run"
)]
fn intervals(points: &[Point], interval_seconds: u64) -> Vec<IntervalReport> {
    let of = |point: &Point| (point.at_seconds / interval_seconds as f64) as u64;
    points.chunk_by(|a, b| of(a) == of(b)).map(IntervalReport::new).collect()
}

impl IntervalReport {
    /// `points` is not empty.
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
    fn new(points: &[Point]) -> Self {
        let last = points.last().expect("a chunk is not empty");
        let count = points.len() as f64;
        let mean = |of: &dyn Fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
        Self {
            at_seconds: last.at_seconds + last.seconds,
            connections: last.connections,
            published_per_second: mean(&|point| point.published_per_second),
            delivered_per_second: mean(&|point| point.delivered_per_second),
            delivery_p50_us: mean(&|point| point.delivery.p50_us as f64),
            delivery_p99_us: mean(&|point| point.delivery.p99_us as f64),
            delivery_max_us: points.iter().map(|point| point.delivery.max_us).max().unwrap_or_default(),
            server_rss_bytes: last.server_rss_bytes,
            server_cores: last.server_cores.map(|_| mean(&|point| point.server_cores.unwrap_or_default())),
        }
    }
}

impl Drift {
    #[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
    fn of(points: &[Point]) -> Self {
        let warm = &points[points.len() / 10..];
        let delivered = || warm.iter().filter(|point| point.delivery.count > 0);
        let latency = |of: fn(&Point) -> u64| {
            let points: Vec<_> = delivered().map(|p| (p.at_seconds, milliseconds(of(p)))).collect();
            slope_per_hour(&points)
        };
        let memory: Vec<_> =
            warm.iter().filter_map(|p| Some((p.at_seconds, p.server_rss_bytes? as f64))).collect();
        Self {
            server_rss_bytes_per_hour: slope_per_hour(&memory),
            delivery_p50_ms_per_hour: latency(|point| point.delivery.p50_us),
            delivery_p99_ms_per_hour: latency(|point| point.delivery.p99_us),
        }
    }

    fn judge(self, args: &SoakArgs) -> Vec<Objective> {
        let at_most = |name, of, unit, limit: Option<f64>, measured: Option<f64>| {
            let met = limit.zip(measured).is_some_and(|(limit, measured)| measured <= limit);
            limit.map(|limit| Objective { name, of, unit, limit, measured, met })
        };
        let memory = self.server_rss_bytes_per_hour.map(|bytes| bytes / f64::from(1 << 20));
        [
            at_most("max_memory_growth", "broker memory", " MiB/h", args.max_memory_growth, memory),
            at_most(
                "max_latency_growth",
                "p99 of delivery",
                " ms/h",
                args.max_latency_growth,
                self.delivery_p99_ms_per_hour,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl std::fmt::Display for IntervalReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99] = [self.delivery_p50_us, self.delivery_p99_us].map(|us| us / 1000.0);
        write!(
            f,
            "{:>7.0} s  {} sessions, {:.0}/s in, {:.0}/s out, p50 {p50:.2} ms, p99 {p99:.2} ms, max {:.1} ms",
            self.at_seconds,
            self.connections,
            self.published_per_second,
            self.delivered_per_second,
            milliseconds(self.delivery_max_us),
        )?;
        match self.server_rss_bytes.zip(self.server_cores) {
            Some((bytes, cores)) => write!(f, ", {:.1} MiB, {cores:.2} cores", mebibytes(bytes)),
            None => Ok(()),
        }
    }
}

impl Rows for SoakOutcome {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        self.traffic.rows(table)?;
        table.row("idle sessions", &self.idle_sessions.to_string())?;
        for interval in &self.intervals {
            table.row("interval", &interval.to_string())?;
        }
        let Drift { server_rss_bytes_per_hour, delivery_p50_ms_per_hour, delivery_p99_ms_per_hour } =
            self.drift;
        if let Some(bytes) = server_rss_bytes_per_hour {
            table.row("drift of memory", &format!("{:+.2} MiB an hour", bytes / f64::from(1 << 20)))?;
        }
        if let Some((p50, p99)) = delivery_p50_ms_per_hour.zip(delivery_p99_ms_per_hour) {
            table.row("drift of delivery", &format!("p50 {p50:+.3} ms, p99 {p99:+.3} ms an hour"))?;
        }
        Ok(())
    }
}
