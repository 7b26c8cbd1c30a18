//! Other processes that each do a part of the run, as the one sees them that gives the work out and makes the
//! report.
//!
//! Each has a connection and a thread here that hears what it says. Its clock is compared with the run's before
//! anything begins: of a few questions the one answered fastest tells the difference to within half of the time
//! that it took.

use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;

use crate::counters::Totals;
use crate::finished::Finished;
use crate::interval::{Interval, IntervalQueue};
use crate::limits::{
    AGENT_ANSWER_TIMEOUT, AGENT_CONNECT_TIMEOUT, AGENT_DONE_TIMEOUT, AGENT_FRAME_BYTES_MAX,
    AGENT_SILENCE_MAX, CLOCK_QUESTIONS,
};
use crate::link::{LinkError, Receiver, Sender, Token, pipe};
use crate::own_usage::OwnUsage;
use crate::part::Part;
use crate::recorder::Source;
use crate::roster::Phase;
use crate::run_clock::{Micros, RunClock};
use crate::spread_args::SpreadArgs;
use crate::template::RunId;
use crate::wire::{FromAgent, Job, Order, PartDone, Progress, ToAgent};
use crate::worker::ConnectTally;

pub(crate) struct Agents {
    all: Vec<Agent>,
    threads: Option<u16>,
    /// Orders given to all of them.
    orders: AtomicU32,
}

struct Agent {
    name: String,
    sender: Mutex<Sender>,
    heard: Arc<Heard>,
    clock: Mutex<ClockMatch>,
    /// How far its clock was off at the end, by what was known at the begin.
    drift: Mutex<Option<Duration>>,
    hold: Hold,
}

/// What ends an agent when the report is made.
enum Hold {
    Process(Mutex<Child>),
    Connection(TcpStream),
}

/// What an agent has said: written by the thread that hears it, read by the one that watches the run.
struct Heard {
    state: Mutex<HeardState>,
    changed: Condvar,
    intervals: IntervalQueue,
}

#[derive(Debug)]
struct HeardState {
    at: Instant,
    pong: Option<(u32, Micros, i64)>,
    prepared: bool,
    progress: Progress,
    done: Option<serde_json::Value>,
    lost: Option<String>,
    /// Its part is done: whatever becomes of it, it is not lost.
    finished: bool,
}

/// An agent's clock minus the run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClockMatch {
    offset_us: i64,
    uncertainty: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentsError {
    #[error("process cannot be started: {0}")]
    Start(io::Error),
    #[error("agent {0}: {1}")]
    Connect(String, LinkError),
    #[error("agent {0}: {1}")]
    Refused(String, String),
    #[error("agent {0} does not answer")]
    Silent(String),
    #[error("every agent was lost: {0}")]
    NoneLeft(String),
}

impl Agents {
    /// Starts processes and connects to agents.
    pub(crate) fn gather(
        args: &SpreadArgs,
        token: Option<&Token>,
        threads: Option<u16>,
        clock: RunClock,
    ) -> Result<Self, AgentsError> {
        let processes = args.processes.unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = u16::try_from(cores).unwrap_or(u16::MAX);
        let mut agents = Vec::new();
        for number in 1..=processes {
            agents.push(Agent::spawn(format!("process {number}"), clock)?);
        }
        for address in &args.agents {
            let token =
                token.ok_or_else(|| AgentsError::Connect(address.clone(), LinkError::TokenMismatch))?;
            agents.push(Agent::connect(address, token, clock)?);
        }
        for agent in &agents {
            *agent.clock.lock() = agent.compare_clocks(clock)?;
        }
        // Processes of one machine share its cores.
        let threads = threads.or_else(|| Some((cores / processes.max(1)).max(1)).filter(|_| processes > 0));
        Ok(Self { all: agents, threads, orders: AtomicU32::new(0) })
    }

    /// Has each make ready for its part; nothing begins yet.
    pub(crate) fn prepare(&self, run: RunId, publishers: u32) -> Result<(), AgentsError> {
        let arguments: Vec<_> =
            std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let parts = u32::try_from(self.all.len()).expect("a few hundred");
        for (index, agent) in (0..).zip(&self.all) {
            let job = Job {
                arguments: arguments.clone(),
                part: Part { index, parts, publishers },
                run: run.0,
                zero_us: agent.clock.lock().offset_us,
                threads: self.threads,
            };
            agent.send(&ToAgent::Prepare(Box::new(job)));
        }
        for agent in &self.all {
            let prepared = agent
                .heard
                .wait(AGENT_ANSWER_TIMEOUT, |state| std::mem::take(&mut state.prepared).then_some(()));
            prepared.ok_or_else(|| agent.silent())?;
        }
        Ok(())
    }

    pub(crate) fn start(&self, start: Micros) {
        self.all.iter().for_each(|agent| agent.send(&ToAgent::Start(start)));
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let Some(order) = Order::of(phase) else { return };
        self.orders.fetch_add(1, Ordering::Relaxed);
        self.all.iter().for_each(|agent| agent.send(&ToAgent::Enter(order)));
    }

