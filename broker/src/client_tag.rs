//! Which client published a message, for No Local.

use aws_lc_rs::digest::{SHA256, digest};
use sotto_model::ClientId;

/// The beginning of a hash of the Client Identifier: it is the same after a reconnect and after a restart,
/// and a message that is kept names nobody. Two clients of a tenant share one by chance once in 2⁶⁴ pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientTag(u64);

impl ClientTag {
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn of(client_id: &ClientId) -> Self {
        let hash = digest(&SHA256, client_id.as_str().as_bytes());
        let (first, _) = hash.as_ref().split_first_chunk().expect("a hash has 32 bytes");
        Self::from_bytes(*first)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }
}
