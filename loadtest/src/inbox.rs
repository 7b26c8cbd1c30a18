//! The scenario `inbox`: subscribers go offline, messages are sent to them, they come back; how long until
//! each has its own?

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::connecting::connect_all;
use crate::counters::Totals;
use crate::crew::{Crew, Watched};
use crate::demand::Demand;
use crate::figures::per_second;
use crate::finished::Finished;
use crate::ledger::{Layout, settle};
use crate::limits::{CLIENTS_MAX, DUPLICATES_WAIT, INBOX_EXPIRY_SECONDS};
use crate::message_tally::MessageTally;
use crate::objectives::{Limits, Measured};
use crate::pacer::Plan;
use crate::progress::Progress;
use crate::report::{ConnectReport, Report, Rows, Verdict};
use crate::roster::Phase;
use crate::scenario_args::InboxArgs;
use crate::schedule::Schedule;
use crate::setup::Setup;
use crate::table::Table;
use crate::traffic::{Pacing, TrafficPlan};
use crate::worker::ConnectTally;

#[derive(Debug, Serialize)]
struct InboxOutcome {
    subscribers: u32,
    messages_each: u32,
    qos: u8,
    size_bytes: u32,
    /// While the subscribers were away.
    sent: u64,
    accepted: u64,
    refused: u64,
    fill_seconds: f64,
    accepted_per_second: f64,
    /// Sessions that the broker had kept for who came back.
    sessions_present: u64,
    expected: u64,
    delivered: u64,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    foreign: u64,
    /// From when the first was due to come back to the last message.
    drain_seconds: f64,
    delivered_per_second: f64,
    server_cpu_per_delivery_us: Option<f64>,
}

pub(crate) fn run(args: &InboxArgs) -> anyhow::Result<Verdict> {
    if i64::from(args.subs) * 2 > CLIENTS_MAX {
        bail!("at most {} subscribers", CLIENTS_MAX / 2);
    }
    // Publishers are connected while subscribers are not.
    let demand = Demand { numbers: u64::from(args.subs) * 2, ..Demand::of(args.subs.into()) };
    let setup = Setup::prepare(&args.common, demand)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.context("start runtime")?.block_on(inbox(args, &setup))?;
    report.publish(&args.common.output).context("write report")
}

async fn inbox(args: &InboxArgs, setup: &Setup) -> anyhow::Result<Report<InboxOutcome>> {
    setup.listen_for_interrupt();
    let target = setup.probe().await?;
    let plan = plan(args, setup);
    let subscribers = args.subs..2 * args.subs;
    // Their sessions outlive their connections. [MQTT-3.1.2-4] [MQTT-3.1.2-23]
    let kept = setup.with_connector(|connector| {
        connector.clean_start = false;
        connector.session_expiry_seconds = connector.session_expiry_seconds.max(INBOX_EXPIRY_SECONDS);
    });
    let before = setup.sample_server();

    let crew = Crew::start(&kept, subscribers.clone(), plan.clone())?;
    let connecting = connect_all(&crew, setup, args.subs.into(), before).await;
    let start = crew.start;
    let Finished { mut connects, .. } = crew.finish()?;

    let mut fill = Fill::default();
    if connecting.watched == Watched::Done {
        fill = fill_inboxes(args, setup, &plan).await?;
        connects.failed.add(&fill.connects.failed);
        connects.broken.add(&fill.connects.broken);
    }

    let returning = TrafficPlan { subscribes: false, ..plan.clone() };
    let at_rate = kept.with_connects(args.return_rate, args.subs);
    let cpu_before = setup.sample_server();
    let crew = Crew::start(&at_rate, subscribers, returning)?;
    let (returned_at, expected) = (crew.start, fill.totals.accepted);
    let watched = match fill.watched {
        Watched::Done => await_deliveries(&crew, setup, args, expected).await,
        Watched::Interrupted => Watched::Interrupted,
    };
    let cpu_after = setup.sample_server();
    let Finished { connects: returned, outcomes, totals, .. } = crew.finish()?;
    let tally = MessageTally::sum(outcomes);
    let (expected, lost) = settle(plan.layout, &fill.tally.published, &tally.received, &tally.shared);
    connects.failed.add(&returned.failed);
    connects.broken.add(&returned.broken);
    let drain_seconds = tally.last_delivery.since(returned_at).as_secs_f64();
    let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    let outcome = InboxOutcome {
        subscribers: args.subs,
        messages_each: args.messages,
        qos: args.qos as u8,
        size_bytes: args.size,
        sent: fill.totals.sent,
        accepted: fill.totals.accepted,
        refused: fill.totals.refused,
        fill_seconds: fill.seconds,
        accepted_per_second: per_second(fill.totals.accepted, fill.seconds),
        sessions_present: returned.sessions_present,
        expected,
        delivered: totals.delivered,
        lost,
        duplicates: tally.duplicates(),
        reordered: tally.reordered(),
        foreign: tally.foreign(),
        drain_seconds,
        delivered_per_second: per_second(totals.delivered, drain_seconds),
        server_cpu_per_delivery_us: cpu
            .filter(|_| totals.delivered > 0)
            .map(|cpu| cpu.as_secs_f64() * 1e6 / per_second(totals.delivered, 1.0)),
    };
    let seconds = connects.last.since(start).as_secs_f64();
    Ok(Report {
        scenario: "inbox",
        run: setup.connector.run.to_string(),
        recorded: setup.recorded(),
        target,
        objectives: Limits::of(&args.common.objectives).judge(Measured {
            latency_of: "coming back",
            latency: returned.total.summary(),
            lost_of: "deliveries lost",
            lost,
            rate_of: "deliveries to who came back",
            per_second: outcome.delivered_per_second,
            duplicates: Some(outcome.duplicates),
            bytes_per_connection: connecting.server.map(|server| server.bytes_per_connection),
        }),
        outcome,
        connecting: ConnectReport::new(args.subs.into(), &connects, seconds, connecting.server),
        broken: connects.broken,
        interrupted: watched == Watched::Interrupted,
    })
}

