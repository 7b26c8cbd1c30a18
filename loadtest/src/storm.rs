//! The scenario `storm`: all connections are cut at once; how long until everyone is back?

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::connecting::connect_all;
use crate::crew::{Crew, Watched};
use crate::demand::Demand;
use crate::failures::Failures;
use crate::figures::{milliseconds, per_second};
use crate::finished::Finished;
use crate::latencies::{Latencies, LatencySummary};
use crate::limits::{CLIENTS_MAX, DRAIN_LONGEST};
use crate::objectives::{Limits, Measured};
use crate::progress::Progress;
use crate::report::{ConnectReport, Report, Rows, Verdict};
use crate::roster::{Cut, Phase};
use crate::scenario_args::{StormArgs, seconds};
use crate::schedule::Schedule;
use crate::server_process::ServerSample;
use crate::setup::Setup;
use crate::steady::{Steady, SteadyReport};
use crate::stormer::{Backoff, RoundTally, StormPlan};
use crate::subscription::Subscription;
use crate::table::Table;
use crate::worker::ConnectTally;

#[derive(Debug, Serialize)]
struct StormOutcome {
    clients: u32,
    /// Round 0 is before the first cut.
    rounds: Vec<RoundReport>,
    /// Of those that came back, where the time went.
    returning: ConnectSplit,
    /// Clients that were not connected at the end.
    away: u64,
    steady: Option<SteadyReport>,
}

/// Of one attempt: the one that succeeded.
#[derive(Debug, Serialize)]
struct ConnectSplit {
    tcp: LatencySummary,
    tls: LatencySummary,
    web_socket: LatencySummary,
    connack: LatencySummary,
    suback: LatencySummary,
}

/// From one cut to the next.
#[derive(Debug, Default, Serialize)]
struct RoundReport {
    round: u32,
    /// Connections that were cut.
    cut: u64,
    /// From the cut until a connection was told to end.
    gone: LatencySummary,
    /// From the cut until a client was back.
    back: LatencySummary,
    /// Connections that the broker ended, by reason.
    broken: Failures,
    /// From when a client saw its connection end, or could not connect, until it was back.
    recovered: LatencySummary,
    /// Attempts that failed and were made again, by reason.
    failed_attempts: Failures,
    tls_resumed: u64,
    server_cpu_per_return_us: Option<f64>,
}

/// What can be seen of a round without the threads.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    cut: u64,
    server_cpu_us: Option<f64>,
}

pub(crate) fn run(args: &StormArgs) -> anyhow::Result<Verdict> {
    let clients = u64::from(args.n) + 2 * u64::from(args.steady_pairs);
    if i64::try_from(clients).is_ok_and(|clients| clients > CLIENTS_MAX) {
        bail!("at most {CLIENTS_MAX} clients");
    }
    if args.rounds == 0 && args.hold == 0 {
        bail!("--rounds 0 waits for what the broker does: say how long with --hold");
    }
    let setup = Setup::prepare(&args.common, Demand::of(clients))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.context("start runtime")?.block_on(storm(args, &setup))?;
    report.publish(&args.common.output).context("write report")
}

