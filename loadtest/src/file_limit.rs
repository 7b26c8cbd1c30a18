//! The open files a process may have: one for each connection.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::limits::{FILES_PER_THREAD, FILES_RESERVED};

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileLimitError {
    #[error(
        "{connections} connections need {needed} open files and this process may have {hard}: raise the hard \
         limit (as root `ulimit -Hn {needed}`, LimitNOFILE={needed} in systemd, or nofile in \
         /etc/security/limits.conf), or take more processes (--processes, --agents) with at most {possible} connections in each"
    )]
    TooLow { connections: u64, needed: u64, hard: u64, possible: u64 },
    #[error("the limit of open files cannot be raised from {soft} to {needed}: {error}")]
    Raise { soft: u64, needed: u64, error: nix::Error },
}

/// Sees to it that `connections` fit, raising the soft limit where the hard one allows it.
pub(crate) fn make_room(connections: u64, threads: usize) -> Result<(), FileLimitError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("RLIMIT_NOFILE exists on every Unix");
    let reserved = FILES_RESERVED + threads as u64 * FILES_PER_THREAD;
    let needed = raise_to(connections, reserved, soft, hard)?;
    match needed {
        None => Ok(()),
        Some(needed) => setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
            .map_err(|error| FileLimitError::Raise { soft, needed, error }),
    }
}

/// The soft limit to be set, if any.
fn raise_to(connections: u64, reserved: u64, soft: u64, hard: u64) -> Result<Option<u64>, FileLimitError> {
    let needed = connections + reserved;
    if needed > hard {
        let possible = hard.saturating_sub(reserved);
        return Err(FileLimitError::TooLow { connections, needed, hard, possible });
    }
    Ok((needed > soft).then_some(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_only_as_far_as_needed() {
        assert!(matches!(raise_to(100, 50, 1024, 4096), Ok(None)));
        assert!(matches!(raise_to(2000, 50, 1024, 4096), Ok(Some(2050))));
    }

    #[test]
    fn a_hard_limit_that_is_too_low_is_named_with_the_way_out() {
        let error = raise_to(5000, 50, 1024, 4096).expect_err("too many").to_string();
        assert!(error.contains("5000 connections need 5050 open files"), "{error}");
        assert!(error.contains("may have 4096"), "{error}");
        assert!(error.contains("ulimit -Hn 5050"), "{error}");
        assert!(error.contains("at most 4046 connections"), "{error}");
    }
}
