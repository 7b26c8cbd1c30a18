//! The threads of one process that do the work of a run, or of a part of it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::counters::{Counters, Totals};
use crate::finished::Finished;
use crate::interval::{Interval, IntervalQueue};
use crate::part::Part;
use crate::recorder::Source;
use crate::roster::Phase;
use crate::run_clock::Micros;
use crate::schedule::Schedule;
use crate::script::Script;
use crate::setup::Setup;
use crate::worker::{ConnectTally, Done, Role, Share, Worker};

pub(crate) struct Threads<T> {
    handles: Vec<JoinHandle<io::Result<Done<T>>>>,
    phases: watch::Sender<Phase>,
    tallies: Arc<ThreadTallies>,
}

/// What the threads count while they work.
#[derive(Debug)]
pub(crate) struct ThreadTallies {
    counters: Arc<[Counters]>,
    intervals: Vec<IntervalQueue>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ThreadsError {
    #[error("thread could not start: {0}")]
    Start(io::Error),
    #[error("thread panicked")]
    Panicked,
}

impl<T: Send + 'static> Threads<T> {
    /// Those of `clients` that belong to the part begin to connect; the first of all is due at `start`.
    pub(crate) fn start<S: Script<Role: Role<Outcome = T>>>(
        setup: &Setup,
        clients: &Range<u32>,
        part: Part,
        start: Micros,
        script: S,
    ) -> Result<Self, ThreadsError> {
        let role = script.cast();
        let (phases, receiver) = watch::channel(Phase::Connecting);
        let counters: Arc<[Counters]> = (0..setup.threads).map(|_| Counters::default()).collect();
        let intervals: Vec<_> = (0..setup.threads).map(|_| IntervalQueue::default()).collect();
        let mut threads = Vec::with_capacity(setup.threads);
        for (index, intervals) in intervals.iter().enumerate() {
            let intervals = intervals.clone();
            let share = Share {
                index,
                threads: setup.threads,
                part,
                first_client: clients.start,
                clients: clients.end - clients.start,
                schedule: Schedule::new(setup.connect_rate),
                start,
                in_flight: setup.connect_in_flight.div_ceil(setup.threads * part.parts as usize),
            };
            let (connector, counters) = (Arc::clone(&setup.connector), Arc::clone(&counters));
            let (receiver, role) = (receiver.clone(), role.clone());
            let thread = std::thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || Worker::run(connector, counters, intervals, share, role(), receiver));
            threads.push(thread.map_err(ThreadsError::Start)?);
        }
        Ok(Self { handles: threads, phases, tallies: Arc::new(ThreadTallies { counters, intervals }) })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phases.send_replace(phase);
    }

    pub(crate) fn tallies(&self) -> &Arc<ThreadTallies> {
        &self.tallies
    }

    /// A thread that ends by itself has panicked or could not begin.
    pub(crate) fn has_ended(&self) -> bool {
        self.handles.iter().any(JoinHandle::is_finished)
    }

    pub(crate) fn have_ended(&self) -> bool {
        self.handles.iter().all(JoinHandle::is_finished)
    }

    /// Has every session say DISCONNECT, and takes what the threads have counted.
    pub(crate) fn finish(self) -> Result<Finished<T>, ThreadsError> {
        self.enter(Phase::Stopping);
        let (mut connects, mut returns) = (ConnectTally::new(), ConnectTally::new());
        let mut outcomes = Vec::with_capacity(self.handles.len());
        for thread in self.handles {
            let done = thread.join().map_err(|_| ThreadsError::Panicked)?.map_err(ThreadsError::Start)?;
            connects.add(&done.connects);
            returns.add(&done.returns);
            outcomes.push(done.outcome);
        }
        Ok(Finished { connects, returns, outcomes, totals: self.tallies.totals() })
    }
}

impl Source for ThreadTallies {
    fn totals(&self) -> Totals {
        Totals::of(self.counters.iter())
    }

    fn take_intervals(&self) -> Vec<Interval> {
        self.intervals.iter().flat_map(IntervalQueue::take).collect()
    }
}
