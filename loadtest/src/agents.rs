//! Other processes that each do a part of the run, as the one sees them that gives the work out and makes the
//! report.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::demand::Demand;
use crate::link::{LinkError, Token};
use crate::own_usage::{OwnUsage, Processes};
use crate::remote::{ClockMatch, Remote, RemoteError};
use crate::run_clock::RunClock;
use crate::spread_args::SpreadArgs;
use crate::template::RunId;
use crate::wire::{CrewId, Job, ToAgent};

pub(crate) struct Agents {
    all: Vec<Agent>,
    threads: Option<u16>,
    /// Crews that have been begun.
    crews: AtomicU32,
}

struct Agent {
    remote: Remote,
    clock: ClockMatch,
    /// How far its clock was off at the end, by what was known at the begin. Locked to write and to read it.
    drift: Mutex<Option<Duration>>,
}

impl Agents {
    /// Starts processes and connects to agents.
    pub(crate) fn gather(
        args: &SpreadArgs,
        token: Option<&Token>,
        threads: Option<u16>,
        clock: RunClock,
    ) -> Result<Self, RemoteError> {
        let processes = args.processes.unwrap_or(0);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = u16::try_from(cores).unwrap_or(u16::MAX);
        let mut remotes = Vec::new();
        for number in 1..=processes {
            remotes.push(Remote::spawn(format!("process {number}"), clock)?);
        }
        for address in &args.agents {
            let token =
                token.ok_or_else(|| RemoteError::Connect(address.clone(), LinkError::TokenMismatch))?;
            remotes.push(Remote::connect(address, token, clock)?);
        }
        let compared = |remote: Remote| {
            let clock = remote.compare_clocks()?;
            Ok(Agent { remote, clock, drift: Mutex::new(None) })
        };
        let all = remotes.into_iter().map(compared).collect::<Result<_, RemoteError>>()?;
        // Processes of one machine share its cores.
        let threads = threads.or_else(|| Some((cores / processes.max(1)).max(1)).filter(|_| processes > 0));
        Ok(Self { all, threads, crews: AtomicU32::new(0) })
    }

    pub(crate) fn parts(&self) -> u32 {
        u32::try_from(self.all.len()).expect("a few hundred")
    }

    /// Those that this machine has to carry.
    pub(crate) fn parts_here(&self) -> u32 {
        let here = self.all.iter().filter(|agent| !agent.remote.is_elsewhere()).count();
        u32::try_from(here).expect("a few hundred")
    }

    /// Has each make ready for its part; nothing begins yet.
    pub(crate) fn prepare(&self, run: RunId, demand: Demand) -> Result<(), RemoteError> {
        let arguments: Vec<_> =
            std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let parts = self.parts();
        for (index, agent) in (0..).zip(&self.all) {
            let job = Job {
                arguments: arguments.clone(),
                index,
                parts,
                demand: demand.share(1, parts),
                run: run.0,
                zero_us: agent.clock.offset_us,
                threads: self.threads,
            };
            agent.remote.send(&ToAgent::Prepare(Box::new(job)));
        }
        for Agent { remote, .. } in &self.all {
            remote.heard.wait_until_prepared().ok_or_else(|| remote.silent())?;
        }
        Ok(())
    }

    pub(crate) fn next_crew(&self) -> CrewId {
        CrewId(self.crews.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn tell(&self, message: &ToAgent) {
        self.remotes().for_each(|remote| remote.send(message));
    }

    pub(crate) fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.all.iter().map(|agent| &agent.remote)
    }

    pub(crate) fn is_one_lost(&self) -> bool {
        self.remotes().any(|remote| remote.heard.lost().is_some())
    }

    /// What each clock has come to since the begin.
    pub(crate) fn compare_clocks_again(&self) {
        for agent in self.all.iter().filter(|agent| agent.remote.is_elsewhere()) {
            if let Ok(last) = agent.remote.compare_clocks() {
                let drift_us = last.offset_us.abs_diff(agent.clock.offset_us);
                *agent.drift.lock() = Some(Duration::from_micros(drift_us));
            }
        }
    }

    /// Which were lost, and why.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let lost =
            |remote: &Remote| Some(format!("agent {} was lost: {}", remote.name, remote.heard.lost()?));
        self.remotes().filter_map(lost).collect()
    }

    /// How well the clocks of other machines are known.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let said = |agent: &Agent| {
            let uncertainty = ms(agent.clock.uncertainty);
            let drift = agent
                .drift
                .lock()
                .map_or_else(String::new, |drift| format!(", and {:.3} ms off at the end", ms(drift)));
            format!(
                "the clock of agent {} was known to within {uncertainty:.3} ms{drift}: a delivery from or to a \
                 client of another agent is measured no better than that",
                agent.remote.name
            )
        };
        self.all.iter().filter(|agent| agent.remote.is_elsewhere()).map(said).collect()
    }
}

impl Processes for Agents {
    fn usage(&self) -> Vec<OwnUsage> {
        self.remotes().map(|remote| remote.heard.own_usage()).collect()
    }
}