    /// What all have counted, and when that was: each says it ten times a second.
    pub(crate) fn counted(&self) -> (Totals, Micros) {
        let times = self.all.iter().map(|agent| agent.heard.state.lock().progress.at.0);
        let (sum, count) = times.fold((0, 0), |(sum, count), at| (sum + at, count + 1));
        (self.totals(), Micros(sum / u64::max(count, 1)))
    }

    /// Whether the totals are all of the phase that was entered last.
    pub(crate) fn know_the_phase(&self) -> bool {
        let orders = self.orders.load(Ordering::Relaxed);
        self.all.iter().all(|agent| {
            let state = agent.heard.state.lock();
            state.lost.is_some() || state.progress.orders == orders
        })
    }

    pub(crate) fn is_one_lost(&self) -> bool {
        self.all.iter().any(|agent| agent.lost().is_some())
    }

    /// What each has counted in its part, joined.
    pub(crate) fn finish<T: DeserializeOwned>(&self) -> Result<Finished<T>, AgentsError> {
        let (mut connects, mut returns) = (ConnectTally::new(), ConnectTally::new());
        let mut outcomes = Vec::new();
        let mut left = 0;
        let deadline = Instant::now() + AGENT_DONE_TIMEOUT;
        for agent in &self.all {
            let patience = deadline.saturating_duration_since(Instant::now());
            let done = agent.heard.wait(patience, |state| state.done.take());
            let Some(done) = done else {
                agent.heard.lose("did not end in time".into());
                continue;
            };
            match serde_json::from_value::<PartDone<T>>(done) {
                Ok(done) => {
                    agent.heard.take_progress(done.last);
                    connects.add(&done.connects);
                    returns.add(&done.returns);
                    outcomes.extend(done.outcomes);
                    left += 1;
                }
                Err(error) => {
                    let said = format!("said something else than expected: {error}");
                    agent.heard.state.lock().lost.get_or_insert(said);
                }
            }
        }
        if left == 0 {
            return Err(AgentsError::NoneLeft(self.troubles().join("; ")));
        }
        Ok(Finished { connects, returns, outcomes, totals: self.totals() })
    }

    /// What each clock has come to since the begin; to be asked before the agents stop.
    pub(crate) fn compare_clocks_again(&self, clock: RunClock) {
        for agent in self.all.iter().filter(|agent| matches!(agent.hold, Hold::Connection(_))) {
            if let Ok(last) = agent.compare_clocks(clock) {
                let first = agent.clock.lock().offset_us;
                *agent.drift.lock() = Some(Duration::from_micros(last.offset_us.abs_diff(first)));
            }
        }
    }

    /// Which were lost, and why.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let lost = |agent: &Agent| Some(format!("agent {} was lost: {}", agent.name, agent.lost()?));
        self.all.iter().filter_map(lost).collect()
    }

    /// How well the clocks of other machines are known.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let said = |agent: &Agent| {
            let Hold::Connection(_) = agent.hold else { return None };
            let uncertainty = ms(agent.clock.lock().uncertainty);
            let drift = agent
                .drift
                .lock()
                .map_or_else(String::new, |drift| format!(", and {:.3} ms off at the end", ms(drift)));
            Some(format!(
                "the clock of agent {} was known to within {uncertainty:.3} ms{drift}: a delivery from or to a \
                 client of another agent is measured no better than that",
                agent.name
            ))
        };
        self.all.iter().filter_map(said).collect()
    }
}

impl Source for Agents {
    fn totals(&self) -> Totals {
        let totals = |agent: &Agent| agent.heard.state.lock().progress.totals;
        self.all.iter().fold(Totals::default(), |sum, agent| sum.plus(totals(agent)))
    }

    fn take_intervals(&self) -> Vec<Interval> {
        self.all.iter().flat_map(|agent| agent.heard.intervals.take()).collect()
    }

    fn own_usage(&self) -> Vec<OwnUsage> {
        self.all.iter().map(|agent| agent.heard.state.lock().progress.own).collect()
    }
}

