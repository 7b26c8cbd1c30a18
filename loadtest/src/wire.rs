//! What coordinator and agents say to each other.

use serde::{Deserialize, Serialize};

use crate::counters::Totals;
use crate::interval::Interval;
use crate::own_usage::OwnUsage;
use crate::part::Part;
use crate::roster::Phase;
use crate::run_clock::Micros;
use crate::worker::ConnectTally;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToAgent {
    /// To be answered at once.
    Ping(u32),
    Prepare(Box<Job>),
    /// The first connection is due at this time of the run's clock.
    Start(Micros),
    Enter(Order),
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
    /// A [`PartDone`], of the scenario's own kind of outcome.
    Done(serde_json::Value),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The coordinator's command line: files that it names are read where the agent runs.
    pub(crate) arguments: Vec<String>,
    pub(crate) part: Part,
    pub(crate) run: u32,
    /// When the run's clock was zero, by the agent's own clock.
    pub(crate) zero_us: i64,
    /// `None`: as many as the agent's machine has cores.
    pub(crate) threads: Option<u16>,
}

/// The phases that a run which is spread can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    Publish(Micros),
    Drain,
    Stop,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// When the totals were taken.
    pub(crate) at: Micros,
    /// Orders followed before the totals were taken.
    pub(crate) orders: u32,
    pub(crate) totals: Totals,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) own: OwnUsage,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartDone<T> {
    pub(crate) connects: ConnectTally,
    pub(crate) returns: ConnectTally,
    pub(crate) outcomes: Vec<T>,
    pub(crate) last: Progress,
}

impl Order {
    /// `None` for phases that a run which is spread does not have.
    pub(crate) fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Publishing(start) => Some(Self::Publish(start)),
            Phase::Draining => Some(Self::Drain),
            Phase::Stopping => Some(Self::Stop),
            Phase::Connecting | Phase::Cut(_) => None,
        }
    }

    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Publish(start) => Phase::Publishing(start),
            Self::Drain => Phase::Draining,
            Self::Stop => Phase::Stopping,
        }
    }
}
