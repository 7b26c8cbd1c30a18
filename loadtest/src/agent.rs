//! A process that does a part of a run for another, which makes the report.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Inbox, RecvTimeoutError, sync_channel};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::guest::Guest;
use crate::limits::{
    AGENT_ANSWER_TIMEOUT, AGENT_GREETING_TIMEOUT, AGENT_REPORT_INTERVAL, AGENT_STOP_INTERVAL, JOB_BYTES_MAX,
    ORDERS_QUEUED_MAX,
};
use crate::link::{LinkError, Receiver, Sender, Token, pipe};
use crate::source_address::SourceRange;
use crate::spread_args::AgentArgs;
use crate::token_file::read_token;
use crate::wire::{FromAgent, Job, ToAgent};

/// Waits for work, again and again; never returns but for an error, or when its one coordinator is gone.
pub(crate) fn run(args: &AgentArgs) -> anyhow::Result<()> {
    if args.stdio {
        let (sender, receiver) = pipe(io::stdin(), io::stdout(), JOB_BYTES_MAX);
        // Whoever started this process sees that it has ended.
        return Conversation::begin(sender, receiver, None).run().or(Ok(()));
    }
    let token = read_token(args.token_file.as_deref().context("--token-file is missing")?)?;
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listen on {}", args.listen))?;
    eprintln!("waiting for work on {}", listener.local_addr().context("read own address")?);
    let busy = Arc::new(AtomicBool::new(false));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if let Err(error) = admit(stream, &token, args.source_range.clone(), &busy) {
            eprintln!("refused a connection: {error}");
        }
    }
    Ok(())
}

/// One coordinator at a time.
fn admit(
    stream: TcpStream,
    token: &Token,
    sources: Option<SourceRange>,
    busy: &Arc<AtomicBool>,
) -> Result<(), LinkError> {
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
        if let Err(error) = Conversation::begin(sender, receiver, sources).run() {
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
    /// In place of those that the coordinator names.
    sources: Option<SourceRange>,
}

impl Conversation {
    fn begin(sender: Sender, mut receiver: Receiver, sources: Option<SourceRange>) -> Self {
        let (queue, inbox) = sync_channel(ORDERS_QUEUED_MAX);
        // It ends with the connection, and then so does the inbox.
        std::thread::spawn(move || {
            while let Ok(message) = receiver.receive() {
                if queue.send(message).is_err() {
                    return;
                }
            }
        });
        Self { sender, inbox, epoch: Instant::now(), sources }
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
                ToAgent::Begin(_) | ToAgent::Enter { .. } => bail!("an order without a job"),
            }
        }
        Ok(())
    }

    fn answer(&mut self, number: u32) -> Result<(), LinkError> {
        let at_us = i64::try_from(self.epoch.elapsed().as_micros()).expect("shorter than 290,000 years");
        self.sender.send(&FromAgent::Pong { number, at_us })
    }

    /// A part of a run, until the coordinator says nothing more.
    fn work(&mut self, job: &Job) -> anyhow::Result<()> {
        let mut guest = Guest::prepare(job, self.epoch, self.sources.as_ref())?;
        self.sender.send(&FromAgent::Prepared)?;
        let mut reported = Instant::now();
        loop {
            let next =
                reported + if guest.is_stopping() { AGENT_STOP_INTERVAL } else { AGENT_REPORT_INTERVAL };
            match self.inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(ToAgent::Ping(number)) => {
                    self.answer(number)?;
                    continue;
                }
                Ok(ToAgent::Begin(crew)) => guest.begin(&crew)?,
                Ok(ToAgent::Enter { crew, phase }) => guest.enter(crew, phase)?,
                Ok(ToAgent::Prepare(_)) => bail!("a second job within a run"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return guest.leave(),
            }
            reported = Instant::now();
            if self.sender.send(&FromAgent::Progress(Box::new(guest.progress()))).is_err() {
                return guest.leave();
            }
            while let Some((crew, done)) = guest.take_done()? {
                if self.sender.send(&FromAgent::Done { crew, done }).is_err() {
                    return guest.leave();
                }
            }
        }
    }
}
