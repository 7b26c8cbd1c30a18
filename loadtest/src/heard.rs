//! What an agent has said: written by the thread that hears it, read by those that watch the run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::counters::Totals;
use crate::interval::{Interval, IntervalQueue};
use crate::limits::{AGENT_ANSWER_TIMEOUT, AGENT_SILENCE_MAX};
use crate::link::Receiver;
use crate::own_usage::OwnUsage;
use crate::run_clock::{Micros, RunClock};
use crate::wire::{CrewId, CrewProgress, FromAgent};

pub(crate) struct Heard {
    /// Locked for as long as it takes to copy a few numbers.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    at: Instant,
    pong: Option<Pong>,
    /// From then on it says how far it is, again and again.
    prepared: bool,
    own: OwnUsage,
    crews: BTreeMap<CrewId, CrewHeard>,
    done: BTreeMap<CrewId, serde_json::Value>,
    lost: Option<String>,
}

/// The agent's answer to the question for its clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pong {
    number: u32,
    /// Of the run's clock.
    pub(crate) heard: Micros,
    /// Of the agent's.
    pub(crate) at_us: i64,
}

/// How far an agent's part of a crew is.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrewHeard {
    /// When the totals were taken.
    pub(crate) at: Micros,
    /// Phases entered before the totals were taken.
    pub(crate) phases: u32,
    pub(crate) totals: Totals,
    intervals: IntervalQueue,
}

impl Heard {
    pub(crate) fn new() -> Self {
        let state = State {
            at: Instant::now(),
            pong: None,
            prepared: false,
            own: OwnUsage::default(),
            crews: BTreeMap::new(),
            done: BTreeMap::new(),
            lost: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Until the connection ends.
    pub(crate) fn hear(&self, mut receiver: Receiver, clock: RunClock) {
        loop {
            match receiver.receive() {
                Ok(message) => self.take(message, clock.now()),
                Err(error) => {
                    self.lose(error.to_string());
                    return;
                }
            }
        }
    }

    fn take(&self, message: FromAgent, now: Micros) {
        let mut state = self.state.lock();
        match message {
            FromAgent::Progress(progress) => {
                state.own = progress.own;
                for (crew, progress) in progress.crews {
                    state.crews.entry(crew).or_default().take(progress);
                }
            }
            FromAgent::Pong { number, at_us } => state.pong = Some(Pong { number, heard: now, at_us }),
            FromAgent::Prepared => state.prepared = true,
            FromAgent::Refused(reason) => {
                state.lost.get_or_insert(reason);
            }
            FromAgent::Done { crew, done } => {
                state.done.insert(crew, done);
            }
        }
        state.at = Instant::now();
        drop(state);
        self.changed.notify_all();
    }

    /// The first reason stays.
    pub(crate) fn lose(&self, reason: String) {
        self.state.lock().lost.get_or_insert(reason);
        self.changed.notify_all();
    }

    pub(crate) fn lost(&self) -> Option<String> {
        let mut state = self.state.lock();
        if state.prepared && state.lost.is_none() && state.at.elapsed() > AGENT_SILENCE_MAX {
            state.lost = Some("it fell silent".into());
        }
        state.lost.clone()
    }

    pub(crate) fn wait_for_pong(&self, number: u32) -> Option<Pong> {
        self.wait(AGENT_ANSWER_TIMEOUT, |state| state.pong.take_if(|pong| pong.number == number))
    }

    pub(crate) fn wait_until_prepared(&self) -> Option<()> {
        self.wait(AGENT_ANSWER_TIMEOUT, |state| state.prepared.then_some(()))
    }

    pub(crate) fn wait_until_done(&self, crew: CrewId, patience: Duration) -> Option<serde_json::Value> {
        self.wait(patience, |state| state.done.remove(&crew))
    }

    /// `None` when it is lost, or the time is over.
    fn wait<V>(&self, patience: Duration, mut pick: impl FnMut(&mut State) -> Option<V>) -> Option<V> {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        loop {
            if let Some(value) = pick(&mut state) {
                return Some(value);
            }
            if state.lost.is_some() || self.changed.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
    }

    pub(crate) fn own_usage(&self) -> OwnUsage {
        self.state.lock().own
    }

    pub(crate) fn crew(&self, crew: CrewId) -> CrewHeard {
        self.state.lock().crews.get(&crew).cloned().unwrap_or_default()
    }

    pub(crate) fn take_intervals(&self, crew: CrewId) -> Vec<Interval> {
        self.state.lock().crews.get(&crew).map(|crew| crew.intervals.take()).unwrap_or_default()
    }

    /// What a crew has come to that is done.
    pub(crate) fn take_last(&self, crew: CrewId, last: CrewProgress) {
        self.state.lock().crews.entry(crew).or_default().take(last);
    }

    pub(crate) fn forget(&self, crew: CrewId) {
        self.state.lock().crews.remove(&crew);
    }
}

impl CrewHeard {
    fn take(&mut self, progress: CrewProgress) {
        (self.at, self.phases, self.totals) = (progress.at, progress.phases, progress.totals);
        progress.intervals.into_iter().for_each(|interval| self.intervals.push(interval));
    }
}