async fn storm(args: &StormArgs, setup: &Setup) -> anyhow::Result<Report<StormOutcome>> {
    setup.listen_for_interrupt();
    let target = setup.probe().await?;
    let before = setup.sample_server();
    // All at once is all at once.
    let at_once = setup.lean().with_connects(setup.connect_rate, args.n);
    let crew = Crew::start(&at_once, 0..args.n, plan(args))?;
    let connecting = connect_all(&crew, setup, args.n.into(), before).await;
    let mut watched = connecting.watched;
    if watched == Watched::Done {
        watched = everyone(&crew, setup, args, 0).await;
    }
    let mut steady = None;
    if watched == Watched::Done && args.steady_pairs > 0 && args.rounds > 0 {
        steady = Some(Steady::start(setup, args.steady_pairs, args.steady_rate, args.qos, args.n).await?);
    }
    let mut watches = vec![Watch::default()];
    let mut has_ended = false;
    for round in 1..=args.rounds {
        // Where nobody has come back there is nothing to cut.
        if crew.totals().live() == 0 {
            has_ended = true;
            break;
        }
        if watched == Watched::Done {
            watched = crew.watch(Some(Instant::now() + seconds(args.pause)), |_| false).await;
        }
        if watched == Watched::Done {
            let watch;
            (watch, watched) = cut(&crew, setup, args, round).await;
            watches.push(watch);
        }
    }
    if watched == Watched::Done && !has_ended {
        watched = hold(&crew, setup, args).await;
    }
    let steady = match steady {
        Some(steady) => Some(steady.finish(DRAIN_LONGEST).await?),
        None => None,
    };
    let away = u64::from(args.n).saturating_sub(crew.totals().live());
    let start = crew.start;
    let Finished { mut connects, returns, outcomes, .. } = crew.finish()?;
    let mut rounds: Vec<RoundTally> = (0..=args.rounds).map(|_| RoundTally::new()).collect();
    for thread in outcomes {
        rounds.iter_mut().zip(&thread).for_each(|(sum, round)| sum.add(round));
    }
    let mut back = Latencies::new();
    for round in &rounds {
        back.add(&round.back);
        back.add(&round.recovered);
    }
    let report = |(round, tally): (u32, RoundTally), watch: Watch| RoundReport::new(round, tally, watch);
    let rounds: Vec<_> = (0..).zip(rounds).zip(watches).map(|(round, watch)| report(round, watch)).collect();
    let (steady, pairs) = steady.unzip();
    // Those that could not connect the first time have not failed: they are back, or away.
    let seconds = connects.last.since(start).as_secs_f64();
    if let Some(pairs) = pairs {
        connects.failed.add(&pairs.failed);
        connects.broken.add(&pairs.broken);
    }
    if away > 0 && watched == Watched::Done {
        connects.broken.count_many(&"never came back", away);
    }
    let lost = away + steady.as_ref().map_or(0, |steady| steady.lost);
    let back = back.summary();
    let outcome =
        StormOutcome { clients: args.n, rounds, returning: ConnectSplit::new(&returns), away, steady };
    Ok(Report {
        scenario: "storm",
        run: setup.connector.run.to_string(),
        recorded: setup.recorded(),
        target,
        objectives: Limits::of(&args.common.objectives).judge(Measured {
            latency_of: "coming back",
            latency: back,
            lost_of: "clients away and deliveries lost",
            lost,
            rate_of: "returns, at the slowest cut",
            per_second: outcome.slowest_returns_per_second(),
            duplicates: outcome.steady.as_ref().map(|steady| steady.duplicates),
            bytes_per_connection: connecting.server.map(|server| server.bytes_per_connection),
        }),
        outcome,
        connecting: ConnectReport::new(args.n.into(), &connects, seconds, connecting.server),
        broken: connects.broken,
        interrupted: watched == Watched::Interrupted,
    })
}

fn plan(args: &StormArgs) -> StormPlan {
    StormPlan {
        subscribe: args.subscribe.clone().map(|filter| Subscription { filter, qos: args.qos }),
        parting: args.drop.parting(),
        away: seconds(args.away),
        schedule: Schedule::new(args.return_rate),
        jitter: seconds(args.jitter),
        backoff: Backoff { first: seconds(args.backoff), longest: seconds(args.backoff_max) },
        rounds: args.rounds,
    }
}

/// Cuts all connections, and waits for everyone to be back.
async fn cut(crew: &Crew<Vec<RoundTally>>, setup: &Setup, args: &StormArgs, round: u32) -> (Watch, Watched) {
    let before = crew.totals();
    let server_before = setup.sample_server();
    crew.enter(Phase::Cut(Cut { round, at: crew.soon() }));
    let gone = before.ended + before.live();
    // Nobody is back before having gone.
    let mut watched =
        crew.watch(Some(Instant::now() + seconds(args.round_timeout)), |totals| totals.ended >= gone).await;
    if watched == Watched::Done {
        watched = everyone(crew, setup, args, round).await;
    }
    let cpu = |(before, after): (ServerSample, ServerSample)| after.cpu.saturating_sub(before.cpu);
    let server_cpu = server_before.zip(setup.sample_server()).map(cpu);
    let server_cpu_us = server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6);
    (Watch { cut: before.live(), server_cpu_us }, watched)
}

/// Until all are connected, or the round has taken too long.
async fn everyone(crew: &Crew<Vec<RoundTally>>, setup: &Setup, args: &StormArgs, round: u32) -> Watched {
    let all = u64::from(args.n);
    let mut progress = Progress::begin("returning", all).with_rates(&setup.recorder);
    let deadline = Instant::now() + seconds(args.round_timeout);
    let watched = crew
        .watch(Some(deadline), |totals| {
            progress
                .show(totals.live(), || format!("round {round} · {} attempts failed", totals.connect_failed));
            totals.live() >= all
        })
        .await;
    progress.end();
    watched
}

