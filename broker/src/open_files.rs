//! How many files the process has open, and may have.

use metrics::gauge;

/// Files that are not connections: database, listeners, logs, and room to work.
const RESERVED: u64 = 256;

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFiles {
    open: u64,
    max: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one.
    pub(crate) fn raise_limit() {
        let _ = rlimit::increase_nofile_limit(u64::MAX);
    }

    pub(crate) fn read() -> Self {
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
        let max = rlimit::Resource::NOFILE.get_soft().unwrap_or(1024);
        Self { open, max }
    }

    /// Connections that fit.
    pub(crate) fn connections_max(self) -> usize {
        usize::try_from(self.max.saturating_sub(RESERVED).max(1))
            .unwrap_or(usize::MAX >> 4)
            .min(usize::MAX >> 4)
    }

    pub(crate) fn report(self) {
        gauge!("sotto_open_files").set(as_f64(self.open));
        gauge!("sotto_open_files_max").set(as_f64(self.max));
    }
}

fn as_f64(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
