//! How much memory the process uses.

use nix::unistd::{SysconfVar, sysconf};

/// Resident bytes; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page_bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_to_is_counted() {
        const BYTES: usize = 256 << 20;
        let before = resident_bytes().expect("/proc");
        let written = vec![1_u8; BYTES];
        let now = resident_bytes().expect("/proc");
        assert!(now > before + BYTES as u64 / 2, "{before} then {now}, with {}", written.len());
    }
}
