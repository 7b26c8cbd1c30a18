//! The Fixed Header: type, flags and Remaining Length.
//!
//! ```text
//! byte 1     type (4 bits) | flags (4 bits)
//! byte 2…5   Remaining Length, a Variable Byte Integer
//! ```

use super::decode_error::DecodeError;
use super::packet_type::PacketType;
use super::primitive::variable_byte_integer;
use crate::reason::ReasonCode;

#[derive(Clone, Copy)]
pub(crate) struct FixedHeader {
    pub(crate) packet_type: PacketType,
    pub(crate) flags: u8,
    /// Length of the header itself, bytes.
    pub(crate) header_len: usize,
    /// Length of the whole packet, bytes.
    pub(crate) packet_len: usize,
}

/// The length of the packet that `buf` begins with, once its fixed header is in.
///
/// `packet_bytes_max` counts the whole packet, fixed header included, as Maximum Packet Size does.
pub fn packet_len(buf: &[u8], packet_bytes_max: u32) -> Result<Option<usize>, DecodeError> {
    Ok(FixedHeader::read(buf, packet_bytes_max)?.map(|header| header.packet_len))
}

/// Refuses what no client sends at its first byte, whatever else is wrong with it.
pub fn check_from_client(first: u8) -> Result<(), DecodeError> {
    match PacketType::from_bits(first >> 4) {
        Some(packet_type) if packet_type.is_from_client() => Ok(()),
        _ => Err(DecodeError::protocol("a packet that no client sends")),
    }
}

impl FixedHeader {
    /// `None` when `buf` ends inside the header. Refuses at the first byte that cannot be right, so that
    /// nobody waits for the rest of a packet that will be refused.
    #[inline]
    pub(crate) fn read(buf: &[u8], packet_bytes_max: u32) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
        let packet_type = PacketType::from_bits(first >> 4)
            .ok_or(DecodeError::malformed("Control Packet type 0 is reserved"))?;
        let flags = first & 0x0f;
        // [MQTT-2.1.3-1]; in 3.1.1 [MQTT-2.2.2-1] [MQTT-2.2.2-2]
        if packet_type.fixed_flags().is_some_and(|fixed| flags != fixed) {
            return Err(DecodeError::malformed(
                "a reserved flag of the fixed header has the wrong value [MQTT-2.1.3-1]",
            ));
        }
        let Some((remaining_length, length_len)) = variable_byte_integer(rest)? else { return Ok(None) };
        let header_len = 1 + length_len;
        let packet_len = header_len + remaining_length as usize;
        if packet_len > packet_bytes_max as usize {
            return Err(DecodeError::new(
                ReasonCode::PacketTooLarge,
                "a packet is larger than the Maximum Packet Size",
            ));
        }
        Ok(Some(Self { packet_type, flags, header_len, packet_len }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_as_soon_as_the_header_is_in() {
        assert_eq!(packet_len(&[], 100), Ok(None));
        assert_eq!(packet_len(&[0x30], 100), Ok(None));
        assert_eq!(packet_len(&[0x30, 0x80], 1000), Ok(None));
        assert_eq!(packet_len(&[0x30, 0x80, 0x01], 1000), Ok(Some(131)));
    }

    #[test]
    fn the_size_limit_counts_the_fixed_header_and_holds_before_the_body_is_in() {
        assert_eq!(packet_len(&[0x30, 98], 100), Ok(Some(100)));
        let error = packet_len(&[0x30, 99], 100).expect_err("101 bytes");
        assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    }

    #[test]
    fn reserved_types_and_flags_are_refused_at_the_first_byte() {
        for first in 0..=u8::MAX {
            let allowed = match first {
                0x30..=0x3f | 0x62 | 0x82 | 0xa2 => true,
                0x00 | 0x60 | 0x80 | 0xa0 => false,
                _ => first.trailing_zeros() >= 4,
            };
            assert_eq!(packet_len(&[first], 100).is_ok(), allowed, "{first:#x}");
        }
    }
}