fn plan(args: &InboxArgs, setup: &Setup) -> TrafficPlan {
    TrafficPlan {
        layout: Layout {
            publishers: args.subs,
            subscribers: args.subs,
            topics: args.subs,
            all_topics: false,
            shared: false,
        },
        first_client: 0,
        subscribes: true,
        topic: args.topic.clone(),
        share: None,
        run: setup.connector.run,
        qos: args.qos,
        retain: false,
        message_expiry_seconds: None,
        named: false,
        size_bytes: args.size as usize,
        window: Some(args.window),
        pacing: Pacing::Open(Plan {
            schedule: Schedule::new(args.rate),
            publishers: args.subs,
            total: u64::from(args.subs) * u64::from(args.messages),
        }),
    }
}

/// What was sent while the subscribers were away.
struct Fill {
    watched: Watched,
    seconds: f64,
    totals: Totals,
    tally: MessageTally,
    connects: ConnectTally,
}

impl Default for Fill {
    fn default() -> Self {
        Self {
            watched: Watched::Interrupted,
            seconds: 0.0,
            totals: Totals::default(),
            tally: MessageTally::new(),
            connects: ConnectTally::new(),
        }
    }
}

/// Until every message is answered, or none has been for too long.
async fn fill_inboxes(args: &InboxArgs, setup: &Setup, plan: &TrafficPlan) -> anyhow::Result<Fill> {
    let total = u64::from(args.subs) * u64::from(args.messages);
    let crew = Crew::start(setup, 0..args.subs, plan.clone())?;
    let mut watched = connect_all(&crew, setup, args.subs.into(), None).await.watched;
    let begun = crew.soon();
    if watched == Watched::Done {
        crew.enter(Phase::Publishing(begun));
        watched =
            until_quiet(&crew, setup, args, ("filling", total), |totals| totals.accepted + totals.refused)
                .await;
    }
    let seconds = setup.connector.clock.now().since(begun).as_secs_f64();
    let Finished { connects, outcomes, totals, .. } = crew.finish()?;
    Ok(Fill { watched, seconds, totals, tally: MessageTally::sum(outcomes), connects })
}

async fn await_deliveries(
    crew: &Crew<MessageTally>,
    setup: &Setup,
    args: &InboxArgs,
    expected: u64,
) -> Watched {
    let watched = until_quiet(crew, setup, args, ("delivering", expected), |totals| totals.delivered).await;
    tokio::time::sleep(DUPLICATES_WAIT).await;
    watched
}

/// Until the count is full, or has not grown for as long as the arguments allow.
async fn until_quiet(
    crew: &Crew<MessageTally>,
    setup: &Setup,
    args: &InboxArgs,
    (label, full): (&'static str, u64),
    count: impl Fn(Totals) -> u64,
) -> Watched {
    let mut progress = Progress::begin(label, full).with_rates(&setup.recorder);
    let longest = Duration::from_secs(args.drain);
    let (mut seen, mut seen_at) = (0, Instant::now());
    let watched = crew
        .watch(None, |totals| {
            let counted = count(totals);
            progress.show(counted, || "messages".into());
            // Who still connects is not quiet.
            let moved = counted + totals.connected;
            if moved != seen {
                (seen, seen_at) = (moved, Instant::now());
            }
            counted >= full || seen_at.elapsed() >= longest
        })
        .await;
    progress.end();
    watched
}

impl Rows for InboxOutcome {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        let Self { subscribers, messages_each, qos, size_bytes, sessions_present, .. } = self;
        table.row(
            "layout",
            &format!(
                "{subscribers} subscribers, {messages_each} messages to each; QoS {qos}, {size_bytes} bytes"
            ),
        )?;
        let Self { sent, accepted, refused, fill_seconds, accepted_per_second, .. } = self;
        table.row(
            "sent while away",
            &format!("{sent}; {accepted} accepted, {refused} refused; {accepted_per_second:.0}/s over {fill_seconds:.2} s"),
        )?;
        table.row("sessions kept", &format!("{sessions_present} of {subscribers}"))?;
        let Self { expected, delivered, drain_seconds, delivered_per_second, .. } = self;
        table.row(
            "drained",
            &format!(
                "{delivered} of {expected} expected in {drain_seconds:.2} s: {delivered_per_second:.0}/s"
            ),
        )?;
        let Self { lost, duplicates, reordered, foreign, .. } = self;
        table.row(
            "lost",
            &format!("{lost}; {duplicates} duplicates, {reordered} reordered, {foreign} of other runs"),
        )?;
        match self.server_cpu_per_delivery_us {
            Some(micros) => table.row("server CPU", &format!("{micros:.2} µs a delivery")),
            None => Ok(()),
        }
    }
}
