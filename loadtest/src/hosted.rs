//! A part of a crew, as the agent has it that does the work.

use serde::Serialize;

use crate::part::Part;
use crate::play::Play;
use crate::recorder::Source;
use crate::roster::Phase;
use crate::run_clock::RunClock;
use crate::script::Script;
use crate::setup::Setup;
use crate::threads::{Threads, ThreadsError};
use crate::wire::{CrewJob, CrewProgress, PartDone};

/// Whatever its clients do.
pub(crate) trait Hosted {
    fn enter(&mut self, phase: Phase);

    fn progress(&self) -> CrewProgress;

    fn state(&self) -> HostedState;

    /// What it has come to; a [`PartDone`].
    fn finish(self: Box<Self>) -> Result<serde_json::Value, HostedError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostedState {
    Working,
    /// As it was told; its sessions say DISCONNECT.
    Stopping,
    /// All that there is to do is done, as it was told.
    Done,
    /// A thread has ended by itself.
    Broken,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HostedError {
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error("outcome cannot be written: {0}")]
    Unwritable(serde_json::Error),
}

/// The clients of `job` that belong to the agent's part begin to connect.
pub(crate) fn host(
    setup: &Setup,
    index: u32,
    parts: u32,
    job: &CrewJob,
) -> Result<Box<dyn Hosted>, ThreadsError> {
    let part = (index, parts);
    match job.play.clone() {
        Play::Hold(script) => begin(setup, part, job, script),
        Play::Traffic(script) => begin(setup, part, job, *script),
        Play::Storm(script) => begin(setup, part, job, script),
        Play::Churn(script) => begin(setup, part, job, script),
    }
}

fn begin<S: Script>(
    setup: &Setup,
    (index, parts): (u32, u32),
    job: &CrewJob,
    script: S,
) -> Result<Box<dyn Hosted>, ThreadsError> {
    let part = Part { index, parts, publishers: script.publishers() };
    let threads = Threads::start(setup, &job.clients, part, job.start, script)?;
    Ok(Box::new(HostedCrew { threads, clock: setup.connector.clock, phases: 0, is_stopping: false }))
}

struct HostedCrew<T> {
    threads: Threads<T>,
    clock: RunClock,
    /// Those that it has entered.
    phases: u32,
    is_stopping: bool,
}

impl<T: Serialize + Send + 'static> Hosted for HostedCrew<T> {
    fn enter(&mut self, phase: Phase) {
        self.phases += 1;
        self.is_stopping = phase == Phase::Stopping;
        self.threads.enter(phase);
    }

    fn progress(&self) -> CrewProgress {
        progress(self.phases, self.clock, self.threads.tallies().as_ref())
    }

    fn state(&self) -> HostedState {
        match self.is_stopping {
            true if self.threads.have_ended() => HostedState::Done,
            true => HostedState::Stopping,
            false if self.threads.has_ended() => HostedState::Broken,
            false => HostedState::Working,
        }
    }

    fn finish(self: Box<Self>) -> Result<serde_json::Value, HostedError> {
        let tallies = std::sync::Arc::clone(self.threads.tallies());
        let finished = self.threads.finish()?;
        let done = PartDone {
            connects: finished.connects,
            returns: finished.returns,
            outcomes: finished.outcomes,
            last: progress(self.phases, self.clock, tallies.as_ref()),
        };
        serde_json::to_value(done).map_err(HostedError::Unwritable)
    }
}

fn progress(phases: u32, clock: RunClock, tallies: &impl Source) -> CrewProgress {
    CrewProgress { at: clock.now(), phases, totals: tallies.totals(), intervals: tallies.take_intervals() }
}
