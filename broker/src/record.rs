//! A message as the node handles it: opened, immutable, shared by everyone to whom it goes.
//!
//! What is sealed is the body, so that properties are as secret as the payload. Version 2, integers big
//! endian:
//!
//! ```text
//! byte  0         1               5            13               13+n
//!       ┌─────────┬───────────────┬────────────┬────────────────┬─────────┐
//!       │ version │ n             │ publisher  │ properties     │ payload │
//!       │ 02      │ 4             │ 8          │ n              │         │
//!       └─────────┴───────────────┴────────────┴────────────────┴─────────┘
//! ```
//!
//! The publisher is a [`ClientTag`]. The properties are those of the PUBLISH that are forwarded, encoded as
//! MQTT 5 has them.

use std::sync::{Arc, OnceLock};

use sotto_model::{MessageId, Offset, QoS, TenantId, TopicName, TopicScope, UnixMillis, UserId};
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf, PropertyContext};
use sotto_storage::message_log::StoredMessage;
use sotto_storage::tail::TailRecord;

use crate::client_tag::ClientTag;

const BODY_VERSION: u8 = 2;
const BODY_HEADER_BYTES: usize = 5 + ClientTag::BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("message body is of an unknown version")]
    Version,
    #[error("message body is cut short")]
    Short,
    #[error("message body holds properties that are not MQTT's")]
    Properties,
}

/// A message before it has a place in the log.
#[expect(clippy::struct_field_names, reason = "a message id is what it is called everywhere")]
pub(crate) struct Message {
    pub(crate) tenant: TenantId,
    pub(crate) topic: TopicName,
    pub(crate) sender: UserId,
    pub(crate) message_id: MessageId,
    pub(crate) qos: QoS,
    /// Published with RETAIN.
    pub(crate) retain: bool,
    pub(crate) expires_at: Option<UnixMillis>,
    /// Encoded; those that are forwarded. [MQTT-3.3.2-17]
    pub(crate) properties: Box<[u8]>,
    pub(crate) payload: Box<[u8]>,
    /// For No Local. [MQTT-3.8.3-3]
    pub(crate) publisher: ClientTag,
}

impl Message {
    /// The three parts of the body, to be sealed one after the other.
    pub(crate) fn body_head(&self) -> [u8; BODY_HEADER_BYTES] {
        let properties_len = u32::try_from(self.properties.len()).expect("bounded by the packet size");
        let mut head = [BODY_VERSION; BODY_HEADER_BYTES];
        head[1..5].copy_from_slice(&properties_len.to_be_bytes());
        head[5..].copy_from_slice(&self.publisher.to_bytes());
        head
    }

    pub(crate) fn bytes(&self) -> usize {
        BODY_HEADER_BYTES + self.properties.len() + self.payload.len()
    }
}

/// A message at its place in the log, or one that goes to live sessions only.
pub(crate) struct Record {
    pub(crate) message: Message,
    pub(crate) commit: Option<Commit>,
    /// Version 5 properties as delivered, encoded when the first version 5 session needs them.
    delivered_properties: OnceLock<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) offset: Offset,
    pub(crate) at: UnixMillis,
    /// In a tenant with guarded topics: the subscriber is told place, sender and time.
    pub(crate) told: bool,
}

impl Record {
    pub(crate) fn unlogged(message: Message) -> Arc<Self> {
        Arc::new(Self { message, commit: None, delivered_properties: OnceLock::new() })
    }

    pub(crate) fn committed(message: Message, commit: Commit) -> Arc<Self> {
        Arc::new(Self { message, commit: Some(commit), delivered_properties: OnceLock::new() })
    }

    /// A stored message, opened.
    pub(crate) fn from_stored(
        tenant: TenantId,
        stored: StoredMessage,
        body: &[u8],
        told: bool,
    ) -> Result<Arc<Self>, BodyError> {
        let (head, rest) = body.split_first_chunk::<BODY_HEADER_BYTES>().ok_or(BodyError::Short)?;
        if head[0] != BODY_VERSION {
            return Err(BodyError::Version);
        }
        let [_, a, b, c, d, publisher @ ..] = *head;
        let properties_len = u32::from_be_bytes([a, b, c, d]) as usize;
        if properties_len > rest.len() {
            return Err(BodyError::Short);
        }
        let (properties, payload) = rest.split_at(properties_len);
        Properties::check(PropertyContext::Publish, properties).map_err(|_| BodyError::Properties)?;
        let message = Message {
            tenant,
            topic: stored.topic,
            sender: stored.sender,
            message_id: stored.message_id,
            qos: stored.qos,
            retain: stored.retain,
            expires_at: stored.expires_at,
            properties: properties.into(),
            payload: payload.into(),
            publisher: ClientTag::from_bytes(publisher),
        };
        Ok(Self::committed(message, Commit { offset: stored.offset, at: stored.committed_at, told }))
    }

    pub(crate) fn offset(&self) -> Option<Offset> {
        self.commit.map(|commit| commit.offset)
    }