impl Agent {
    fn spawn(name: String, clock: RunClock) -> Result<Self, AgentsError> {
        let program = std::env::current_exe().map_err(AgentsError::Start)?;
        let mut child = Command::new(program)
            .args(["agent", "--stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for this process alone, which then tells the others to stop.
            .process_group(0)
            .spawn()
            .map_err(AgentsError::Start)?;
        let (from, to) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
        let ends = pipe(from, to, AGENT_FRAME_BYTES_MAX);
        Ok(Self::listen(name, ends, Hold::Process(Mutex::new(child)), clock))
    }

    fn connect(address: &str, token: &Token, clock: RunClock) -> Result<Self, AgentsError> {
        let failed = |error: LinkError| AgentsError::Connect(address.to_owned(), error);
        let open = || {
            let resolved = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
            let stream = TcpStream::connect_timeout(&resolved, AGENT_CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(AGENT_ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(AGENT_ANSWER_TIMEOUT))?;
            Ok((stream.try_clone()?, stream.try_clone()?, stream))
        };
        let (from, to, stream) = open().map_err(|error: io::Error| failed(error.into()))?;
        let ends = token.present(from, to, AGENT_FRAME_BYTES_MAX).map_err(failed)?;
        Ok(Self::listen(address.to_owned(), ends, Hold::Connection(stream), clock))
    }

    fn listen(name: String, (sender, receiver): (Sender, Receiver), hold: Hold, clock: RunClock) -> Self {
        let heard = Arc::new(Heard {
            state: Mutex::new(HeardState {
                at: Instant::now(),
                pong: None,
                prepared: false,
                progress: Progress::default(),
                done: None,
                lost: None,
                finished: false,
            }),
            changed: Condvar::new(),
            intervals: IntervalQueue::default(),
        });
        {
            let heard = Arc::clone(&heard);
            // It ends with the connection.
            std::thread::spawn(move || heard.hear(receiver, clock));
        }
        let clock = Mutex::new(ClockMatch { offset_us: 0, uncertainty: Duration::MAX });
        Self { name, sender: Mutex::new(sender), heard, clock, drift: Mutex::new(None), hold }
    }

    fn send(&self, message: &ToAgent) {
        if let Err(error) = self.sender.lock().send(message) {
            self.heard.lose(error.to_string());
        }
    }

    fn compare_clocks(&self, clock: RunClock) -> Result<ClockMatch, AgentsError> {
        let mut best: Option<ClockMatch> = None;
        for number in 0..CLOCK_QUESTIONS {
            let asked = clock.now();
            self.send(&ToAgent::Ping(number));
            let pong = self
                .heard
                .wait(AGENT_ANSWER_TIMEOUT, |state| state.pong.take_if(|(answered, ..)| *answered == number));
            let (_, heard, at_us) = pong.ok_or_else(|| self.silent())?;
            let answer = ClockMatch::of(asked, heard, at_us);
            if best.is_none_or(|best| answer.uncertainty < best.uncertainty) {
                best = Some(answer);
            }
        }
        best.ok_or_else(|| self.silent())
    }

    fn silent(&self) -> AgentsError {
        match self.lost() {
            Some(reason) => AgentsError::Refused(self.name.clone(), reason),
            None => AgentsError::Silent(self.name.clone()),
        }
    }

    fn lost(&self) -> Option<String> {
        let mut state = self.heard.state.lock();
        // Before it works it has nothing to say.
        let works = state.progress.own.cores > 0 && !state.finished;
        if works && state.lost.is_none() && state.at.elapsed() > AGENT_SILENCE_MAX {
            state.lost = Some("it fell silent".into());
        }
        state.lost.clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        match &self.hold {
            Hold::Process(child) => {
                let mut child = child.lock();
                // It has ended, or has nothing more to do.
                let _ = child.kill();
                let _ = child.wait();
            }
            Hold::Connection(stream) => {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Heard {
    fn hear(&self, mut receiver: Receiver, clock: RunClock) {
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
        match message {
            FromAgent::Progress(progress) => self.take_progress(*progress),
            FromAgent::Pong { number, at_us } => self.state.lock().pong = Some((number, now, at_us)),
            FromAgent::Prepared => self.state.lock().prepared = true,
            FromAgent::Refused(reason) => {
                self.state.lock().lost.get_or_insert(reason);
            }
            FromAgent::Done(done) => {
                let mut state = self.state.lock();
                (state.done, state.finished) = (Some(done), true);
            }
        }
        self.state.lock().at = Instant::now();
        self.changed.notify_all();
    }

    fn take_progress(&self, mut progress: Progress) {
        progress.intervals.drain(..).for_each(|interval| self.intervals.push(interval));
        self.state.lock().progress = progress;
    }

    /// The first reason stays. Who has done its part cannot be lost.
    fn lose(&self, reason: String) {
        let mut state = self.state.lock();
        if !state.finished {
            state.lost.get_or_insert(reason);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// `None` when it is lost, or the time is over.
    fn wait<V>(&self, patience: Duration, mut pick: impl FnMut(&mut HeardState) -> Option<V>) -> Option<V> {
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
}

impl ClockMatch {
    /// The agent's clock was read somewhere between question and answer.
    fn of(asked: Micros, heard: Micros, at_us: i64) -> Self {
        let middle = i64::try_from(u64::midpoint(asked.0, heard.0)).expect("a run is shorter than that");
        Self { offset_us: at_us - middle, uncertainty: heard.since(asked) / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_off_by_no_more_than_half_of_the_time_that_the_answer_took() {
        // The agent's clock is 5,000 µs ahead; the question takes 300 µs, the answer 100.
        let at_us = 1_000_000 + 300 + 5_000;
        let matched = ClockMatch::of(Micros(1_000_000), Micros(1_000_400), at_us);
        assert_eq!(matched.uncertainty, Duration::from_micros(200));
        assert!(matched.offset_us.abs_diff(5_000) <= 200, "{matched:?}");
    }
}
