//! The scenario `pubsub`: numbered messages go through the broker; which arrive, when, how often?

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use sotto_model::QoS;
use sotto_mqtt::packet::Version;

use crate::args::PubsubArgs;
use crate::card::Card;
use crate::connecting::connect_all;
use crate::counters::Totals;
use crate::crew::{Crew, Watched};
use crate::demand::Demand;
use crate::figures::per_second;
use crate::finished::Finished;
use crate::html_text::number;
use crate::latencies::LatencySummary;
use crate::ledger::{Layout, settle};
use crate::limits::{
    CLIENTS_MAX, DRAIN_QUIET, DUPLICATES_WAIT, LAST_MESSAGES_WAIT, SPREAD_SHARE_MESSAGES_MAX,
    SPREAD_SHARE_SECONDS_MAX,
};
use crate::message_tally::MessageTally;
use crate::objectives::{Limits, Measured};
use crate::pacer::Plan;
use crate::progress::Progress;
use crate::report::{ConnectReport, Report, Rows, Verdict};
use crate::roster::Phase;
use crate::schedule::Schedule;
use crate::server_process::ServerSample;
use crate::setup::Setup;
use crate::stored::{Database, StoredReport};
use crate::table::Table;
use crate::traffic::{Pacing, TrafficPlan};
use crate::worker::ConnectTally;

#[derive(Debug, Serialize)]
pub(crate) struct PubsubOutcome {
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) topics: u32,
    pub(crate) qos: u8,
    pub(crate) size_bytes: u32,
    /// Open loop; else the window counts.
    pub(crate) rate_wanted: Option<f64>,
    pub(crate) window: Option<u16>,
    /// Messages that came due; without a plan, those that were sent.
    pub(crate) due: u64,
    pub(crate) sent: u64,
    /// QoS 1 and 2: acknowledged.
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) foreign: u64,
    /// While messages were published; what was drained later is not in the rates.
    pub(crate) seconds: f64,
    pub(crate) published_per_second: f64,
    pub(crate) delivered_per_second: f64,
    /// From when a message was due to when it was encoded.
    pub(crate) held_up: LatencySummary,
    /// From when a message was due.
    pub(crate) acknowledged: LatencySummary,
    pub(crate) delivery: LatencySummary,
    pub(crate) server: Option<ServerTraffic>,
    /// `None` without a look into the database.
    pub(crate) stored: Option<StoredReport>,
}

/// What messages cost the broker.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ServerTraffic {
    pub(crate) cpu_per_message_in_us: f64,
    pub(crate) cpu_per_delivery_us: Option<f64>,
    pub(crate) cores: f64,
}

/// What was published while, and for how long.
struct Publishing {
    watched: Watched,
    seconds: f64,
    totals: Totals,
    server: Option<ServerTraffic>,
}

pub(crate) fn run(args: &PubsubArgs) -> anyhow::Result<Verdict> {
    let clients = u64::from(args.pubs) + u64::from(args.subs);
    if i64::try_from(clients).is_ok_and(|clients| clients > CLIENTS_MAX) {
        bail!("at most {CLIENTS_MAX} clients");
    }
    let can_name = args.qos != QoS::AtMostOnce && args.common.protocol.version() == Version::V5;
    if args.verify_database.is_some() && !can_name {
        bail!(
            "--verify-database needs MQTT 5 and QoS 1 or 2: else no message can bear a name that is stored"
        );
    }
    can_be_spread(args)?;
    let setup = Setup::prepare(&args.common, Demand::of(clients))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = async {
        setup.listen_for_interrupt();
        pubsub(args, &setup).await
    };
    let (report, _) = runtime.context("start runtime")?.block_on(run)?;
    report.publish(&args.common.output).context("write report")
}

