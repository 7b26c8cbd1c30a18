//! A process that does a part of a run for another, which makes the report.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Inbox, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use serde::Serialize;

use crate::args::{Args, Scenario};
use crate::holder::Holding;
use crate::limits::{
    AGENT_ANSWER_TIMEOUT, AGENT_GREETING_TIMEOUT, AGENT_REPORT_INTERVAL, JOB_BYTES_MAX, ORDERS_QUEUED_MAX,
};
use crate::link::{LinkError, Receiver, Sender, Token, pipe};
use crate::own_usage::OwnUsage;
use crate::pubsub;
use crate::recorder::Source;
use crate::run_clock::{Micros, RunClock};
use crate::setup::Setup;
use crate::spread_args::AgentArgs;
use crate::template::RunId;
use crate::threads::Threads;
use crate::token_file::read_token;
use crate::traffic::Traffic;
use crate::wire::{FromAgent, Job, Order, PartDone, Progress, ToAgent};
use crate::worker::Role;

/// Waits for work, again and again; never returns but for an error, or when its one coordinator is gone.
pub(crate) fn run(args: &AgentArgs) -> anyhow::Result<()> {
    if args.stdio {
        let (sender, receiver) = pipe(io::stdin(), io::stdout(), JOB_BYTES_MAX);
        // Whoever started this process sees that it has ended.
        return Conversation::begin(sender, receiver).run().or(Ok(()));
    }
    let token = read_token(args.token_file.as_deref().context("--token-file is missing")?)?;
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listen on {}", args.listen))?;
    eprintln!("waiting for work on {}", listener.local_addr().context("read own address")?);
    let busy = Arc::new(AtomicBool::new(false));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if let Err(error) = admit(stream, &token, &busy) {
            eprintln!("refused a connection: {error}");
        }
    }
    Ok(())
}

/// One coordinator at a time.
fn admit(stream: TcpStream, token: &Token, busy: &Arc<AtomicBool>) -> Result<(), LinkError> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(AGENT_GREETING_TIMEOUT))?;
    stream.set_write_timeout(Some(AGENT_ANSWER_TIMEOUT))?;
    let (mut sender, receiver) = token.admit(stream.try_clone()?, stream.try_clone()?, JOB_BYTES_MAX)?;
    // While a run lasts the coordinator may have nothing to say.
    stream.set_read_timeout(None)?;
    if busy.swap(true, Ordering::AcqRel) {
        return sender.send(&FromAgent::Refused("is busy with another run".into()));
    }
    let busy = Arc::clone(busy);
    std::thread::spawn(move || {
        if let Err(error) = Conversation::begin(sender, receiver).run() {
            eprintln!("run ended: {error:#}");
        }
        // Wakes the thread that hears the coordinator, should it still do so.
        let _ = stream.shutdown(Shutdown::Both);
        busy.store(false, Ordering::Release);
    });
    Ok(())
}

/// With one coordinator.
struct Conversation {
    sender: Sender,
    inbox: Inbox<ToAgent>,
    epoch: Instant,
}

impl Conversation {
    fn begin(sender: Sender, mut receiver: Receiver) -> Self {
        let (queue, inbox) = sync_channel(ORDERS_QUEUED_MAX);
        // It ends with the connection, and then so does the inbox.
        std::thread::spawn(move || {
            while let Ok(message) = receiver.receive() {
                if queue.send(message).is_err() {
                    return;
                }
            }
        });
        Self { sender, inbox, epoch: Instant::now() }
    }

    fn run(mut self) -> anyhow::Result<()> {
        while let Ok(message) = self.inbox.recv() {
            match message {
                ToAgent::Ping(number) => self.answer(number)?,
                ToAgent::Prepare(job) => {
                    if let Err(error) = self.work(&job) {
                        // The coordinator that is gone cannot be told.
                        self.sender.send(&FromAgent::Refused(format!("{error:#}")))?;
                        return Err(error);
                    }
                }
                ToAgent::Start(_) | ToAgent::Enter(_) => bail!("an order without a job"),
            }
        }
        Ok(())
    }

