//! Pairs of publisher and subscriber that go on while something else happens to the broker.

use std::io;

use serde::Serialize;
use sotto_model::QoS;

use crate::connecting::connect_all;
use crate::counters::Totals;
use crate::crew::{Crew, CrewError, Watched};
use crate::finished::Finished;
use crate::latencies::LatencySummary;
use crate::ledger::{Layout, settle};
use crate::limits::STEADY_SIZE_BYTES;
use crate::message_tally::MessageTally;
use crate::pacer::Plan;
use crate::pubsub::drain;
use crate::report::Rows;
use crate::roster::Phase;
use crate::schedule::Schedule;
use crate::setup::Setup;
use crate::table::Table;
use crate::traffic::{Pacing, TrafficPlan};
use crate::worker::ConnectTally;

pub(crate) struct Steady {
    crew: Crew<MessageTally>,
    layout: Layout,
}

/// Whether they have noticed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SteadyReport {
    pub(crate) pairs: u32,
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    /// From when a message was due.
    pub(crate) acknowledged: LatencySummary,
    pub(crate) delivery: LatencySummary,
}

impl Steady {
    /// Connects the pairs, which are the clients from `first_client` on, and has them publish.
    pub(crate) async fn start(
        setup: &Setup,
        pairs: u32,
        rate: f64,
        qos: QoS,
        first_client: u32,
    ) -> Result<Self, CrewError> {
        let layout =
            Layout { publishers: pairs, subscribers: pairs, topics: pairs, all_topics: false, shared: false };
        let plan = TrafficPlan {
            layout,
            first_client,
            subscribes: true,
            topic: "steady/%r/%i".parse().expect("a constant, and a template"),
            share: None,
            run: setup.connector.run,
            qos,
            retain: false,
            message_expiry_seconds: None,
            named: false,
            size_bytes: STEADY_SIZE_BYTES,
            window: None,
            pacing: Pacing::Open(Plan { schedule: Schedule::new(rate), publishers: pairs, total: u64::MAX }),
        };
        let clients = first_client..first_client + 2 * pairs;
        let crew = Crew::start(setup, clients, plan)?;
        if connect_all(&crew, setup, u64::from(pairs) * 2, None).await.watched == Watched::Done {
            crew.enter(Phase::Publishing(crew.soon()));
        }
        Ok(Self { crew, layout })
    }

    /// Waits for what is under way.
    pub(crate) async fn finish(
        self,
        longest: std::time::Duration,
    ) -> Result<(SteadyReport, ConnectTally), CrewError> {
        self.crew.enter(Phase::Draining);
        drain(&self.crew, longest, Totals::is_settled).await;
        let Finished { connects, outcomes, totals, .. } = self.crew.finish()?;
        let tally = MessageTally::sum(outcomes);
        let (_, lost) = settle(self.layout, &tally.published, &tally.received, &tally.shared);
        let report = SteadyReport {
            pairs: self.layout.publishers,
            sent: totals.sent,
            accepted: totals.accepted,
            delivered: totals.delivered,
            lost,
            duplicates: tally.duplicates(),
            reordered: tally.reordered(),
            acknowledged: tally.acknowledged.summary(),
            delivery: tally.delivered.summary(),
        };
        Ok((report, connects))
    }
}

impl Rows for SteadyReport {
    fn rows(&self, table: &mut Table<'_>) -> io::Result<()> {
        let Self { pairs, sent, accepted, delivered, lost, duplicates, .. } = self;
        table.row(
            "steady pairs",
            &format!(
                "{pairs}: {sent} sent, {accepted} accepted, {delivered} delivered; {lost} lost, {duplicates} duplicates"
            ),
        )?;
        table.latencies(&[("PUBACK, since due", self.acknowledged), ("delivery, since due", self.delivery)])
    }
}
