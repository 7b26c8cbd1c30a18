//! What counts as one address: an IPv4 address, or the /64 that an IPv6 subscriber is given.

use std::net::IpAddr;
use std::num::NonZeroU64;

/// The high half of an IPv6 address, or an IPv4 address where IPv6 has none to give (`0:ffff::/32`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AddressKey(NonZeroU64);

impl AddressKey {
    const IPV4: u64 = 0xffff << 32;

    pub(crate) fn of(address: IpAddr) -> Self {
        // A socket for both families shows IPv4 peers as `::ffff:a.b.c.d`.
        let key = match address.to_canonical() {
            IpAddr::V4(address) => Self::IPV4 | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        // `::/64` is this machine, and nobody is behind the last.
        Self(NonZeroU64::new(key).unwrap_or(NonZeroU64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> AddressKey {
        AddressKey::of(address.parse().expect("an address"))
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address_and_every_ipv4_address_is() {
        assert_eq!(key("2001:db8:1:2::3"), key("2001:db8:1:2:ffff::4"));
        assert_ne!(key("2001:db8:1:2::3"), key("2001:db8:1:3::3"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("0.0.0.1"), key("::1"));
    }
}
