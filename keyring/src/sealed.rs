//! A sealed message, and what it is bound to.
//!
//! Its bytes, version 1:
//!
//! ```text
//! byte  0         1          17        29              29+n    29+n+16
//!       ┌─────────┬──────────┬─────────┬───────────────┬───────┐
//!       │ version │ key id   │ nonce   │ ciphertext    │ tag   │
//!       │ 01      │ 16       │ 12      │ n             │ 16    │
//!       └─────────┴──────────┴─────────┴───────────────┴───────┘
//! ```
//!
//! AES-256-GCM; the nonce is 64 random bits and a 32-bit counter. Authenticated beside the ciphertext,
//! all of fixed width, integers big endian:
//!
//! ```text
//! byte  0         1        17                  49       65           81       97       101
//!       ┌─────────┬────────┬───────────────────┬────────┬────────────┬────────┬────────┐
//!       │ version │ tenant │ SHA-256 of topic  │ sender │ message id │ key id │ epoch  │
//!       │ 01      │ 16     │ 32                │ 16     │ 16         │ 16     │ 4      │
//!       └─────────┴────────┴───────────────────┴────────┴────────────┴────────┴────────┘
//! ```

use aws_lc_rs::digest;
use bytes::Bytes;
use sotto_auth::PublishPermit;
use sotto_model::{MessageId, TenantId, TopicName, UserId};

use crate::data_key::DataKey;
use crate::frame;

/// Bytes that sealing adds to a message.
pub const SEALED_OVERHEAD_BYTES: usize = frame::FRAME_BYTES;

/// A message encrypted for its place in the log. Only [`crate::Keyring::seal`] makes one.
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
    /// Uses up the permit that these bytes were sealed on.
    pub(crate) fn new(permit: PublishPermit, message_id: MessageId, bytes: Vec<u8>) -> Self {
        Self {
            tenant: permit.tenant(),
            sender: permit.sender(),
            message_id,
            topic: permit.into_topic(),
            bytes: bytes.into(),
        }
    }

    pub fn place(&self) -> Place<'_> {
        Place { tenant: self.tenant, topic: &self.topic, sender: self.sender, message_id: self.message_id }
    }

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

impl Place<'_> {
    pub(crate) fn authenticated_data(&self, key: &DataKey) -> [u8; 101] {
        let topic = digest::digest(&digest::SHA256, self.topic.as_str().as_bytes());
        let mut data = [0; 101];
        data[0] = frame::VERSION;
        data[1..17].copy_from_slice(self.tenant.0.as_bytes());
        data[17..49].copy_from_slice(topic.as_ref());
        data[49..65].copy_from_slice(self.sender.0.as_bytes());
        data[65..81].copy_from_slice(self.message_id.0.as_bytes());
        data[81..97].copy_from_slice(key.id.0.as_bytes());
        data[97..].copy_from_slice(&key.epoch_key.epoch.0.to_be_bytes());
        data
    }
}