/// With what connecting has come to, in full.
pub(crate) async fn pubsub(
    args: &PubsubArgs,
    setup: &Setup,
) -> anyhow::Result<(Report<PubsubOutcome>, ConnectTally)> {
    let database = match &args.verify_database {
        Some(url) => Some(Database::open(url).await?),
        None => None,
    };
    let target = setup.probe().await?;
    let before = setup.sample_server();
    let plan = plan(args, setup);
    let layout = plan.layout;
    let clients = args.pubs + args.subs;
    let crew = Crew::start(setup, 0..clients, plan)?;
    let connecting = connect_all(&crew, setup, clients.into(), before).await;
    let publishing = match connecting.watched {
        Watched::Done => publish(&crew, setup, args).await,
        Watched::Interrupted => Publishing::none(),
    };
    crew.enter(Phase::Draining);
    if publishing.watched == Watched::Done {
        drain(&crew, Duration::from_secs(args.drain), has_arrived(args)).await;
    }
    let start = crew.start;
    let Finished { connects, outcomes, totals, .. } = crew.finish()?;
    let tally = MessageTally::sum(outcomes);
    let (expected, lost) = settle(layout, &tally.published, &tally.received, &tally.shared);
    let stored = match database {
        Some(mut database) => {
            let connector = &setup.connector;
            let user = |publisher| connector.credentials.identity(publisher, connector.run).username;
            Some(database.check(connector.run, &tally.published, user).await?)
        }
        None => None,
    };
    let outcome = PubsubOutcome {
        publishers: args.pubs,
        subscribers: args.subs,
        topics: args.topics,
        qos: args.qos as u8,
        size_bytes: args.size,
        rate_wanted: (args.rate > 0.0).then_some(args.rate),
        window: (args.rate == 0.0).then_some(args.window),
        due: if args.rate > 0.0 { messages_planned(args) } else { totals.sent },
        sent: totals.sent,
        accepted: totals.accepted,
        refused: totals.refused,
        unacknowledged: totals.sent - totals.accepted - totals.refused,
        expected,
        // What came to members in several processes each has counted.
        delivered: totals.delivered.saturating_sub(tally.shared.again()),
        lost,
        duplicates: tally.duplicates(),
        reordered: tally.reordered(),
        foreign: tally.foreign(),
        seconds: publishing.seconds,
        published_per_second: per_second(publishing.totals.accepted, publishing.seconds),
        delivered_per_second: per_second(publishing.totals.delivered, publishing.seconds),
        held_up: tally.held_up.summary(),
        acknowledged: tally.acknowledged.summary(),
        delivery: tally.delivered.summary(),
        server: publishing.server,
        stored,
    };
    let seconds = connects.last.since(start).as_secs_f64();
    let mut objectives = Limits::of(&args.common.objectives).judge(Measured {
        latency_of: "delivery",
        latency: outcome.delivery,
        lost_of: "deliveries lost",
        lost,
        rate_of: "deliveries",
        per_second: outcome.delivered_per_second,
        duplicates: Some(outcome.duplicates),
        bytes_per_connection: connecting.server.map(|server| server.bytes_per_connection),
    });
    objectives.extend(stored.map(StoredReport::objective));
    let report = Report {
        scenario: "pubsub",
        run: setup.connector.run.to_string(),
        recorded: setup.recorded(),
        target,
        objectives,
        outcome,
        connecting: ConnectReport::new(clients.into(), &connects, seconds, connecting.server),
        broken: connects.broken.clone(),
        interrupted: publishing.watched == Watched::Interrupted,
    };
    Ok((report, connects))
}

/// What the clients of different processes cannot know of each other is refused.
pub(crate) fn can_be_spread(args: &PubsubArgs) -> anyhow::Result<()> {
    let parts = args.common.spread.parts();
    if parts > 1 && args.share.is_some() {
        if args.rate == 0.0 && args.seconds > SPREAD_SHARE_SECONDS_MAX {
            bail!(
                "members of a shared subscription in several processes are counted together at the end: at most \
                 {SPREAD_SHARE_SECONDS_MAX} s in a closed loop"
            );
        }
        if messages_planned(args) > SPREAD_SHARE_MESSAGES_MAX {
            bail!(
                "members of a shared subscription in several processes are counted together at the end: at most \
                 {SPREAD_SHARE_MESSAGES_MAX} messages"
            );
        }
    }
    let together = layout(args).is_together(parts);
    if !together && args.rate == 0.0 && args.qos == QoS::AtMostOnce {
        bail!(
            "a closed loop at QoS 0 waits for deliveries: publishers and subscribers of a topic must be in one \
             process; take a multiple of {parts} topics"
        );
    }
    Ok(())
}

