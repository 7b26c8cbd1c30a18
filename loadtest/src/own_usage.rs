//! What the load tester itself uses: on a machine that is out of CPU, the latencies that it measures are its
//! own.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::server_process::rss_bytes;

/// Those that do the work of a run.
pub(crate) trait Processes: Send + Sync {
    /// One for each.
    fn usage(&self) -> Vec<OwnUsage>;
}

/// This process alone, with so many threads.
pub(crate) struct ThisProcess(pub(crate) usize);

impl Processes for ThisProcess {
    fn usage(&self) -> Vec<OwnUsage> {
        vec![OwnUsage::sample(self.0)]
    }
}

/// Sums since the process, or the machine, was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OwnUsage {
    pub(crate) cpu: Duration,
    /// Cores that its threads can keep busy.
    pub(crate) cores: u16,
    pub(crate) rss_bytes: u64,
    /// Of all cores of the machine, by whatever runs there; zero where /proc does not tell.
    pub(crate) machine: MachineTicks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineTicks {
    busy: u64,
    all: u64,
}

impl OwnUsage {
    pub(crate) fn sample(threads: usize) -> Self {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process can always ask about itself");
        let cpu = [usage.user_time(), usage.system_time()]
            .map(|time| {
                let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
                Duration::from_secs(seconds)
                    + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
            })
            .iter()
            .sum();
        let machine_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = u16::try_from(threads.min(machine_cores)).unwrap_or(u16::MAX);
        let rss_bytes = fs::read_to_string("/proc/self/status").ok().and_then(|status| rss_bytes(&status));
        let machine = fs::read_to_string("/proc/stat").ok().and_then(|stat| MachineTicks::read(&stat));
        Self { cpu, cores, rss_bytes: rss_bytes.unwrap_or_default(), machine: machine.unwrap_or_default() }
    }

    /// Without what it had used before.
    #[must_use]
    pub(crate) fn since(self, earlier: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), ..self }
    }

    /// Share of its cores that it kept busy since `earlier`.
    pub(crate) fn busy_since(&self, earlier: &Self, elapsed: Duration) -> f64 {
        let cpu = self.cpu.saturating_sub(earlier.cpu).as_secs_f64();
        cpu / (elapsed.as_secs_f64() * f64::from(self.cores.max(1))).max(1e-3)
    }
}

impl MachineTicks {
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; what guests use is in user and nice.
        let ticks: Option<Vec<u64>> =
            line.split_ascii_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect();
        let ticks = ticks.filter(|ticks| ticks.len() == 8)?;
        let all = ticks.iter().sum();
        Some(Self { busy: all - ticks[3] - ticks[4], all })
    }

    /// Share of the machine's cores that were busy since `earlier`.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    pub(crate) fn busy_since(self, earlier: Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all > 0)?;
        Some(self.busy.saturating_sub(earlier.busy) as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_disk_is_not_busy() {
        let ticks = |line: &str| MachineTicks::read(line).expect("as the kernel writes it");
        let before = ticks("cpu  10 0 10 100 50 0 0 0 0 0\ncpu0 1 1");
        let after = ticks("cpu  20 0 30 120 100 0 0 0 0 0");
        assert_eq!(after.busy_since(before), Some(0.3));
        assert_eq!(before.busy_since(before), None);
        assert_eq!(MachineTicks::read("cpu 1 2 3"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_spins_keeps_its_core_busy() {
        let before = OwnUsage::sample(1);
        let since = std::time::Instant::now();
        while OwnUsage::sample(1).cpu < before.cpu + Duration::from_millis(50) {}
        let busy = OwnUsage::sample(1).busy_since(&before, since.elapsed());
        assert!(busy > 0.05, "{busy}");
        assert!(before.rss_bytes > 0);
    }
}
