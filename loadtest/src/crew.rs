//! The threads of a run, and the one that watches them.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::counters::{Counters, Totals};
use crate::interval::{Interval, IntervalQueue};
use crate::limits::WATCH_INTERVAL;
use crate::own_usage::OwnUsage;
use crate::recorder::{Recorder, Source};
use crate::roster::Phase;
use crate::run_clock::Micros;
use crate::schedule::Schedule;
use crate::setup::Setup;
use crate::worker::{ConnectTally, Done, Role, Share, Worker};

pub(crate) struct Crew<T> {
    threads: Vec<JoinHandle<io::Result<Done<T>>>>,
    phases: watch::Sender<Phase>,
    tallies: Arc<ThreadTallies>,
    recorder: Arc<Recorder>,
    interrupted: Arc<AtomicBool>,
    /// When the first connection is due.
    pub(crate) start: Micros,
}

/// What the threads count while they work.
#[derive(Debug)]
struct ThreadTallies {
    counters: Arc<[Counters]>,
    intervals: Vec<IntervalQueue>,
}

/// What the threads have counted.
pub(crate) struct Finished<T> {
    pub(crate) connects: ConnectTally,
    /// Of clients that came back.
    pub(crate) returns: ConnectTally,
    /// Of each thread.
    pub(crate) outcomes: Vec<T>,
    pub(crate) totals: Totals,
}

/// Why watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Done,
    /// By Ctrl-C, or because a thread has ended.
    Interrupted,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    #[error("thread could not start: {0}")]
    Start(io::Error),
    #[error("thread panicked")]
    Panicked,
}

impl<T: Send + 'static> Crew<T> {
    /// Starts connecting. `role` is called once on each thread.
    pub(crate) fn start<R: Role<Outcome = T>>(
        setup: &Setup,
        clients: Range<u32>,
        role: impl Fn() -> R + Clone + Send + 'static,
    ) -> Result<Self, CrewError> {
        let (phases, receiver) = watch::channel(Phase::Connecting);
        let counters: Arc<[Counters]> = (0..setup.threads).map(|_| Counters::default()).collect();
        let intervals: Vec<_> = (0..setup.threads).map(|_| IntervalQueue::default()).collect();
        // A moment for the threads to start before the first connection is due.
        let start = setup.connector.clock.now().plus(WATCH_INTERVAL);
        let mut threads = Vec::with_capacity(setup.threads);
        for (index, intervals) in intervals.iter().enumerate() {
            let intervals = intervals.clone();
            let share = Share {
                index,
                threads: setup.threads,
                first_client: clients.start,
                clients: clients.end - clients.start,
                schedule: Schedule::new(setup.connect_rate),
                start,
                in_flight: setup.connect_in_flight.div_ceil(setup.threads),
            };
            let (connector, counters) = (Arc::clone(&setup.connector), Arc::clone(&counters));
            let (receiver, role) = (receiver.clone(), role.clone());
            let thread = std::thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || Worker::run(connector, counters, intervals, share, role(), receiver));
            threads.push(thread.map_err(CrewError::Start)?);
        }
        let tallies = Arc::new(ThreadTallies { counters, intervals });
        let recorder = Arc::clone(&setup.recorder);
        recorder.follow(Arc::clone(&tallies) as Arc<dyn Source>);
        recorder.mark("connecting");
        let interrupted = Arc::clone(&setup.interrupted);
        Ok(Self { threads, phases, tallies, recorder, interrupted, start })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.recorder.mark(phase.name());
        self.phases.send_replace(phase);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.tallies.totals()
    }

    /// Looks at the run again and again until `done` says so, or to the deadline, exactly.
    pub(crate) async fn watch(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(Totals) -> bool,
    ) -> Watched {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if done(self.totals()) || left == Some(Duration::ZERO) {
                return Watched::Done;
            }
            // A thread that ends by itself has panicked or could not begin.
            let a_thread_ended = self.threads.iter().any(JoinHandle::is_finished);
            if a_thread_ended || self.interrupted.load(Ordering::Relaxed) {
                return Watched::Interrupted;
            }
            tokio::time::sleep(left.unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL)).await;
        }
    }

    /// Has every session say DISCONNECT, and takes what the threads have counted.
    pub(crate) fn finish(self) -> Result<Finished<T>, CrewError> {
        self.enter(Phase::Stopping);
        let (mut connects, mut returns) = (ConnectTally::new(), ConnectTally::new());
        let mut outcomes = Vec::with_capacity(self.threads.len());
        for thread in self.threads {
            let done = thread.join().map_err(|_| CrewError::Panicked)?.map_err(CrewError::Start)?;
            connects.add(&done.connects);
            returns.add(&done.returns);
            outcomes.push(done.outcome);
        }
        let totals = self.tallies.totals();
        self.recorder.leave(&(self.tallies as Arc<dyn Source>));
        Ok(Finished { connects, returns, outcomes, totals })
    }
}

impl Source for ThreadTallies {
    fn totals(&self) -> Totals {
        Totals::of(self.counters.iter())
    }

    fn take_intervals(&self) -> Vec<Interval> {
        self.intervals.iter().flat_map(IntervalQueue::take).collect()
    }

    fn own_usage(&self) -> Vec<OwnUsage> {
        vec![OwnUsage::sample(self.counters.len())]
    }
}