/// Holds everyone for as long as asked, and then waits for those who are away just then.
async fn hold(crew: &Crew<Vec<RoundTally>>, setup: &Setup, args: &StormArgs) -> Watched {
    if args.hold == 0 {
        return Watched::Done;
    }
    let mut progress = Progress::begin("holding", args.hold).with_rates(&setup.recorder);
    let since = Instant::now();
    let watched = crew
        .watch(Some(since + Duration::from_secs(args.hold)), |totals| {
            progress.show(since.elapsed().as_secs(), || format!("s · {} sessions", totals.live()));
            false
        })
        .await;
    progress.end();
    match watched {
        Watched::Done => everyone(crew, setup, args, args.rounds).await,
        Watched::Interrupted => watched,
    }
}

impl RoundReport {
    fn new(round: u32, tally: RoundTally, watch: Watch) -> Self {
        let back = tally.back.summary();
        Self {
            round,
            cut: watch.cut,
            gone: tally.gone.summary(),
            back,
            broken: tally.broken,
            recovered: tally.recovered.summary(),
            failed_attempts: tally.failed,
            tls_resumed: tally.resumed,
            server_cpu_per_return_us: watch
                .server_cpu_us
                .filter(|_| back.count > 0)
                .map(|cpu| cpu / per_second(back.count, 1.0)),
        }
    }
}

impl ConnectSplit {
    fn new(tally: &ConnectTally) -> Self {
        Self {
            tcp: tally.tcp.summary(),
            tls: tally.tls.summary(),
            web_socket: tally.web_socket.summary(),
            connack: tally.connack.summary(),
            suback: tally.suback.summary(),
        }
    }
}

impl Rows for ConnectSplit {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        table.latencies(&[
            ("TCP, coming back", self.tcp),
            ("TLS", self.tls),
            ("WebSocket", self.web_socket),
            ("CONNACK", self.connack),
            ("SUBACK", self.suback),
        ])
    }
}

impl StormOutcome {
    fn slowest_returns_per_second(&self) -> f64 {
        let cuts = self.rounds.iter().filter(|round| round.cut > 0);
        let rate =
            |round: &RoundReport| per_second(round.back.count, milliseconds(round.back.max_us) / 1000.0);
        cuts.map(rate).reduce(f64::min).unwrap_or_default()
    }
}

impl Rows for StormOutcome {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        for round in &self.rounds {
            round.rows(table)?;
        }
        self.returning.rows(table)?;
        table.row("away at the end", &format!("{} of {}", self.away, self.clients))?;
        self.steady.as_ref().map_or(Ok(()), |steady| steady.rows(table))
    }
}

impl Rows for RoundReport {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        if self.cut > 0 {
            let [half, most, all] =
                [self.back.p50_us, self.back.p99_us, self.back.max_us].map(|us| milliseconds(us) / 1000.0);
            let (cut, back) = (self.cut, self.back.count);
            table.row(
                &format!("round {}", self.round),
                &format!("{back} of {cut} back; 50 % after {half:.2} s, 99 % after {most:.2} s, the last after {all:.2} s"),
            )?;
            let last = milliseconds(self.gone.max_us);
            table.row("  cut", &format!("the last connection {last:.1} ms after the first moment"))?;
            if let Some(micros) = self.server_cpu_per_return_us {
                table.row("  server CPU per return", &format!("{micros:.1} µs"))?;
            }
            if self.tls_resumed > 0 {
                table.row("  TLS resumed", &format!("{} of {back}", self.tls_resumed))?;
            }
        }
        table.failures("  ended by the broker", &self.broken)?;
        if self.recovered.count > 0 {
            let [half, most, all] = [self.recovered.p50_us, self.recovered.p99_us, self.recovered.max_us]
                .map(|us| milliseconds(us) / 1000.0);
            table.row(
                "  recovered",
                &format!(
                    "{}; 50 % after {half:.2} s, 99 % after {most:.2} s, the last after {all:.2} s",
                    self.recovered.count
                ),
            )?;
        }
        table.failures("  attempts that failed", &self.failed_attempts)
    }
}
