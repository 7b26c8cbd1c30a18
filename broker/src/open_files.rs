//! How many files the process has open, and may have; and how much memory it uses.

use std::io;
use std::path::Path;

use metrics::gauge;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::admission::{GIVING_WAY_MAX, TURNED_AWAY_MAX};

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
        let max = getrlimit(Resource::RLIMIT_NOFILE).map_or(FALLBACK_MAX, |(soft, _)| soft);
        Self { open: open_files().unwrap_or(0), max }
    }

    /// Connections that fit, beside those that are told that they do not.
    pub(crate) fn connections_max(self) -> usize {
        let reserved = RESERVED + (TURNED_AWAY_MAX + GIVING_WAY_MAX) as u64;
        usize::try_from(self.max.saturating_sub(reserved).max(1))
            .unwrap_or(usize::MAX >> 4)
            .min(usize::MAX >> 4)
    }

    pub(crate) fn report(self) {
        gauge!("sotto_open_files").set(as_f64(self.open));
        gauge!("sotto_open_files_max").set(as_f64(self.max));
    }
}

/// The folder's size is their number, since Linux 6.2; before, it is 0, and they are counted one by one.
fn open_files() -> io::Result<u64> {
    let folder = Path::new("/proc/self/fd");
    match folder.metadata()?.len() {
        0 => Ok(folder.read_dir()?.count() as u64),
        open => Ok(open),
    }
}

fn as_f64(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_as_they_are_opened() {
        // Other tests of the process open files too: more of them than they can.
        const FILES: usize = 500;
        let before = open_files().expect("/proc");
        let files: Vec<_> = (0..FILES).map(|_| std::fs::File::open("/dev/null").expect("open")).collect();
        let now = open_files().expect("/proc");
        assert!(now > before + FILES as u64 / 2, "{before} then {now}, with {} more", files.len());
    }
}
