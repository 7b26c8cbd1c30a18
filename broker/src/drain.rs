//! Leaving: the node says it is not ready, takes nobody more, and sends its clients away at a rate.
//!
//! ```text
//! readiness says no ── grace ── no more are accepted ── clients are sent away, so many a second ── they are gone
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};
use sotto_model::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Leaving;
use crate::connection_id::ConnectionId;
use crate::services::Services;
use crate::session_entry::{Command, SessionEntry};

/// Between two lots of clients that are sent away.
const STEP: Duration = Duration::from_millis(50);
const STEPS_PER_SECOND: u32 = 20;
/// A line of the log every five seconds.
const STEPS_PER_LINE: u32 = 5 * STEPS_PER_SECOND;
/// From when the last client was told until connections are dropped where they stand.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);

/// How the node is to be left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainPlan {
    /// Clients sent away a second; 0: all at once.
    pub(crate) per_second: u32,
    /// From not being ready until clients are sent away: for whoever asks whether it is.
    pub(crate) grace_seconds: u32,
    /// The Server Reference that version 5 clients are given.
    pub(crate) to: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Drained {
    pub(crate) sent_away: usize,
    /// Connections that did not end in time.
    pub(crate) left: usize,
    pub(crate) seconds: u64,
}

/// How the node's parts agree that it leaves.
#[derive(Clone)]
pub(crate) struct Departure {
    plan: watch::Sender<Option<DrainPlan>>,
    done: watch::Sender<Option<Drained>>,
    hurry: CancellationToken,
}

impl Departure {
    pub(crate) fn new() -> Self {
        Self {
            plan: watch::Sender::new(None),
            done: watch::Sender::new(None),
            hurry: CancellationToken::new(),
        }
    }

    /// The first plan counts; whoever asks again makes it faster.
    pub(crate) fn ask(&self, plan: DrainPlan) {
        let is_first = self.plan.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(plan);
            is_first
        });
        if !is_first {
            self.hurry.cancel();
        }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.plan.borrow().is_some()
    }

    pub(crate) async fn asked(&self) -> DrainPlan {
        let mut plan = self.plan.subscribe();
        let asked = plan.wait_for(Option::is_some).await.expect("the sender is here");
        asked.clone().expect("it was waited for")
    }

    pub(crate) async fn done(&self) -> Drained {
        let mut done = self.done.subscribe();
        let drained = *done.wait_for(Option::is_some).await.expect("the sender is here");
        drained.expect("it was waited for")
    }
}

/// One leaving.
pub(crate) struct Drain<'a> {
    pub(crate) services: &'a Services,
    pub(crate) connections: &'a TaskTracker,
    /// No connection is accepted any more.
    pub(crate) stopping: &'a CancellationToken,
}

impl Drain<'_> {
    /// Returns when everybody is gone, or was given time enough to go.
    pub(crate) async fn run(&self, plan: &DrainPlan, departure: &Departure) -> Drained {
        let clock = &self.services.clock;
        let began = clock.now();
        let grace = Duration::from_secs(plan.grace_seconds.into());
        tokio::select! {
            biased;
            () = departure.hurry.cancelled() => {}
            () = tokio::time::sleep(grace) => {}
        }
        self.stopping.cancel();
        let to = plan.to.as_deref().map(Arc::from);
        let command = if plan.to.is_some() { Command::SentElsewhere } else { Command::ShutDown };
        self.services.admission.stop(Leaving { to }, clock.tenths());
        self.connections.close();

        let sent_away = self.send_away(command, plan.per_second, &departure.hurry).await;
        let left = self.connections.len();
        if left > 0 {
            tracing::warn!(event = "drain_timed_out", count = left, "connections were still open");
        }
        let seconds = clock.now().saturating_duration_since(began).as_secs();
        let drained = Drained { sent_away, left, seconds };
        tracing::info!(event = "drained", count = sent_away, "clients were sent away");
        departure.done.send_replace(Some(drained));
        drained
    }

    /// Also those who come to CONNACK meanwhile; nobody twice.
    async fn send_away(&self, command: Command, per_second: u32, hurry: &CancellationToken) -> usize {
        let clock = &self.services.clock;
        let mut told = HashSet::new();
        let mut waiting: Vec<(ConnectionId, Arc<SessionEntry>)> = Vec::new();
        let mut last_told = clock.now();
        let mut owed = 0.0;
        for step in 1_u32.. {
            if waiting.is_empty() {
                self.services.registry.for_each(|entry| {
                    if let Some(owner) = entry.owner().filter(|owner| !told.contains(owner)) {
                        waiting.push((owner, entry.clone()));
                    }
                });
            }
            owed += f64::from(per_second) / f64::from(STEPS_PER_SECOND);
            let at_once = per_second == 0 || hurry.is_cancelled();
            while !waiting.is_empty() && (at_once || owed >= 1.0) {
                owed -= 1.0;
                let Some((owner, entry)) = waiting.pop() else { break };
                told.insert(owner);
                entry.command_to(owner, command);
                counter!("sotto_drained_total").increment(1);
                last_told = clock.now();
            }
            if waiting.is_empty() {
                // What was not used is not saved for later.
                owed = 0.0;
            }
            gauge!("sotto_drain_remaining").set(count(self.connections.len()));
            if step.is_multiple_of(STEPS_PER_LINE) {
                let remaining = self.connections.len();
                tracing::info!(event = "draining", count = remaining, "connections are still open");
            }
            let late = clock.now().saturating_duration_since(last_told) >= LAST_WORDS_MAX;
            if waiting.is_empty() && late {
                break;
            }
            let gone = tokio::time::timeout(STEP, self.connections.wait()).await.is_ok();
            if gone {
                break;
            }
        }
        gauge!("sotto_drain_remaining").set(count(self.connections.len()));
        told.len()
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
