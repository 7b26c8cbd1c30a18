//! What the broker's process uses, from /proc.

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
    ticks_per_second: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerSample {
    /// Memory resident, without the kernel's own for its sockets.
    pub(crate) rss_bytes: u64,
    /// CPU used since it started, user and system.
    pub(crate) cpu: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerProcessError {
    #[error("process {0} cannot be read: {1}")]
    Unreadable(u32, io::Error),
    #[error("/proc/{0} does not look as expected")]
    Malformed(u32),
}

impl ServerProcess {
    pub(crate) fn open(pid: u32) -> Result<Self, ServerProcessError> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let ticks_per_second = ticks.and_then(|ticks| ticks.try_into().ok()).unwrap_or(100);
        let server = Self { pid, ticks_per_second };
        server.sample()?;
        Ok(server)
    }

    pub(crate) fn sample(self) -> Result<ServerSample, ServerProcessError> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.pid);
            fs::read_to_string(path).map_err(|error| ServerProcessError::Unreadable(self.pid, error))
        };
        let malformed = ServerProcessError::Malformed(self.pid);
        let (status, stat) = (read("status")?, read("stat")?);
        match (rss_bytes(&status), cpu_ticks(&stat)) {
            (Some(rss_bytes), Some(ticks)) => {
                let cpu = Duration::from_millis(ticks * 1000 / self.ticks_per_second);
                Ok(ServerSample { rss_bytes, cpu })
            }
            _ => Err(malformed),
        }
    }
}

pub(crate) fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the command in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_are_read_as_proc_writes_them() {
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1_263_616));
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(22));
        assert_eq!(cpu_ticks("42 (x) S"), None);
        assert_eq!(rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_can_be_read() {
        let sample = ServerProcess::open(std::process::id()).and_then(ServerProcess::sample);
        assert!(sample.expect("a sample").rss_bytes > 0);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = ServerProcess::open(u32::MAX).expect_err("no such process").to_string();
        assert!(error.contains("4294967295"), "{error}");
    }
}