/// Whether nothing is under way any more, as far as the totals tell: those of several processes hold a message
/// twice that came to a member in each.
fn has_arrived(args: &PubsubArgs) -> fn(Totals) -> bool {
    if args.share.is_some() && args.common.spread.parts() > 1 { |_| false } else { Totals::is_settled }
}

fn layout(args: &PubsubArgs) -> Layout {
    Layout {
        publishers: args.pubs,
        subscribers: args.subs,
        topics: args.topics,
        all_topics: args.all_topics,
        shared: args.share.is_some(),
    }
}

fn plan(args: &PubsubArgs, setup: &Setup) -> TrafficPlan {
    let pacing = if args.rate > 0.0 {
        Pacing::Open(Plan {
            schedule: Schedule::new(args.rate),
            publishers: args.pubs,
            total: messages_planned(args),
        })
    } else {
        Pacing::Closed { window: args.window }
    };
    TrafficPlan {
        layout: layout(args),
        first_client: 0,
        subscribes: true,
        topic: args.topic.clone(),
        share: args.share.clone(),
        run: setup.connector.run,
        qos: args.qos,
        retain: args.retain,
        message_expiry_seconds: args.message_expiry,
        named: args.verify_database.is_some(),
        size_bytes: args.size as usize,
        window: (args.rate == 0.0).then_some(args.window),
        pacing,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 10^13, and not negative"
)]
fn messages_planned(args: &PubsubArgs) -> u64 {
    (args.rate * args.seconds as f64).round() as u64
}

/// Publishes for as long as asked, or until no session is left.
async fn publish(crew: &Crew<MessageTally>, setup: &Setup, args: &PubsubArgs) -> Publishing {
    let clock = setup.connector.clock;
    // A moment for all threads to hear of it before the first message is due.
    let start = crew.soon();
    let end = start.plus(Duration::from_secs(args.seconds));
    let before = setup.sample_server();
    crew.enter(Phase::Publishing(start));
    let mut progress = Progress::begin("publishing", args.seconds).with_rates(&setup.recorder);
    let watched = crew
        .watch(Some(clock.instant(end)), |totals| {
            progress.show(clock.now().since(start).as_secs(), || {
                format!("s · {} sent, {} delivered", totals.sent, totals.delivered)
            });
            totals.live() == 0
        })
        .await;
    progress.end();
    let (totals, counted_at) = crew.counted();
    let seconds = counted_at.since(start).as_secs_f64();
    if watched == Watched::Done && args.rate > 0.0 {
        // What came due with the last tick may not have been encoded yet.
        let last = Some(Instant::now() + LAST_MESSAGES_WAIT);
        crew.watch(last, |totals| totals.sent >= messages_planned(args) || totals.live() == 0).await;
    }
    let server = before.zip(setup.sample_server());
    let server = server.map(|(before, after)| ServerTraffic::new(before, after, totals, seconds));
    Publishing { watched, seconds, totals, server }
}

/// Until everything has arrived, or nothing more does.
pub(crate) async fn drain(crew: &Crew<MessageTally>, longest: Duration, has_arrived: fn(Totals) -> bool) {
    let mut progress = Progress::begin("draining", crew.totals().expected);
    let since = Instant::now();
    let (mut seen, mut seen_at) = (Totals::default(), since);
    crew.watch(Some(since + longest), |totals| {
        progress.show(totals.delivered, || "delivered".into());
        if totals != seen {
            (seen, seen_at) = (totals, Instant::now());
        }
        has_arrived(totals) || totals.live() == 0 || seen_at.elapsed() >= DRAIN_QUIET
    })
    .await;
    progress.end();
    tokio::time::sleep(DUPLICATES_WAIT).await;
}

