//! The bytes of a sealed message, and what they are bound to.
//!
//! Version 1:
//!
//! ```text
//! byte  0         1          17        29              29+n    29+n+16
//!       ┌─────────┬──────────┬─────────┬───────────────┬───────┐
//!       │ version │ key id   │ nonce   │ ciphertext    │ tag   │
//!       │ 01      │ 16       │ 12      │ n             │ 16    │
//!       └─────────┴──────────┴─────────┴───────────────┴───────┘
//! ```
//!
//! AES-256-GCM. The nonce is 64 random bits and a 32-bit counter. Authenticated beside the ciphertext,
//! all of fixed width, integers big endian:
//!
//! ```text
//! byte  0         1        17                  49       65           81       97       101
//!       ┌─────────┬────────┬───────────────────┬────────┬────────────┬────────┬────────┐
//!       │ version │ tenant │ SHA-256 of topic  │ sender │ message id │ key id │ epoch  │
//!       │ 01      │ 16     │ 32                │ 16     │ 16         │ 16     │ 4      │
//!       └─────────┴────────┴───────────────────┴────────┴────────────┴────────┴────────┘
//! ```

use bytes::Bytes;
use sotto_model::{MessageId, TenantId, TopicName, UserId};

/// A message encrypted for its place in the log. Only the keyring makes one.
#[derive(Clone)]
pub struct Sealed {
    tenant: TenantId,
    topic: TopicName,
    sender: UserId,
    message_id: MessageId,
    bytes: Bytes,
}

/// Where a sealed message was found: it opens there and nowhere else.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub tenant: TenantId,
    pub topic: &'a TopicName,
    pub sender: UserId,
    pub message_id: MessageId,
}

impl Sealed {
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    pub fn sender(&self) -> UserId {
        self.sender
    }

    pub fn message_id(&self) -> MessageId {
        self.message_id
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
