//! Sequence numbers seen, as a bit each: of a stream of which every process sees a part, ranges would be all gaps.
//!
//! Sent as text: 16 hexadecimal digits for each 64 numbers, the lowest number in the lowest bit.

use serde::{Deserialize, Serialize};

use crate::sequence_set::SequenceSet;

/// As long as the highest number in it: 512 MiB at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SequenceBits(Vec<u64>);

#[derive(Debug, thiserror::Error)]
#[error("not a set of sequence numbers")]
pub(crate) struct SequenceBitsError;

const WORD_BITS: u32 = u64::BITS;
const WORD_DIGITS: usize = 16;

impl SequenceBits {
    /// Whether it was not in the set.
    pub(crate) fn insert(&mut self, sequence: u32) -> bool {
        let (at, bit) = place(sequence);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let is_new = self.0[at] & bit == 0;
        self.0[at] |= bit;
        is_new
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in all of `other`; how many were in both?
    pub(crate) fn join(&mut self, other: &Self) -> u64 {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut both = 0;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            both += u64::from((*mine & theirs).count_ones());
            *mine |= theirs;
        }
        both
    }

    /// How many of `sent` are missing.
    pub(crate) fn missing(&self, sent: &SequenceSet) -> u64 {
        let found: u64 = sent.ranges().map(|(first, last)| self.count(first, last)).sum();
        sent.len().saturating_sub(found)
    }

    /// How many from `first` to `last`, both included.
    fn count(&self, first: u32, last: u32) -> u64 {
        let ((from, _), (to, _)) = (place(first), place(last));
        let mut count = 0;
        for (at, word) in self.0.iter().enumerate().take(to + 1).skip(from) {
            let mut word = *word;
            if at == from {
                word &= u64::MAX << (first % WORD_BITS);
            }
            if at == to {
                word &= u64::MAX >> (WORD_BITS - 1 - last % WORD_BITS);
            }
            count += u64::from(word.count_ones());
        }
        count
    }
}

fn place(sequence: u32) -> (usize, u64) {
    ((sequence / WORD_BITS) as usize, 1 << (sequence % WORD_BITS))
}

impl From<SequenceBits> for String {
    fn from(bits: SequenceBits) -> Self {
        use std::fmt::Write as _;
        let mut text = Self::with_capacity(bits.0.len() * WORD_DIGITS);
        for word in bits.0 {
            let _ = write!(text, "{word:016x}");
        }
        text
    }
}

impl TryFrom<String> for SequenceBits {
    type Error = SequenceBitsError;

    fn try_from(text: String) -> Result<Self, SequenceBitsError> {
        if !text.is_ascii() || !text.len().is_multiple_of(WORD_DIGITS) {
            return Err(SequenceBitsError);
        }
        let words = (0..text.len()).step_by(WORD_DIGITS).map(|at| &text[at..at + WORD_DIGITS]);
        let words = words.map(|word| u64::from_str_radix(word, 16).map_err(|_| SequenceBitsError));
        words.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_that_are_sent_and_joined_agree_with_one_plain_set(
            arrivals in prop::collection::vec((0..3_usize, 0..300_u32), 0..400),
            sent in prop::collection::btree_set(0..300_u32, 0..300),
        ) {
            let mut parts = vec![SequenceBits::default(); 3];
            let (mut all, mut seen_again) = (BTreeSet::new(), 0);
            for (part, sequence) in &arrivals {
                seen_again += u64::from(!all.insert(*sequence));
                // What a part sees again it knows itself.
                seen_again -= u64::from(!parts[*part].insert(*sequence));
            }
            let mut joined = SequenceBits::default();
            let mut both = 0;
            for part in &parts {
                let text = serde_json::to_string(part).expect("text");
                both += joined.join(&serde_json::from_str(&text).expect("as written"));
            }
            prop_assert_eq!(both, seen_again);
            let missing = sent.difference(&all).count() as u64;
            let mut set = SequenceSet::default();
            for sequence in sent {
                set.insert(sequence);
            }
            prop_assert_eq!(joined.missing(&set), missing);
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["0", "000000000000000g", "ü00000000000000"] {
            assert!(SequenceBits::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
