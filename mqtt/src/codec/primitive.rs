//! The data types of MQTT 5 §1.5, read from a slice and written to a sink.

use sotto_model::PacketId;

use super::decode_error::DecodeError;

/// The largest Variable Byte Integer: four bytes of seven bits.
pub(crate) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

const ENDS_EARLY: DecodeError = DecodeError::malformed("a field ends behind the end of what holds it");

const HOLDS_NUL: DecodeError = DecodeError::malformed("a string holds U+0000 [MQTT-1.5.4-2]");

/// Reads a packet from front to back. Every field borrows from the packet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = variable_byte_integer(self.rest)?.ok_or(ENDS_EARLY)?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Binary Data: two bytes of length, then that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    #[inline]
    pub(crate) fn utf8(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.unicode()?;
        if contains_any(text.as_bytes(), [0]) {
            return Err(HOLDS_NUL);
        }
        Ok(text)
    }

    /// A UTF-8 string that names something: a client, a user, a topic. Of the code points that §1.5.4 says
    /// it should not hold, and for which it lets a receiver take the packet for malformed, it holds none:
    /// what cannot be seen tells names apart that look the same.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.unicode()?;
        let printable = text.bytes().fold(true, |all, byte| all & matches!(byte, b' '..=b'~'));
        if !printable {
            check_name(text)?;
        }
        Ok(text)
    }

    #[inline]
    fn unicode(&mut self) -> Result<&'a str, DecodeError> {
        // Refuses surrogates and overlong forms too. [MQTT-1.5.4-1]
        std::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("a string is not UTF-8 [MQTT-1.5.4-1]"))
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?)
            .ok_or(DecodeError::protocol("a Packet Identifier is zero [MQTT-2.2.1-3] [MQTT-2.2.1-4]"))
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("a packet is longer than its fields"))
        }
    }
}

fn check_name(text: &str) -> Result<(), DecodeError> {
    for character in text.chars() {
        match u32::from(character) {
            0 => return Err(HOLDS_NUL),
            0x01..=0x1f | 0x7f..=0x9f => {
                return Err(DecodeError::malformed("a name holds a control character (§1.5.4)"));
            }
            point if matches!(point, 0xfdd0..=0xfdef) || point & 0xfffe == 0xfffe => {
                return Err(DecodeError::malformed("a name holds a non-character of Unicode (§1.5.4)"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether one of `needles` is in `bytes`; eight bytes at a time, since every string of every packet is
/// looked through.
#[inline]
pub(crate) fn contains_any<const N: usize>(bytes: &[u8], needles: [u8; N]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let Some(tail) = bytes.last_chunk() else {
        return bytes.iter().any(|byte| needles.contains(byte));
    };
    let look = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        needles.iter().fold(0, |found, needle| {
            let difference = word ^ (ONES * u64::from(*needle));
            // Has a top bit exactly when a byte of `difference` is zero.
            found | (difference.wrapping_sub(ONES) & !difference & TOPS)
        })
    };
    // The tail overlaps the last whole word, which does no harm.
    bytes.as_chunks().0.iter().fold(look(tail), |found, word| found | look(word)) != 0
}

/// The value at the beginning of `bytes` and its length; `None` when `bytes` ends inside it.
#[inline]
pub(crate) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::malformed(
                    "a Variable Byte Integer is longer than need be [MQTT-1.5.5-1]",
                ));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::malformed("a Variable Byte Integer is longer than four bytes"));
    }
    Ok(None)
}

/// Where a packet is written to: the output, or a count that tells its length beforehand.
pub(crate) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// # Panics
    /// Past 268,435,455, which four bytes cannot hold.
    fn variable_byte_integer(&mut self, value: u32) {
        assert!(value <= VARIABLE_BYTE_INTEGER_MAX, "a Variable Byte Integer has at most 28 bits");
        let mut rest = value;
        while rest > 0x7f {
            self.u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.u8((rest & 0x7f) as u8);
    }

    /// # Panics
    /// Past 65,535 bytes, which the length field cannot hold.
    fn binary(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("a field has at most 65,535 bytes"));
        self.bytes(bytes);
    }

    /// # Panics
    /// As `binary`.
    fn utf8(&mut self, text: &str) {
        self.binary(text.as_bytes());
    }

    fn packet_id(&mut self, id: PacketId) {
        self.u16(id.0.get());
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what it is given.
#[derive(Default)]
pub(crate) struct Count(pub(crate) usize);

impl Sink for Count {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

pub(crate) const fn variable_byte_integer_size(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_byte_integer_has_the_borders_of_table_1_1() {
        let table: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
        ];
        for (value, bytes) in table {
            let mut written = Vec::new();
            written.variable_byte_integer(value);
            assert_eq!(written, bytes);
            assert_eq!(variable_byte_integer(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(variable_byte_integer_size(value), bytes.len());
            assert_eq!(variable_byte_integer(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn a_variable_byte_integer_is_minimal_and_at_most_four_bytes() {
        for bad in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x00], &[0xff; 4], &[0x80; 5]]
        {
            assert!(variable_byte_integer(bad).is_err(), "{bad:x?}");
        }
    }

    fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
        Reader { rest: bytes }.utf8()
    }

    #[test]
    fn a_string_is_strict_utf8_without_nul() {
        // A, U+2A6D4: the example of §1.5.4.
        assert_eq!(utf8(&[0x00, 0x05, 0x41, 0xf0, 0xaa, 0x9b, 0x94]), Ok("A\u{2a6d4}"));
        // U+FEFF is kept wherever it stands. [MQTT-1.5.4-3]
        assert_eq!(utf8(&[0, 3, 0xef, 0xbb, 0xbf]), Ok("\u{feff}"));
        let bad: [&[u8]; 8] = [
            &[0, 3, 0xed, 0xa0, 0x80],       // the surrogate U+D800
            &[0, 3, 0xed, 0xbf, 0xbf],       // the surrogate U+DFFF
            &[0, 2, 0xc0, 0x80],             // U+0000, overlong
            &[0, 2, 0xc1, 0xbf],             // U+007F, overlong
            &[0, 4, 0xf4, 0x90, 0x80, 0x80], // past U+10FFFF
            &[0, 1, 0x80],                   // a continuation byte alone
            &[0, 2, 0xc3, 0x28],             // a sequence broken off
            &[0, 3, b'a', 0, b'b'],          // U+0000
        ];
        for bytes in bad {
            assert!(utf8(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_stands_and_nothing_else_is() {
        for len in 0..40 {
            let plain: Vec<u8> =
                (0..len).map(|index| [0x01, 0x80, 0xff, b'*', b'"', b'$'][index % 6]).collect();
            assert!(!contains_any(&plain, [0, b'+', b'#']));
            for at in 0..len {
                for needle in [0, b'+', b'#'] {
                    let mut bytes = plain.clone();
                    bytes[at] = needle;
                    assert!(contains_any(&bytes, [0, b'+', b'#']));
                    assert!(contains_any(&bytes, [needle]));
                }
            }
        }
    }

    #[test]
    fn no_field_reaches_behind_its_packet() {
        assert_eq!(utf8(&[0, 5, b'a', b'b']), Err(ENDS_EARLY));
        assert_eq!(utf8(&[0]), Err(ENDS_EARLY));
        assert_eq!(Reader::new(&[1, 2, 3]).u32(), Err(ENDS_EARLY));
        assert_eq!(Reader::new(&[0x80]).variable_byte_integer(), Err(ENDS_EARLY));
    }
}