    pub(crate) fn scope(&self) -> TopicScope {
        self.message.topic.scope()
    }

    /// What a version 5 subscriber is sent beside what is particular to its delivery.
    pub(crate) fn delivered_properties(&self) -> &[u8] {
        let Some(commit) = self.commit.filter(|commit| commit.told) else {
            return &self.message.properties;
        };
        self.delivered_properties.get_or_init(|| {
            let mut told = PropertyBuf::new();
            told.push(Property::UserProperty("sotto-offset", &commit.offset.0.to_string()));
            told.push(Property::UserProperty("sotto-from", &self.message.sender.to_string()));
            told.push(Property::UserProperty("sotto-at", &commit.at.0.to_string()));
            let mut bytes = Vec::from(&*self.message.properties);
            bytes.extend_from_slice(told.as_properties().as_bytes());
            bytes.into()
        })
    }

    /// Seconds that the message has left, rounded up; `Err` when it has none. [MQTT-3.3.2-5]
    pub(crate) fn expiry_remaining_seconds(
        &self,
        now: impl FnOnce() -> UnixMillis,
    ) -> Result<Option<u32>, Expired> {
        let Some(expires_at) = self.message.expires_at else {
            return Ok(None);
        };
        let left_ms = expires_at.0.saturating_sub(now().0);
        if left_ms == 0 {
            return Err(Expired);
        }
        Ok(Some(u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX)))
    }
}

/// The message is past its Message Expiry Interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired;

impl TailRecord for Record {
    fn tenant(&self) -> TenantId {
        self.message.tenant
    }

    fn offset(&self) -> Offset {
        self.commit.expect("only committed records are pushed to the tail").offset
    }

    fn topic(&self) -> &TopicName {
        &self.message.topic
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.message.topic.as_str().len() + self.message.bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    fn stored() -> StoredMessage {
        StoredMessage {
            offset: Offset(7),
            topic: TopicName::parse("t").expect("a topic"),
            sender: UserId(Uuid::from_u128(2)),
            message_id: MessageId(Uuid::from_u128(3)),
            qos: QoS::AtLeastOnce,
            retain: false,
            committed_at: UnixMillis(1000),
            expires_at: Some(UnixMillis(5000)),
            sealed: b"".as_slice().into(),
        }
    }

    const EMPTY: [u8; BODY_HEADER_BYTES] = [BODY_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn properties(values: &[(String, String)]) -> Vec<u8> {
        let mut properties = PropertyBuf::new();
        for (name, value) in values {
            properties.push(Property::UserProperty(name, value));
        }
        properties.into_bytes()
    }

    fn sealed_parts(properties: &[u8], payload: &[u8]) -> Vec<u8> {
        let head = Record::from_stored(TENANT, stored(), &EMPTY, false);
        let Record { mut message, .. } = Arc::into_inner(head.expect("an empty body")).expect("one holder");
        message.properties = properties.into();
        message.payload = payload.into();
        [&message.body_head()[..], properties, payload].concat()
    }

    proptest! {
        #[test]
        fn a_body_comes_back_as_it_was_sealed(
            values in prop::collection::vec(("[a-zé]{0,20}", "[a-zé]{0,20}"), 0..5),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let properties = properties(&values);
            let body = sealed_parts(&properties, &payload);
            let record = Record::from_stored(TENANT, stored(), &body, false).expect("its own body");
            prop_assert_eq!(&*record.message.properties, &properties[..]);
            prop_assert_eq!(&*record.message.payload, &payload[..]);
            prop_assert_eq!(record.message.bytes(), body.len());
        }

        #[test]
        fn a_body_that_is_not_one_is_refused_or_well_formed(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut versioned = body.clone();
            versioned.splice(0..versioned.len().min(4), [BODY_VERSION, 0, 0, 0]);
            for body in [body, versioned] {
                if let Ok(record) = Record::from_stored(TENANT, stored(), &body, true) {
                    let told = record.delivered_properties();
                    prop_assert!(Properties::check(PropertyContext::Publish, told).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_body_cut_short_is_refused() {
        let body = sealed_parts(&properties(&[("name".into(), "value".into())]), b"");
        for len in 0..body.len() {
            assert!(Record::from_stored(TENANT, stored(), &body[..len], false).is_err(), "{len}");
        }
        let longest = [BODY_VERSION, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Record::from_stored(TENANT, stored(), &longest, false).err(), Some(BodyError::Short));
    }

    #[test]
    fn a_message_expires_at_its_last_millisecond() {
        let record = Record::from_stored(TENANT, stored(), &EMPTY, false).expect("a body");
        let remaining = |now| record.expiry_remaining_seconds(|| UnixMillis(now));
        assert_eq!(remaining(3999), Ok(Some(2)));
        assert_eq!(remaining(4999), Ok(Some(1)));
        assert_eq!(remaining(5000), Err(Expired));
        assert_eq!(remaining(u64::MAX), Err(Expired));
    }
}
