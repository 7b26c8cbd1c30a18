//! What a key is known by without showing it.
//!
//! AES-GCM does not commit to its key: bytes can be made that open under two. So beside each wrapped key
//! stands HMAC-SHA256(key, "sotto commit"), which is checked whenever the key is unwrapped.

use aws_lc_rs::{constant_time, hmac};

use crate::kms::PlainKey;

const LABEL: &[u8] = b"sotto commit";

pub(crate) fn commitment(key: &PlainKey) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), LABEL);
    tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

pub(crate) fn commits_to(commitment_of_row: &[u8; 32], key: &PlainKey) -> bool {
    constant_time::verify_slices_are_equal(commitment_of_row, &commitment(key)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_fits_one_key() {
        let key = |byte| PlainKey::new([byte; 32].into());
        assert!(commits_to(&commitment(&key(1)), &key(1)));
        assert!(!commits_to(&commitment(&key(1)), &key(2)));
    }
}
