//! A crew whose clients are with several agents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::agents::Agents;
use crate::counters::Totals;
use crate::finished::Finished;
use crate::interval::Interval;
use crate::limits::AGENT_DONE_TIMEOUT;
use crate::recorder::Source;
use crate::roster::Phase;
use crate::run_clock::Micros;
use crate::wire::{CrewId, CrewJob, PartDone, ToAgent};
use crate::worker::ConnectTally;

pub(crate) struct SpreadCrew {
    agents: Arc<Agents>,
    crew: CrewId,
    /// Phases that the agents were told to enter.
    phases: AtomicU32,
}

impl SpreadCrew {
    /// `job` says which crew it is.
    pub(crate) fn begin(agents: &Arc<Agents>, job: CrewJob) -> Self {
        let crew = job.crew;
        agents.tell(&ToAgent::Begin(Box::new(job)));
        Self { agents: Arc::clone(agents), crew, phases: AtomicU32::new(0) }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phases.fetch_add(1, Ordering::Relaxed);
        self.agents.tell(&ToAgent::Enter { crew: self.crew, phase });
    }

    /// What all have counted, and when that was: each says it ten times a second.
    pub(crate) fn counted(&self) -> (Totals, Micros) {
        let times = self.agents.remotes().map(|remote| remote.heard.crew(self.crew).at.0);
        let (sum, count) = times.fold((0, 0), |(sum, count), at| (sum + at, count + 1));
        (self.totals(), Micros(sum / u64::max(count, 1)))
    }

    /// Whether the totals are all of the phase that was entered last.
    pub(crate) fn knows_the_phase(&self) -> bool {
        let phases = self.phases.load(Ordering::Relaxed);
        self.agents
            .remotes()
            .all(|remote| remote.heard.crew(self.crew).phases == phases || remote.heard.lost().is_some())
    }

    pub(crate) fn has_lost_one(&self) -> bool {
        self.agents.is_one_lost()
    }

    /// What each has counted in its part, joined. Of an agent that is lost there are the last totals.
    pub(crate) fn finish<T: DeserializeOwned>(&self) -> Finished<T> {
        let (mut connects, mut returns) = (ConnectTally::new(), ConnectTally::new());
        let mut outcomes = Vec::new();
        let deadline = Instant::now() + AGENT_DONE_TIMEOUT;
        for remote in self.agents.remotes() {
            let patience = deadline.saturating_duration_since(Instant::now());
            let Some(done) = remote.heard.wait_until_done(self.crew, patience) else {
                remote.heard.lose("did not end in time".into());
                continue;
            };
            match serde_json::from_value::<PartDone<T>>(done) {
                Ok(done) => {
                    remote.heard.take_last(self.crew, done.last);
                    connects.add(&done.connects);
                    returns.add(&done.returns);
                    outcomes.extend(done.outcomes);
                }
                Err(error) => remote.heard.lose(format!("said something else than expected: {error}")),
            }
        }
        Finished { connects, returns, outcomes, totals: self.totals() }
    }
}

impl Source for SpreadCrew {
    fn totals(&self) -> Totals {
        let totals = self.agents.remotes().map(|remote| remote.heard.crew(self.crew).totals);
        totals.fold(Totals::default(), Totals::plus)
    }

    fn take_intervals(&self) -> Vec<Interval> {
        self.agents.remotes().flat_map(|remote| remote.heard.take_intervals(self.crew)).collect()
    }
}

impl Drop for SpreadCrew {
    fn drop(&mut self) {
        self.agents.remotes().for_each(|remote| remote.heard.forget(self.crew));
    }
}
