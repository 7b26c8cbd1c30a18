//! Those who do the work of a run, in this process or in others, and the one that watches them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::counters::Totals;
use crate::finished::Finished;
use crate::limits::{SPREAD_LEAD, WATCH_INTERVAL};
use crate::part::Part;
use crate::play::Play;
use crate::recorder::{Recorder, Source};
use crate::roster::Phase;
use crate::run_clock::{Micros, RunClock};
use crate::script::Script;
use crate::setup::Setup;
use crate::spread_crew::SpreadCrew;
use crate::threads::{Threads, ThreadsError};
use crate::wire::CrewJob;
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
    Spread(Arc<SpreadCrew>),
}

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Done,
    /// By Ctrl-C, or because a thread or a process has ended.
    Interrupted,
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct CrewError(#[from] ThreadsError);

impl<T: DeserializeOwned + Send + 'static> Crew<T> {
    /// Starts connecting, wherever the run is spread to.
    pub(crate) fn start<S>(setup: &Setup, clients: Range<u32>, script: S) -> Result<Self, CrewError>
    where
        S: Script<Role: Role<Outcome = T>>,
        Play: From<S>,
    {
        let now = setup.connector.clock.now();
        let (hands, start) = if let Some(agents) = &setup.agents {
            let start = now.plus(SPREAD_LEAD);
            let (crew, terms) = (agents.next_crew(), setup.terms());
            let job = CrewJob { crew, clients, terms, start, play: script.into() };
            (Hands::Spread(Arc::new(SpreadCrew::begin(agents, job))), start)
        } else {
            // A moment for the threads to start before the first connection is due.
            let start = now.plus(WATCH_INTERVAL);
            (Hands::Threads(Threads::start(setup, &clients, Part::WHOLE, start, script)?), start)
        };
        let recorder = Arc::clone(&setup.recorder);
        recorder.follow(hands.source());
        recorder.mark("connecting");
        let interrupted = Arc::clone(&setup.interrupted);
        Ok(Self { hands, recorder, interrupted, clock: setup.connector.clock, start })
    }

    /// The next moment that everyone can hear of before it is there.
    pub(crate) fn soon(&self) -> Micros {
        self.clock.now().plus(match &self.hands {
            Hands::Threads(_) => WATCH_INTERVAL,
            Hands::Spread(_) => SPREAD_LEAD,
        })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.recorder.mark(phase.name());
        match &self.hands {
            Hands::Threads(threads) => threads.enter(phase),
            Hands::Spread(crew) => crew.enter(phase),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.hands.source().totals()
    }

    /// What has been counted, and when that was.
    pub(crate) fn counted(&self) -> (Totals, Micros) {
        match &self.hands {
            Hands::Threads(_) => (self.totals(), self.clock.now()),
            Hands::Spread(crew) => crew.counted(),
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
            if self.hands.have_ended() {
                // Whatever the scenario would do next it cannot do.
                self.interrupted.store(true, Ordering::Relaxed);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Watched::Interrupted;
            }
            tokio::time::sleep(left.unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL)).await;
        }
    }

    /// Has every session say DISCONNECT, and takes what has been counted.
    pub(crate) fn finish(self) -> Result<Finished<T>, CrewError> {
        self.enter(Phase::Stopping);
        let source = self.hands.source();
        let finished = match self.hands {
            Hands::Threads(threads) => threads.finish()?,
            Hands::Spread(crew) => crew.finish(),
        };
        self.recorder.leave(&source);
        Ok(finished)
    }
}

impl<T: Send + 'static> Hands<T> {
    fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Threads(threads) => Arc::clone(threads.tallies()) as Arc<dyn Source>,
            Self::Spread(crew) => Arc::clone(crew) as Arc<dyn Source>,
        }
    }

    /// Whether what they have counted is of the phase that they are to be in.
    fn knows_the_phase(&self) -> bool {
        match self {
            Self::Threads(_) => true,
            Self::Spread(crew) => crew.knows_the_phase(),
        }
    }

    fn have_ended(&self) -> bool {
        match self {
            Self::Threads(threads) => threads.has_ended(),
            Self::Spread(crew) => crew.has_lost_one(),
        }
    }
}
