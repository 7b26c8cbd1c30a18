//! What coordinator and agents say to each other.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::counters::Totals;
use crate::demand::Demand;
use crate::interval::Interval;
use crate::own_usage::OwnUsage;
use crate::play::Play;
use crate::roster::Phase;
use crate::run_clock::Micros;
use crate::terms::Terms;
use crate::worker::ConnectTally;

/// Counted from 0, in the order in which a run begins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CrewId(pub(crate) u32);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToAgent {
    /// To be answered at once.
    Ping(u32),
    Prepare(Box<Job>),
    Begin(Box<CrewJob>),
    Enter {
        crew: CrewId,
        phase: Phase,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromAgent {
    Pong {
        number: u32,
        /// Of the agent's own clock.
        at_us: i64,
    },
    Prepared,
    Refused(String),
    Progress(Box<Progress>),
    Done {
        crew: CrewId,
        /// A [`PartDone`], of the crew's own kind of outcome.
        done: serde_json::Value,
    },
}

/// An agent's part of a whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The coordinator's command line: files that it names are read where the agent runs.
    pub(crate) arguments: Vec<String>,
    /// Which of so many parts this is.
    pub(crate) index: u32,
    pub(crate) parts: u32,
    /// Of this part.
    pub(crate) demand: Demand,
    pub(crate) run: u32,
    /// When the run's clock was zero, by the agent's own clock.
    pub(crate) zero_us: i64,
    /// `None`: as many as the agent's machine has cores.
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CrewJob {
    pub(crate) crew: CrewId,
    /// Of the whole crew.
    pub(crate) clients: Range<u32>,
    pub(crate) terms: Terms,
    /// When the first connection is due.
    pub(crate) start: Micros,
    pub(crate) play: Play,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Since the run began here.
    pub(crate) own: OwnUsage,
    /// Those that are not done.
    pub(crate) crews: Vec<(CrewId, CrewProgress)>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CrewProgress {
    /// When the totals were taken.
    pub(crate) at: Micros,
    /// Phases entered before the totals were taken.
    pub(crate) phases: u32,
    pub(crate) totals: Totals,
    pub(crate) intervals: Vec<Interval>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartDone<T> {
    pub(crate) connects: ConnectTally,
    pub(crate) returns: ConnectTally,
    pub(crate) outcomes: Vec<T>,
    pub(crate) last: CrewProgress,
}
