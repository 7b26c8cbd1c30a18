//! The bytes around a ciphertext: which key, which nonce.
//!
//! ```text
//! byte  0         1          17        29              29+n    29+n+16
//!       ┌─────────┬──────────┬─────────┬───────────────┬───────┐
//!       │ version │ key id   │ nonce   │ ciphertext    │ tag   │
//!       │ 01      │ 16       │ 12      │ n             │ 16    │
//!       └─────────┴──────────┴─────────┴───────────────┴───────┘
//! ```
//!
//! AES-256-GCM. What is authenticated beside the ciphertext is the business of whoever frames.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::error::Unspecified;
use uuid::Uuid;

use crate::key_scope::KeyId;
use crate::nonce::NONCE_BYTES;

pub(crate) const VERSION: u8 = 1;
const CIPHERTEXT_START: usize = 1 + 16 + NONCE_BYTES;
const TAG_BYTES: usize = 16;
/// Bytes that a frame adds to its plaintext.
pub(crate) const FRAME_BYTES: usize = CIPHERTEXT_START + TAG_BYTES;

/// A frame taken apart, not yet opened.
pub(crate) struct Frame<'a> {
    pub(crate) key_id: KeyId,
    nonce: [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

/// Encrypts the parts, one after another, in the one buffer that is returned.
pub(crate) fn seal(
    key: &LessSafeKey,
    key_id: KeyId,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    parts: &[&[u8]],
) -> Result<Vec<u8>, Unspecified> {
    let plaintext_bytes: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(FRAME_BYTES + plaintext_bytes);
    bytes.push(VERSION);
    bytes.extend_from_slice(key_id.0.as_bytes());
    bytes.extend_from_slice(&nonce);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    let tag = key.seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(aad),
        &mut bytes[CIPHERTEXT_START..],
    )?;
    bytes.extend_from_slice(tag.as_ref());
    Ok(bytes)
}

impl<'a> Frame<'a> {
    /// `None` where the bytes are too short or of another version.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (key_id, rest) = rest.split_first_chunk::<16>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        Some(Self { key_id: KeyId(Uuid::from_bytes(*key_id)), nonce: *nonce, ciphertext, tag })
    }

    /// `None` where the bytes are not what was sealed with this key and this data beside them.
    pub(crate) fn open(&self, key: &LessSafeKey, aad: &[u8]) -> Option<Vec<u8>> {
        let mut plaintext = vec![0; self.ciphertext.len()];
        key.open_separate_gather(
            Nonce::assume_unique_for_key(self.nonce),
            Aad::from(aad),
            self.ciphertext,
            self.tag,
            &mut plaintext,
        )
        .ok()?;
        Some(plaintext)
    }
}
