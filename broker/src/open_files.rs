//! How many files the process has open, and may have.

use metrics::gauge;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are not connections: database, listeners, logs, and room to work.
const RESERVED: u64 = 256;

/// Where the limit cannot be read: what POSIX systems start with.
const FALLBACK_MAX: u64 = 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFiles {
    open: u64,
    max: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one.
    pub(crate) fn raise_limit() {
        // Where it cannot be read or raised, the broker takes what there is.
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }

    pub(crate) fn read() -> Self {
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
        let max = getrlimit(Resource::RLIMIT_NOFILE).map_or(FALLBACK_MAX, |(soft, _)| soft);
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