    fn answer(&mut self, number: u32) -> Result<(), LinkError> {
        let at_us = i64::try_from(self.epoch.elapsed().as_micros()).expect("shorter than 290,000 years");
        self.sender.send(&FromAgent::Pong { number, at_us })
    }

    fn work(&mut self, job: &Job) -> anyhow::Result<()> {
        let args = Args::try_parse_from(&job.arguments)
            .map_err(|error| anyhow::anyhow!("does not understand the command line: {}", error.kind()))?;
        let zero = Duration::from_micros(job.zero_us.unsigned_abs());
        let zero = if job.zero_us < 0 { self.epoch.checked_sub(zero) } else { self.epoch.checked_add(zero) };
        let clock =
            RunClock::of(zero.context("this machine's clock does not reach back to the run's begin")?);
        match args.scenario {
            Scenario::Hold(mut args) => {
                args.common.threads = args.common.threads.or(job.threads);
                let setup = Setup::of_part(&args.common, job.part.size(args.n), clock, RunId(job.run))?;
                let subscribe = args.subscribe.clone().map(|template| (template, args.qos));
                self.host(&setup, args.n, job, move || Holding { subscribe: subscribe.clone() })
            }
            Scenario::Pubsub(mut args) => {
                args.common.threads = args.common.threads.or(job.threads);
                let clients = args.pubs + args.subs;
                let setup = Setup::of_part(&args.common, job.part.size(clients), clock, RunId(job.run))?;
                let plan = pubsub::plan(&args, &setup);
                self.host(&setup, clients, job, move || Traffic::new(plan.clone()))
            }
            _ => bail!("this scenario runs in one process"),
        }
    }

    /// Until the coordinator says stop, or says nothing more.
    fn host<R: Role>(
        &mut self,
        setup: &Setup,
        clients: u32,
        job: &Job,
        role: impl Fn() -> R + Clone + Send + 'static,
    ) -> anyhow::Result<()>
    where
        R::Outcome: Serialize + 'static,
    {
        self.sender.send(&FromAgent::Prepared)?;
        let start = self.wait_for_start()?;
        let threads = Threads::start(setup, &(0..clients), job.part, start, role)?;
        let mut orders = 0;
        let gone = loop {
            match self.inbox.recv_timeout(AGENT_REPORT_INTERVAL) {
                Ok(ToAgent::Ping(number)) => self.answer(number)?,
                Ok(ToAgent::Enter(order)) => {
                    orders += 1;
                    threads.enter(order.phase());
                    if order == Order::Stop {
                        break false;
                    }
                }
                Ok(ToAgent::Prepare(_) | ToAgent::Start(_)) => bail!("a second job within a run"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break true,
            }
            if threads.has_ended() {
                // What was wrong is known when it is joined.
                threads.finish()?;
                bail!("a thread ended by itself");
            }
            let progress = progress(orders, setup.connector.clock, threads.tallies().as_ref());
            if self.sender.send(&FromAgent::Progress(Box::new(progress))).is_err() {
                break true;
            }
        };
        let tallies = Arc::clone(threads.tallies());
        let finished = threads.finish()?;
        if gone {
            bail!("the coordinator is gone");
        }
        let done = PartDone {
            connects: finished.connects,
            returns: finished.returns,
            outcomes: finished.outcomes,
            last: progress(orders, setup.connector.clock, tallies.as_ref()),
        };
        let done = serde_json::to_value(done).context("write outcome")?;
        Ok(self.sender.send(&FromAgent::Done(done))?)
    }

    fn wait_for_start(&mut self) -> anyhow::Result<Micros> {
        loop {
            match self.inbox.recv().context("the coordinator is gone")? {
                ToAgent::Ping(number) => self.answer(number)?,
                ToAgent::Start(start) => return Ok(start),
                ToAgent::Prepare(_) | ToAgent::Enter(_) => bail!("an order before the start"),
            }
        }
    }
}

fn progress(orders: u32, clock: RunClock, tallies: &impl Source) -> Progress {
    let own = tallies.own_usage().first().copied().unwrap_or(OwnUsage::default());
    Progress { at: clock.now(), orders, totals: tallies.totals(), intervals: tallies.take_intervals(), own }
}
