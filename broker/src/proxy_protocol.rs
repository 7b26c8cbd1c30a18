//! The header that a load balancer puts before a connection it forwards: PROXY protocol, version 2, sans-io.
//!
//! ```text
//! 12  0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
//!  1  version 2 (high half), command: 0 LOCAL, 1 PROXY (low half)
//!  1  address family: 0 none, 1 IPv4, 2 IPv6, 3 Unix (high half), transport: 0 none, 1 stream, 2 datagram
//!  2  length of what follows, big-endian
//!  n  IPv4: source 4, destination 4, ports 2 + 2;  IPv6: 16, 16, 2 + 2;  then anything (TLVs)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is read first: it says how much follows.
pub(crate) const FIXED_BYTES: usize = 16;
/// Addresses and what load balancers add to them; the longest address alone takes 216.
pub(crate) const FOLLOWING_BYTES_MAX: usize = 2048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins: text.
const VERSION_1: &[u8] = b"PROXY ";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyFault {
    #[error("no PROXY protocol header")]
    None,
    #[error("PROXY protocol version 1: version 2 is expected")]
    Version1,
    #[error("PROXY protocol of an unknown version or command")]
    Unknown,
    #[error("PROXY protocol header longer than {FOLLOWING_BYTES_MAX} bytes")]
    TooLong,
    #[error("PROXY protocol header without the address that it promises")]
    Short,
    #[error("PROXY protocol for what is no TCP connection")]
    NotTcp,
}

/// The first 16 bytes, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    command: Command,
    family: Family,
    /// That follow.
    pub(crate) following_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// The proxy's own: a health check.
    Local,
    Proxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
    Other,
}

impl Fixed {
    pub(crate) fn parse(bytes: &[u8; FIXED_BYTES]) -> Result<Self, ProxyFault> {
        if bytes[..12] != SIGNATURE {
            let is_version_1 = bytes.starts_with(VERSION_1);
            return Err(if is_version_1 { ProxyFault::Version1 } else { ProxyFault::None });
        }
        let command = match bytes[12] {
            0x20 => Command::Local,
            0x21 => Command::Proxy,
            _ => return Err(ProxyFault::Unknown),
        };
        let family = match bytes[13] {
            0x11 => Family::Ipv4,
            0x21 => Family::Ipv6,
            _ => Family::Other,
        };
        let following_bytes = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if following_bytes > FOLLOWING_BYTES_MAX {
            return Err(ProxyFault::TooLong);
        }
        Ok(Self { command, family, following_bytes })
    }

    /// Who connected to the proxy, by the bytes that follow; `None` when the proxy speaks for itself.
    pub(crate) fn source(self, following: &[u8]) -> Result<Option<IpAddr>, ProxyFault> {
        if self.command == Command::Local {
            return Ok(None);
        }
        match self.family {
            Family::Ipv4 => {
                let addresses: &[u8; 12] = following.first_chunk().ok_or(ProxyFault::Short)?;
                let [a, b, c, d, ..] = *addresses;
                Ok(Some(Ipv4Addr::new(a, b, c, d).into()))
            }
            Family::Ipv6 => {
                let addresses: &[u8; 36] = following.first_chunk().ok_or(ProxyFault::Short)?;
                let source: &[u8; 16] = addresses.first_chunk().expect("the first of 36 bytes");
                Ok(Some(Ipv6Addr::from(*source).into()))
            }
            Family::Other => Err(ProxyFault::NotTcp),
        }
    }
}

#[cfg(test)]
mod soundness;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy_protocol::soundness::check_input;

    fn header(version_command: u8, family: u8, following: &[u8]) -> Vec<u8> {
        let len = u16::try_from(following.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &len, following].concat()
    }

    fn source(bytes: &[u8]) -> Result<Option<IpAddr>, ProxyFault> {
        let (fixed, rest) = bytes.split_first_chunk().expect("long enough");
        let fixed = Fixed::parse(fixed)?;
        fixed.source(&rest[..fixed.following_bytes])
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x22, 0xb3];

    #[test]
    fn the_source_is_who_connected_to_the_proxy() {
        let behind = [&IPV4[..], &[0x04, 0, 1, 0]].concat();
        let address = "192.0.2.7".parse().expect("an address");
        assert_eq!(source(&header(0x21, 0x11, &IPV4)), Ok(Some(address)));
        assert_eq!(source(&header(0x21, 0x11, &behind)), Ok(Some(address)), "with a TLV");
        let ipv6: Ipv6Addr = "2001:db8::7".parse().expect("an address");
        let following = [&ipv6.octets()[..], &[0; 20]].concat();
        assert_eq!(source(&header(0x21, 0x21, &following)), Ok(Some(ipv6.into())));
    }

    #[test]
    fn a_health_check_speaks_for_itself() {
        assert_eq!(source(&header(0x20, 0x00, &[])), Ok(None));
        assert_eq!(source(&header(0x20, 0x11, &IPV4)), Ok(None));
    }

    #[test]
    fn what_is_no_header_of_version_2_is_refused_by_what_it_is() {
        for (bytes, fault) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), ProxyFault::Version1),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcde".to_vec(), ProxyFault::None),
            (header(0x31, 0x11, &IPV4), ProxyFault::Unknown),
            (header(0x22, 0x11, &IPV4), ProxyFault::Unknown),
            (header(0x21, 0x11, &[0; 2049]), ProxyFault::TooLong),
            (header(0x21, 0x11, &IPV4[..11]), ProxyFault::Short),
            (header(0x21, 0x21, &[0; 35]), ProxyFault::Short),
            (header(0x21, 0x12, &IPV4), ProxyFault::NotTcp),
            (header(0x21, 0x31, &[0; 216]), ProxyFault::NotTcp),
            (header(0x21, 0x00, &[]), ProxyFault::NotTcp),
        ] {
            assert_eq!(source(&bytes), Err(fault));
        }
    }

    #[test]
    fn the_fuzzers_corpus_is_sound() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/proxy_protocol");
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus") {
            check_input(&std::fs::read(entry.expect("an entry").path()).expect("an input"));
            inputs += 1;
        }
        assert!(inputs >= 8, "{inputs} inputs");
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_understood_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            head in prop::option::of((0x1f_u8..0x23, 0x10_u8..0x23, 0_u8..9)),
        ) {
            let mut bytes = bytes;
            if let Some((command, family, length)) = head {
                bytes.splice(0..0, [&SIGNATURE[..], &[command, family, length]].concat());
            }
            check_input(&bytes);
        }

        #[test]
        fn any_source_comes_back(source_bits: u128, is_ipv6: bool, tail in prop::collection::vec(any::<u8>(), 0..64)) {
            let [a, b, c, d, ..] = source_bits.to_be_bytes();
            let address: IpAddr = if is_ipv6 {
                Ipv6Addr::from_bits(source_bits).into()
            } else {
                Ipv4Addr::new(a, b, c, d).into()
            };
            let mut following = match address {
                IpAddr::V4(address) => [&address.octets()[..], &[0; 8]].concat(),
                IpAddr::V6(address) => [&address.octets()[..], &[0; 20]].concat(),
            };
            following.extend(tail);
            let bytes = header(0x21, if is_ipv6 { 0x21 } else { 0x11 }, &following);
            prop_assert_eq!(source(&bytes), Ok(Some(address)));
        }
    }
}
