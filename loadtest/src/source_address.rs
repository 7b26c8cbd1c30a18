//! Where connections come from: a network of source addresses, one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceRange {
    /// The system chooses.
    Unbound,
    Network(IpNet),
}

/// An address has only so many ports towards one listener, and a broker may limit what comes from
/// one address: so connection i takes the i-th address of the network, beginning again at its end.
#[derive(Clone, Debug)]
pub(crate) struct SourceAddresses(Option<IpNet>);

impl SourceAddresses {
    /// Without a range: 127.1.0.0/16 where the broker is on 127.0.0.0/8 and the whole of it is this machine.
    pub(crate) fn choose(range: Option<&SourceRange>, broker: SocketAddr) -> Self {
        let automatic = broker.is_ipv4() && broker.ip().is_loopback() && cfg!(target_os = "linux");
        Self(match range {
            Some(SourceRange::Unbound) => None,
            // A broker of the other family is met from where the system chooses.
            Some(SourceRange::Network(network)) => {
                Some(*network).filter(|network| network.addr().is_ipv4() == broker.is_ipv4())
            }
            None => automatic.then(|| {
                IpNet::new(IpAddr::V4(Ipv4Addr::new(127, 1, 0, 0)), 16).expect("16 is a prefix length")
            }),
        })
    }

    /// `None`: the system chooses.
    pub(crate) fn of(&self, client: u32) -> Option<IpAddr> {
        let network = self.0?;
        let (first, count) = hosts(network);
        let offset = u128::from(client) % count + first;
        Some(match network {
            IpNet::V4(network) => {
                let offset = u32::try_from(offset).expect("within an IPv4 network");
                IpAddr::V4(Ipv4Addr::from(u32::from(network.network()) + offset))
            }
            IpNet::V6(network) => IpAddr::V6(Ipv6Addr::from(u128::from(network.network()) + offset)),
        })
    }

    /// How many connections there are ports for.
    pub(crate) fn capacity(&self, ports_per_address: u64) -> u64 {
        let addresses = self.0.map_or(1, |network| hosts(network).1);
        u64::try_from(addresses).unwrap_or(u64::MAX).saturating_mul(ports_per_address)
    }
}

/// The first usable address, counted from the network's, and how many there are: without the network's own
/// and the broadcast address where there is room to leave them out.
fn hosts(network: IpNet) -> (u128, u128) {
    let host_bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let all = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    if all > 2 { (1, all - 2) } else { (0, all) }
}

impl FromStr for SourceRange {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, &'static str> {
        if raw == "none" {
            return Ok(Self::Unbound);
        }
        let network = raw.parse().or_else(|_| raw.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Self::Network)
            .map_err(|_| "expected a network such as 127.1.0.0/16, an address, or `none`")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn spread(network: &str) -> SourceAddresses {
        let broker = "127.0.0.1:8883".parse().expect("an address");
        SourceAddresses::choose(Some(&network.parse().expect("a range")), broker)
    }

    #[test]
    fn every_client_of_a_small_run_has_an_address_of_its_own() {
        let addresses = spread("127.1.0.0/16");
        let used: HashSet<_> = (0..65_534).map(|client| addresses.of(client)).collect();
        assert_eq!(used.len(), 65_534);
        assert_eq!(addresses.of(0), Some(Ipv4Addr::new(127, 1, 0, 1).into()));
        assert_eq!(addresses.of(65_534), addresses.of(0));
        assert!(!used.contains(&Some(Ipv4Addr::new(127, 1, 0, 0).into())));
        assert!(!used.contains(&Some(Ipv4Addr::new(127, 1, 255, 255).into())));
    }

    #[test]
    fn a_single_address_is_a_range_too() {
        let addresses = spread("10.0.0.7");
        assert_eq!(addresses.of(0), Some(Ipv4Addr::new(10, 0, 0, 7).into()));
        assert_eq!(addresses.of(99), addresses.of(0));
        assert_eq!(addresses.capacity(100), 100);
    }

    #[test]
    fn only_a_broker_on_this_machine_is_met_from_many_addresses_unasked() {
        let of = |broker: &str| SourceAddresses::choose(None, broker.parse().expect("an address")).of(0);
        assert_eq!(of("127.0.0.1:8883").is_some(), cfg!(target_os = "linux"));
        assert_eq!(of("192.0.2.1:8883"), None);
        assert_eq!(of("[::1]:8883"), None);
        assert_eq!(spread("none").of(0), None);
    }

    proptest! {
        #[test]
        fn every_address_lies_in_the_network(client: u32, prefix in 1..=32_u8, v6_prefix in 0..=128_u8) {
            let v4 = IpNet::new(Ipv4Addr::new(127, 1, 2, 3).into(), prefix).expect("a prefix").trunc();
            let v6 = IpNet::new("fd00::1".parse().expect("an address"), v6_prefix).expect("a prefix").trunc();
            for network in [v4, v6] {
                let address = SourceAddresses(Some(network)).of(client).expect("a network");
                prop_assert!(network.contains(&address));
            }
        }
    }
}
