//! What every message carries, so that its receiver can tell which it is and how late.
//!
//! ```text
//! byte  0        4            7          11              16
//!       +--------+------------+----------+---------------+---------
//!       | run    | publisher  | sequence | intended_us   | filler
//!       | u32    | u24        | u32      | u40           | as asked for
//!       +--------+------------+----------+---------------+---------
//! ```
//! Big-endian. `sequence` counts a publisher's messages from 0; `intended_us` is when the message was due,
//! microseconds since the run began. The header is 16 bytes because the Open MQTT Benchmark Suite's
//! messages are.

use crate::run_clock::Micros;
use crate::template::RunId;

pub(crate) const HEADER_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: RunId,
    /// Below 2^24.
    pub(crate) publisher: u32,
    pub(crate) sequence: u32,
    /// Below 2^40.
    pub(crate) intended: Micros,
}

impl Stamp {
    /// Writes the header over the beginning of `payload`.
    pub(crate) fn write(self, payload: &mut [u8]) {
        payload[0..4].copy_from_slice(&self.run.0.to_be_bytes());
        payload[4..7].copy_from_slice(&self.publisher.to_be_bytes()[1..]);
        payload[7..11].copy_from_slice(&self.sequence.to_be_bytes());
        payload[11..16].copy_from_slice(&self.intended.0.to_be_bytes()[3..]);
    }

    /// `None` where the payload is too short to bear a stamp.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let header = payload.first_chunk::<HEADER_BYTES>()?;
        let number = |range: std::ops::Range<usize>| {
            header[range].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let small = |range| u32::try_from(number(range)).expect("at most four bytes");
        Some(Self {
            run: RunId(small(0..4)),
            publisher: small(4..7),
            sequence: small(7..11),
            intended: Micros(number(11..16)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamp_reads_back_as_written(
            run: u32,
            publisher in 0..1_u32 << 24,
            sequence: u32,
            intended in 0..1_u64 << 40,
            filler in 0..64_usize,
        ) {
            let stamp = Stamp { run: RunId(run), publisher, sequence, intended: Micros(intended) };
            let mut payload = vec![0xAA; HEADER_BYTES + filler];
            stamp.write(&mut payload);
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
            prop_assert!(payload[HEADER_BYTES..].iter().all(|byte| *byte == 0xAA));
        }

        #[test]
        fn a_payload_of_someone_else_does_no_harm(payload: Vec<u8>) {
            prop_assert_eq!(Stamp::read(&payload).is_some(), payload.len() >= HEADER_BYTES);
        }
    }
}
