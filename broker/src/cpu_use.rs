//! How much CPU time the process has used.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// In user and system together; `None` where the system does not say.
pub(crate) fn cpu_used() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    Some(duration(usage.user_time())? + duration(usage.system_time())?)
}

fn duration(time: TimeVal) -> Option<Duration> {
    let micros = u64::try_from(time.tv_usec()).ok()?;
    Some(Duration::from_secs(u64::try_from(time.tv_sec()).ok()?) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted() {
        let before = cpu_used().expect("the system tells");
        let spent = || cpu_used().expect("the system tells").saturating_sub(before);
        let turns = (0..100_000_u64).map(|turn| turn * u64::from(spent() < Duration::from_millis(1)));
        assert!(turns.sum::<u64>() > 0);
        assert!(spent() > Duration::ZERO);
    }
}
