//! Nonces that do not repeat under one key, whatever is restored or restarted.
//!
//! ```text
//! byte  0                          8             12
//!       ┌──────────────────────────┬─────────────┐
//!       │ drawn at random          │ counter     │
//!       └──────────────────────────┴─────────────┘
//! ```
//!
//! A position in the log would be no nonce: restoring a backup takes the position back under the same
//! key. The random half is drawn when a process first seals with a key, and again when the counter is
//! used up.

use aws_lc_rs::error::Unspecified;

pub(crate) const NONCE_BYTES: usize = 12;

const COUNTER_END: u64 = 1 << 32;

pub(crate) struct NonceSequence {
    prefix: [u8; 8],
    counter: u64,
}

impl NonceSequence {
    pub(crate) fn draw() -> Result<Self, Unspecified> {
        let mut prefix = [0; 8];
        aws_lc_rs::rand::fill(&mut prefix)?;
        Ok(Self { prefix, counter: 0 })
    }

    pub(crate) fn next(&mut self) -> Result<[u8; NONCE_BYTES], Unspecified> {
        if self.counter == COUNTER_END {
            *self = Self::draw()?;
        }
        let counter = u32::try_from(self.counter).expect("below COUNTER_END");
        self.counter += 1;
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&self.prefix);
        nonce[8..].copy_from_slice(&counter.to_be_bytes());
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_used_up_counter_draws_a_new_prefix() {
        let mut nonces = NonceSequence { prefix: [7; 8], counter: COUNTER_END - 2 };
        let last = [nonces.next(), nonces.next()].map(|nonce| nonce.expect("nonce"));
        assert_eq!(last[1], [7, 7, 7, 7, 7, 7, 7, 7, 0xff, 0xff, 0xff, 0xff]);
        let wrapped = nonces.next().expect("nonce");
        assert_ne!(wrapped[..8], last[1][..8]);
        assert_eq!(wrapped[8..], [0; 4]);
    }

    proptest! {
        #[test]
        fn no_nonce_repeats_across_wraps_and_restarts(
            processes in prop::collection::vec((0..200_u64, 1..200_usize), 1..20),
        ) {
            let mut seen = HashSet::new();
            for (before_the_end, seals) in processes {
                let mut nonces = NonceSequence::draw().expect("randomness");
                nonces.counter = COUNTER_END - before_the_end;
                for _ in 0..seals {
                    prop_assert!(seen.insert(nonces.next().expect("nonce")));
                }
            }
        }
    }
}
