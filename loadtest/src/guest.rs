//! A run of another process that this one has a part in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;

use crate::args::Args;
use crate::hosted::{Hosted, HostedState, host};
use crate::own_usage::OwnUsage;
use crate::roster::Phase;
use crate::run_clock::RunClock;
use crate::setup::Setup;
use crate::source_address::SourceRange;
use crate::template::RunId;
use crate::wire::{CrewId, CrewJob, Job, Progress};

pub(crate) struct Guest {
    /// One for each way to the broker that the run takes.
    setups: Vec<Setup>,
    index: u32,
    parts: u32,
    crews: BTreeMap<CrewId, Box<dyn Hosted>>,
    /// What this process had used before the run.
    before: OwnUsage,
}

impl Guest {
    /// `epoch` is when this process's own clock was zero; `sources` are in place of those that the job names.
    pub(crate) fn prepare(job: &Job, epoch: Instant, sources: Option<&SourceRange>) -> anyhow::Result<Self> {
        let args = Args::try_parse_from(&job.arguments)
            .map_err(|error| anyhow::anyhow!("does not understand the command line: {}", error.kind()))?;
        let zero = Duration::from_micros(job.zero_us.unsigned_abs());
        let zero = if job.zero_us < 0 { epoch.checked_sub(zero) } else { epoch.checked_add(zero) };
        let clock =
            RunClock::of(zero.context("this machine's clock does not reach back to the run's begin")?);
        let mut ways = args.scenario.ways();
        for way in &mut ways {
            way.threads = way.threads.or(job.threads);
            way.source_range = sources.cloned().or(way.source_range.take());
        }
        let setups = Setup::of_part(&ways, job.demand, clock, RunId(job.run))?;
        let threads = setups.first().context("this is no scenario")?.threads;
        let (index, parts, before) = (job.index, job.parts, OwnUsage::sample(threads));
        Ok(Self { setups, index, parts, crews: BTreeMap::new(), before })
    }

    pub(crate) fn begin(&mut self, job: &CrewJob) -> anyhow::Result<()> {
        let crew = job.crew;
        let setup = self.setups.get(job.terms.way).context("a way to the broker that there is not")?;
        let hosted = host(&setup.on_terms(job.terms), self.index, self.parts, job)?;
        if self.crews.insert(crew, hosted).is_some() {
            bail!("a crew was begun twice");
        }
        Ok(())
    }

    pub(crate) fn enter(&mut self, crew: CrewId, phase: Phase) -> anyhow::Result<()> {
        self.crews.get_mut(&crew).context("an order for a crew that there is not")?.enter(phase);
        Ok(())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.crews.values().any(|crew| crew.state() == HostedState::Stopping)
    }

    pub(crate) fn progress(&self) -> Progress {
        let threads = self.setups.first().map_or(1, |setup| setup.threads);
        let own = OwnUsage::sample(threads).since(&self.before);
        Progress { own, crews: self.crews.iter().map(|(crew, hosted)| (*crew, hosted.progress())).collect() }
    }

    /// The next crew that is done, with what it has come to.
    pub(crate) fn take_done(&mut self) -> anyhow::Result<Option<(CrewId, serde_json::Value)>> {
        let has_ended = |state: HostedState| matches!(state, HostedState::Done | HostedState::Broken);
        let mut ended = self.crews.iter().filter(|(_, hosted)| has_ended(hosted.state()));
        let Some(crew) = ended.next().map(|(crew, _)| *crew) else { return Ok(None) };
        let hosted = self.crews.remove(&crew).expect("found just now");
        let is_broken = hosted.state() == HostedState::Broken;
        // What was wrong is known when it is joined.
        let done = hosted.finish()?;
        if is_broken {
            bail!("a thread ended by itself");
        }
        Ok(Some((crew, done)))
    }

    /// The coordinator is gone: sessions that there still are say DISCONNECT.
    pub(crate) fn leave(self) -> anyhow::Result<()> {
        let was_needed = !self.crews.is_empty();
        for hosted in self.crews.into_values() {
            hosted.finish()?;
        }
        if was_needed {
            bail!("the coordinator is gone");
        }
        Ok(())
    }
}
