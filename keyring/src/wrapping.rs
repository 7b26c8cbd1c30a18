//! A key encrypted under another key.
//!
//! ```text
//! byte  0         1         13            45      61
//!       ┌─────────┬─────────┬─────────────┬───────┐
//!       │ version │ nonce   │ key,        │ tag   │
//!       │ 01      │ random  │ encrypted   │       │
//!       └─────────┴─────────┴─────────────┴───────┘
//! ```
//!
//! AES-256-GCM. A wrapping key wraps a few keys per conversation and rotation, so random nonces do.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::kms::PlainKey;
use crate::nonce::NONCE_BYTES;

const VERSION: u8 = 1;
const KEY_START: usize = 1 + NONCE_BYTES;
const WRAPPED_BYTES: usize = KEY_START + 32 + 16;

/// A key that encrypts other keys. Its memory is cleansed when it is dropped.
pub(crate) struct WrappingKey(LessSafeKey);

impl WrappingKey {
    pub(crate) fn new(key: &PlainKey) -> Self {
        Self(aead_key(key))
    }

    pub(crate) fn wrap(&self, context: &[u8], key: &PlainKey) -> Result<Bytes, Unspecified> {
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce)?;
        let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
        wrapped.push(VERSION);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(key.as_bytes());
        let tag = self.0.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context),
            &mut wrapped[KEY_START..],
        )?;
        wrapped.extend_from_slice(tag.as_ref());
        Ok(wrapped.into())
    }

    /// `None` where it was wrapped for another context or by another key, or is damaged.
    pub(crate) fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Option<PlainKey> {
        let wrapped: &[u8; WRAPPED_BYTES] = wrapped.try_into().ok()?;
        let (version, wrapped) = wrapped.split_first()?;
        let (nonce, wrapped) = wrapped.split_first_chunk::<NONCE_BYTES>()?;
        let (encrypted, tag) = wrapped.split_first_chunk::<32>()?;
        if *version != VERSION {
            return None;
        }
        let mut plain = Zeroizing::new([0; 32]);
        self.0
            .open_separate_gather(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context),
                encrypted,
                tag,
                plain.as_mut(),
            )
            .ok()?;
        Some(PlainKey::new(plain))
    }
}

pub(crate) fn aead_key(key: &PlainKey) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, key.as_bytes()).expect("AES-256 keys have 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PlainKey {
        PlainKey::new([byte; 32].into())
    }

    #[test]
    fn a_key_unwraps_in_its_context_under_its_key_only() {
        let wrapping = WrappingKey::new(&key(1));
        let wrapped = wrapping.wrap(b"here", &key(2)).expect("wrap");
        assert_eq!(wrapping.unwrap(b"here", &wrapped).expect("unwrap").as_bytes(), key(2).as_bytes());
        assert!(wrapping.unwrap(b"there", &wrapped).is_none());
        assert!(WrappingKey::new(&key(3)).unwrap(b"here", &wrapped).is_none());
        assert!(wrapping.unwrap(b"here", &wrapped[..WRAPPED_BYTES - 1]).is_none());
        assert!(wrapping.unwrap(b"here", &[]).is_none());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let wrapping = WrappingKey::new(&key(1));
        let wrapped = wrapping.wrap(b"here", &key(2)).expect("wrap");
        for bit in 0..wrapped.len() * 8 {
            let mut flipped = wrapped.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(wrapping.unwrap(b"here", &flipped).is_none(), "bit {bit}");
        }
    }
}
