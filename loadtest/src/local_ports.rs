//! The ports that the system hands out to connections of one source address.

use std::fs;

use crate::limits::PORTS_PER_ADDRESS;

/// Of Linux; it counts for IPv6 too.
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub(crate) fn ports_per_address() -> u64 {
    fs::read_to_string(RANGE_FILE).ok().and_then(|raw| ports_in(&raw)).unwrap_or(PORTS_PER_ADDRESS)
}

/// The range is its first port and its last.
fn ports_in(range: &str) -> Option<u64> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.trim_start().parse().ok()?);
    Some(u64::from(last.checked_sub(first)?) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_first_port_and_its_last() {
        assert_eq!(ports_in("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_in("1024 65535\n"), Some(64_512));
        assert_eq!(ports_in("5000\t5000\n"), Some(1));
    }

    #[test]
    fn what_is_no_range_is_not_understood() {
        for bad in ["", "32768", "60999 32768", "1 2 3", "0 65536", "a b"] {
            assert_eq!(ports_in(bad), None, "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_how_many_there_are() {
        let range = fs::read_to_string(RANGE_FILE).expect("Linux has it");
        assert_eq!(Some(ports_per_address()), ports_in(&range));
    }
}
