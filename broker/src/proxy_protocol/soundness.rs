//! What holds for anything that is sent as a header. Also what the fuzzer checks.

use std::net::IpAddr;

use crate::proxy_protocol::{FOLLOWING_BYTES_MAX, Fixed, ProxyFault};

/// It is understood or refused, and what is understood is bounded.
pub(crate) fn check_input(input: &[u8]) {
    let Some((fixed, rest)) = input.split_first_chunk() else { return };
    let Ok(header) = Fixed::parse(fixed) else {
        let is_short_header = fixed[..13] == *b"\r\n\r\n\0\r\nQUIT\n\x21" && fixed[14] < 8;
        assert!(!is_short_header, "a header is refused");
        return;
    };
    assert!(header.following_bytes <= FOLLOWING_BYTES_MAX);
    let Some(following) = rest.get(..header.following_bytes) else { return };
    match header.source(following) {
        Ok(Some(IpAddr::V4(source))) => assert!(fixed[13] == 0x11 && following.starts_with(&source.octets())),
        Ok(Some(IpAddr::V6(source))) => assert!(fixed[13] == 0x21 && following.starts_with(&source.octets())),
        Ok(None) => assert_eq!(fixed[12], 0x20),
        Err(fault) => assert!(matches!(fault, ProxyFault::Short | ProxyFault::NotTcp)),
    }
}