impl ServerTraffic {
    fn new(before: ServerSample, after: ServerSample, totals: Totals, seconds: f64) -> Self {
        let cpu_us = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
        let per = |count: u64| (count > 0).then(|| cpu_us / per_second(count, 1.0));
        Self {
            cpu_per_message_in_us: per(totals.accepted).unwrap_or_default(),
            cpu_per_delivery_us: per(totals.delivered),
            cores: cpu_us / 1e6 / seconds.max(1e-3),
        }
    }
}

impl Publishing {
    fn none() -> Self {
        Self { watched: Watched::Interrupted, seconds: 0.0, totals: Totals::default(), server: None }
    }
}

impl Rows for PubsubOutcome {
    fn cards(&self) -> Vec<Card> {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
        let mut cards = vec![
            Card {
                label: "Delivered",
                value: self.delivered_per_second,
                unit: "/s",
                hint: format!("{} in all", number(self.delivered as f64)),
            },
            Card {
                label: "Lost",
                value: self.lost as f64,
                unit: "",
                hint: format!("{} repeated, {} out of order", self.duplicates, self.reordered),
            },
            Card::latency("p99 delivery", self.delivery),
        ];
        if self.acknowledged.count > 0 {
            cards.push(Card::latency(
                if self.qos == 2 { "p99 PUBCOMP" } else { "p99 PUBACK" },
                self.acknowledged,
            ));
        }
        if let Some((server, per_delivery)) = self.server.and_then(|s| Some((s, s.cpu_per_delivery_us?))) {
            cards.push(Card {
                label: "Broker CPU per delivery",
                value: per_delivery,
                unit: "µs",
                hint: format!("{:.2} cores", server.cores),
            });
        }
        cards
    }

    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        let Self { publishers, subscribers, topics, qos, size_bytes, .. } = self;
        let layout = format!(
            "{publishers} publishers, {topics} topics, {subscribers} subscribers; QoS {qos}, {size_bytes} bytes"
        );
        table.row("layout", &layout)?;
        let wanted = match (self.rate_wanted, self.window) {
            (Some(rate), _) => format!("open loop, {rate}/s wanted"),
            (None, window) => format!("closed loop, {} outstanding", window.unwrap_or_default()),
        };
        table.row(
            "published",
            &format!("{:.0}/s over {:.2} s ({wanted})", self.published_per_second, self.seconds),
        )?;
        table.row("delivered", &format!("{:.0}/s", self.delivered_per_second))?;
        let Self { due, sent, accepted, refused, unacknowledged, .. } = self;
        table.row(
            "messages",
            &format!("{sent} sent of {due} due; {accepted} accepted, {refused} refused, {unacknowledged} unanswered"),
        )?;
        let Self { expected, delivered, lost, duplicates, reordered, foreign, .. } = self;
        table.row("deliveries", &format!("{delivered} of {expected} expected"))?;
        table.row(
            "lost",
            &format!("{lost}; {duplicates} duplicates, {reordered} reordered, {foreign} of other runs"),
        )?;
        table.latencies(&[
            ("held up before sending", self.held_up),
            (if *qos == 2 { "PUBCOMP, since due" } else { "PUBACK, since due" }, self.acknowledged),
            ("delivery, since due", self.delivery),
        ])?;
        if let Some(stored) = self.stored {
            let StoredReport { acknowledged, stored, missing, unacknowledged } = stored;
            table.row(
                "in the database",
                &format!("{stored} of {acknowledged} acknowledged, {missing} missing; {unacknowledged} unacknowledged"),
            )?;
        }
        if let Some(server) = self.server {
            let delivery = server.cpu_per_delivery_us.map_or_else(|| "–".into(), |us| format!("{us:.2} µs"));
            table.row(
                "server CPU",
                &format!(
                    "{:.2} µs a message in, {delivery} a delivery; {:.2} cores",
                    server.cpu_per_message_in_us, server.cores
                ),
            )?;
        }
        Ok(())
    }
}
