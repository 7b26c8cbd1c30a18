//! One agent, as the process sees it that gives it work: a connection, and a thread here that hears what it says.
//!
//! Its clock is compared with the run's before anything begins: of a few questions the one answered fastest tells
//! the difference to within half of the time that it took.

use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::heard::Heard;
use crate::limits::{AGENT_ANSWER_TIMEOUT, AGENT_CONNECT_TIMEOUT, AGENT_FRAME_BYTES_MAX, CLOCK_QUESTIONS};
use crate::link::{LinkError, Receiver, Sender, Token, pipe};
use crate::run_clock::{Micros, RunClock};
use crate::wire::ToAgent;

pub(crate) struct Remote {
    pub(crate) name: String,
    /// Locked by whoever says something, for as long as the connection takes to take it.
    sender: Mutex<Sender>,
    pub(crate) heard: Arc<Heard>,
    hold: Hold,
    clock: RunClock,
}

/// What ends an agent when the report is made.
enum Hold {
    /// Locked to end it.
    Process(Mutex<Child>),
    Connection(TcpStream),
}

/// An agent's clock minus the run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockMatch {
    pub(crate) offset_us: i64,
    pub(crate) uncertainty: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("process cannot be started: {0}")]
    Start(io::Error),
    #[error("agent {0}: {1}")]
    Connect(String, LinkError),
    #[error("agent {0}: {1}")]
    Refused(String, String),
    #[error("agent {0} does not answer")]
    Silent(String),
}

impl Remote {
    /// A process of this machine.
    pub(crate) fn spawn(name: String, clock: RunClock) -> Result<Self, RemoteError> {
        let program = std::env::current_exe().map_err(RemoteError::Start)?;
        let mut child = Command::new(program)
            .args(["agent", "--stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for this process alone, which then tells the others to stop.
            .process_group(0)
            .spawn()
            .map_err(RemoteError::Start)?;
        let (from, to) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
        let ends = pipe(from, to, AGENT_FRAME_BYTES_MAX);
        Ok(Self::listen(name, ends, Hold::Process(Mutex::new(child)), clock))
    }

    pub(crate) fn connect(address: &str, token: &Token, clock: RunClock) -> Result<Self, RemoteError> {
        let failed = |error: LinkError| RemoteError::Connect(address.to_owned(), error);
        let open = || {
            let resolved = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
            let stream = TcpStream::connect_timeout(&resolved, AGENT_CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(AGENT_ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(AGENT_ANSWER_TIMEOUT))?;
            Ok((stream.try_clone()?, stream.try_clone()?, stream))
        };
        let (from, to, stream) = open().map_err(|error| failed(LinkError::Unreachable(error)))?;
        let ends = token.present(from, to, AGENT_FRAME_BYTES_MAX).map_err(failed)?;
        Ok(Self::listen(address.to_owned(), ends, Hold::Connection(stream), clock))
    }

    fn listen(name: String, (sender, receiver): (Sender, Receiver), hold: Hold, clock: RunClock) -> Self {
        let heard = Arc::new(Heard::new());
        {
            let heard = Arc::clone(&heard);
            // It ends with the connection.
            std::thread::spawn(move || heard.hear(receiver, clock));
        }
        Self { name, sender: Mutex::new(sender), heard, hold, clock }
    }

    /// Whether it may be on another machine, with a clock of its own.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.hold, Hold::Connection(_))
    }

    pub(crate) fn send(&self, message: &ToAgent) {
        if let Err(error) = self.sender.lock().send(message) {
            self.heard.lose(error.to_string());
        }
    }

    pub(crate) fn compare_clocks(&self) -> Result<ClockMatch, RemoteError> {
        let mut best: Option<ClockMatch> = None;
        for number in 0..CLOCK_QUESTIONS {
            let asked = self.clock.now();
            self.send(&ToAgent::Ping(number));
            let pong = self.heard.wait_for_pong(number).ok_or_else(|| self.silent())?;
            let answer = ClockMatch::of(asked, pong.heard, pong.at_us);
            if best.is_none_or(|best| answer.uncertainty < best.uncertainty) {
                best = Some(answer);
            }
        }
        best.ok_or_else(|| self.silent())
    }

    /// Why it has not answered.
    pub(crate) fn silent(&self) -> RemoteError {
        match self.heard.lost() {
            Some(reason) => RemoteError::Refused(self.name.clone(), reason),
            None => RemoteError::Silent(self.name.clone()),
        }
    }
}

impl Drop for Remote {
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
