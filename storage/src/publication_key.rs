//! What a publication id is remembered by.
//!
//! ```text
//! SHA-256( tenant (16) ‖ sender (16) ‖ publication id (16) ), its first 16 bytes
//! ```
//!
//! A third of what the three take, in a table with an entry for every message that names itself. Publishers
//! choose the last part alone, so nobody can make a key that collides with another sender's.

use aws_lc_rs::digest::{Context, SHA256};
use sotto_model::{PublicationId, TenantId, UserId};
use uuid::Uuid;

use crate::message_log::Append;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicationKey(pub Uuid);

impl PublicationKey {
    pub fn new(tenant: TenantId, sender: UserId, publication: PublicationId) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in [tenant.0, sender.0, publication.0] {
            hash.update(part.as_bytes());
        }
        let hash = hash.finish();
        Self(Uuid::from_slice(&hash.as_ref()[..16]).expect("16 bytes"))
    }

    /// Of a message that names itself.
    pub fn of(append: &Append) -> Option<Self> {
        let publication = append.publication?;
        Some(Self::new(append.sealed.tenant(), append.sealed.sender(), publication))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_makes_a_different_key() {
        let key = |tenant: u128, sender: u128, publication: u128| {
            PublicationKey::new(
                TenantId(Uuid::from_u128(tenant)),
                UserId(Uuid::from_u128(sender)),
                PublicationId(Uuid::from_u128(publication)),
            )
        };
        assert_eq!(key(1, 2, 3), key(1, 2, 3));
        for other in [key(9, 2, 3), key(1, 9, 3), key(1, 2, 9), key(2, 1, 3)] {
            assert_ne!(key(1, 2, 3), other);
        }
    }
}
