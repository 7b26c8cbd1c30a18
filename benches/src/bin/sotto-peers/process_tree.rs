//! CPU of a process and its children, from /proc.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Linux's own when it does not say.
const TICKS_PER_SECOND_FALLBACK: u64 = 100;

/// Used by a process, all its threads, its children, and those children that have ended. `None` when it has
/// gone.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let own = Usage::read(&pid.to_string())?;
    let children = fs::read_dir("/proc").ok()?;
    let children = children
        .filter_map(|entry| Usage::read(entry.ok()?.file_name().to_str()?))
        .filter(|process| process.parent == pid);
    let ticks: u64 = own.ticks + own.ended_children_ticks + children.map(|child| child.ticks).sum::<u64>();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| ticks.try_into().ok());
    Some(Duration::from_millis(ticks * 1000 / per_second.unwrap_or(TICKS_PER_SECOND_FALLBACK)))
}

#[derive(Debug, PartialEq, Eq)]
struct Usage {
    parent: u32,
    ticks: u64,
    ended_children_ticks: u64,
}

impl Usage {
    fn read(process: &str) -> Option<Self> {
        process.parse::<u32>().ok()?;
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is the command in parentheses, and may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: number(11)? + number(12)?,
            ended_children_ticks: number(13)? + number(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_as_proc_writes_it() {
        let stat = "42 (a ) b) S 7 42 42 0 -1 4194560 100 0 0 0 17 5 3 1 20 0 1 0 100 0 0";
        assert_eq!(Usage::parse(stat), Some(Usage { parent: 7, ticks: 22, ended_children_ticks: 4 }));
        assert_eq!(Usage::parse("42 (x) S"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_is_not_there_has_used_nothing_that_can_be_told() {
        assert!(cpu(std::process::id()).is_some());
        assert_eq!(cpu(u32::MAX), None);
    }
}
