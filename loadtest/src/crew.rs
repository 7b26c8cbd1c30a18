//! Those who do the work of a run, in this process or in others, and the one that watches them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::agents::{Agents, AgentsError};
use crate::counters::Totals;
use crate::finished::Finished;
use crate::limits::{SPREAD_LEAD, WATCH_INTERVAL};
use crate::part::Part;
use crate::recorder::{Recorder, Source};
use crate::roster::Phase;
use crate::run_clock::{Micros, RunClock};
use crate::setup::Setup;
use crate::threads::{Threads, ThreadsError};
use crate::worker::Role;

pub(crate) struct Crew<T> {
    hands: Hands<T>,
    recorder: Arc<Recorder>,
    interrupted: Arc<AtomicBool>,
    clock: RunClock,
    /// When the first connection is due.
    pub(crate) start: Micros,
}

enum Hands<T> {
    Threads(Threads<T>),
    Agents(Arc<Agents>, fn(&Agents) -> Result<Finished<T>, AgentsError>),
}

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Done,
    /// By Ctrl-C, or because a thread or a process has ended.
    Interrupted,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error(transparent)]
    Agents(#[from] AgentsError),
    #[error("this scenario runs in one process: without --processes and --agents")]
    OneProcess,
}

impl<T: Send + 'static> Crew<T> {
    /// Starts connecting, in this process. `role` is called once on each thread.
    pub(crate) fn start<R: Role<Outcome = T>>(
        setup: &Setup,
        clients: Range<u32>,
        role: impl Fn() -> R + Clone + Send + 'static,
    ) -> Result<Self, CrewError> {
        if setup.agents.is_some() {
            return Err(CrewError::OneProcess);
        }
        // A moment for the threads to start before the first connection is due.
        let start = setup.connector.clock.now().plus(WATCH_INTERVAL);
        let threads = Threads::start(setup, &clients, Part::WHOLE, start, role)?;
        Ok(Self::of(Hands::Threads(threads), setup, start))
    }

    /// Starts connecting, wherever the run is spread to. Processes elsewhere make their roles from the same
    /// command line.
    pub(crate) fn spread<R: Role<Outcome = T>>(
        setup: &Setup,
        clients: Range<u32>,
        publishers: u32,
        role: impl Fn() -> R + Clone + Send + 'static,
    ) -> Result<Self, CrewError>
    where
        T: DeserializeOwned,
    {
        let Some(agents) = &setup.agents else { return Self::start(setup, clients, role) };
        agents.prepare(setup.connector.run, publishers)?;
        let start = setup.connector.clock.now().plus(SPREAD_LEAD);
        agents.start(start);
        Ok(Self::of(Hands::Agents(Arc::clone(agents), Agents::finish), setup, start))
    }

    fn of(hands: Hands<T>, setup: &Setup, start: Micros) -> Self {
        let recorder = Arc::clone(&setup.recorder);
        recorder.follow(hands.source());
        recorder.mark("connecting");
        let interrupted = Arc::clone(&setup.interrupted);
        Self { hands, recorder, interrupted, clock: setup.connector.clock, start }
    }

    /// The next moment that everyone can hear of before it is there.
    pub(crate) fn soon(&self) -> Micros {
        self.clock.now().plus(match &self.hands {
            Hands::Threads(_) => WATCH_INTERVAL,
            Hands::Agents(..) => SPREAD_LEAD,
        })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.recorder.mark(phase.name());
        match &self.hands {
            Hands::Threads(threads) => threads.enter(phase),
            Hands::Agents(agents, _) => agents.enter(phase),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.hands.source().totals()
    }

    /// What has been counted, and when that was.
    pub(crate) fn counted(&self) -> (Totals, Micros) {
        match &self.hands {
            Hands::Threads(_) => (self.totals(), self.clock.now()),
            Hands::Agents(agents, _) => agents.counted(),
        }
    }

    /// Looks at the run again and again until `done` says so, or to the deadline, exactly.
    pub(crate) async fn watch(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(Totals) -> bool,
    ) -> Watched {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if self.hands.knows_the_phase() && done(self.totals()) || left == Some(Duration::ZERO) {
                return Watched::Done;
            }
            if self.hands.have_ended() || self.interrupted.load(Ordering::Relaxed) {
                return Watched::Interrupted;
            }
            tokio::time::sleep(left.unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL)).await;
        }
    }

    /// Has every session say DISCONNECT, and takes what has been counted.
    pub(crate) fn finish(self) -> Result<Finished<T>, CrewError> {
        if let Hands::Agents(agents, _) = &self.hands {
            agents.compare_clocks_again(self.clock);
        }
        self.enter(Phase::Stopping);
        let source = self.hands.source();
        let finished = match self.hands {
            Hands::Threads(threads) => threads.finish()?,
            Hands::Agents(agents, finish) => {
                let finished = finish(&agents)?;
                for trouble in agents.troubles() {
                    self.recorder.add_trouble(trouble);
                }
                for warning in agents.warnings() {
                    self.recorder.add_warning(warning);
                }
                finished
            }
        };
        self.recorder.leave(&source);
        Ok(finished)
    }
}

impl<T: Send + 'static> Hands<T> {
    fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Threads(threads) => Arc::clone(threads.tallies()) as Arc<dyn Source>,
            Self::Agents(agents, _) => Arc::clone(agents) as Arc<dyn Source>,
        }
    }

    /// Whether what they have counted is of the phase that they are to be in.
    fn knows_the_phase(&self) -> bool {
        match self {
            Self::Threads(_) => true,
            Self::Agents(agents, _) => agents.know_the_phase(),
        }
    }

    fn have_ended(&self) -> bool {
        match self {
            Self::Threads(threads) => threads.has_ended(),
            Self::Agents(agents, _) => agents.is_one_lost(),
        }
    }
}
