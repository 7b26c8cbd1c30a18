//! Which addresses a user-supplied endpoint may lead to.
//!
//! An endpoint is a URL that a stranger chose and this server calls. Without a guard it would reach
//! whatever listens inside the operator's networks. The guard decides by the address connected to,
//! after name resolution, so that a name cannot point inward.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::endpoint::Endpoint;

/// Permits public unicast addresses, and the networks that the operator named.
#[derive(Clone, Debug)]
pub struct AddressGuard {
    allow_networks: Arc<[IpNet]>,
}

/// The endpoint leads to an address that is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("push endpoint leads to an address that is not permitted")]
pub struct AddressRefused;

impl AddressGuard {
    pub fn new(allow_networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allow_networks: allow_networks.into_iter().collect() }
    }

    /// For an endpoint whose host is an address; a name is decided upon when it is resolved.
    pub fn check_literal(&self, endpoint: &Endpoint) -> Result<(), AddressRefused> {
        match endpoint.literal_address() {
            Some(address) if !self.permits(address) => Err(AddressRefused),
            _ => Ok(()),
        }
    }

    pub fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.allow_networks.iter().any(|network| network.contains(&address))
    }
}

/// Resolves names for the HTTP client, leaving only permitted addresses to connect to.
impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            // Port 0 is replaced by the URL's.
            let resolved = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = resolved.filter(|address| guard.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(AddressRefused.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_UNICAST.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// What the IANA special-purpose registry keeps from being reached globally, and what is not unicast.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // this network
    v4([10, 0, 0, 0], 8),      // private
    v4([100, 64, 0, 0], 10),   // carrier-grade NAT
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local, cloud metadata
    v4([172, 16, 0, 0], 12),   // private
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // 6to4 relays
    v4([192, 168, 0, 0], 16),  // private
    v4([198, 18, 0, 0], 15),   // benchmarks
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved, broadcast
];

/// The only IPv6 range handed out for unicast: loopback, unique local, link-local, multicast, mapped
/// IPv4 and NAT64 all lie outside.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0], 23),     // protocol assignments, Teredo
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0], 16),     // 6to4: an IPv4 address inside
    v6([0x3fff, 0, 0, 0], 20),     // documentation
];

const fn v4([a, b, c, d]: [u8; 4], prefix_bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_bits)
}

const fn v6([a, b, c, d]: [u16; 4], prefix_bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix_bits)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    const PRIVATE: [&str; 36] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.9",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "fd00::1",
        "fe80::1",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
    ];
    const PUBLIC: [&str; 9] = [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:4860:4860::8888",
    ];

    #[test]
    fn only_public_unicast_addresses_are_permitted() {
        let guard = AddressGuard::new([]);
        for address in PRIVATE {
            assert!(!guard.permits(address.parse().expect("address")), "{address}");
        }
        for address in PUBLIC {
            assert!(guard.permits(address.parse().expect("address")), "{address}");
        }
    }

    #[test]
    fn a_network_that_the_operator_named_is_permitted_and_no_other() {
        let guard = AddressGuard::new(["10.1.0.0/16".parse().expect("network")]);
        assert!(guard.permits("10.1.2.3".parse().expect("address")));
        assert!(!guard.permits("10.2.0.1".parse().expect("address")));
        assert!(!guard.permits("::ffff:10.1.2.3".parse().expect("address")));
    }

    #[test]
    fn a_literal_address_is_checked_without_a_resolver() {
        let guard = AddressGuard::new([]);
        for raw in ["https://127.1/", "https://[::1]/", "https://[fd00::1]:8443/", "https://0xa9fea9fe/"] {
            let endpoint = Endpoint::parse(raw).expect("endpoint");
            assert_eq!(guard.check_literal(&endpoint), Err(AddressRefused), "{raw}");
        }
        let public = Endpoint::parse("https://1.1.1.1/").expect("endpoint");
        assert_eq!(guard.check_literal(&public), Ok(()));
    }

    #[tokio::test]
    async fn a_name_that_points_inward_resolves_to_nothing() {
        let localhost = || Name::from_str("localhost").expect("name");
        let refused = AddressGuard::new([]).resolve(localhost()).await;
        let Err(error) = refused else { panic!("localhost was permitted") };
        assert!(error.is::<AddressRefused>());
        let loopback = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("network"));
        assert!(AddressGuard::new(loopback).resolve(localhost()).await.is_ok());
    }
}
