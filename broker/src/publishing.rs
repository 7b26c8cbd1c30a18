//! From a PUBLISH to the log or straight to live sessions: authorize, seal, submit, without ever awaiting,
//! so that the order of arrival is the order of the log.

use std::sync::Arc;
use std::time::Duration;

use sotto_auth::{Denied, PublishPermit};
use sotto_keyring::{KeyRequest, SealError, Sealed};
use sotto_model::{
    Clock, MessageId, PacketId, Principal, PublicationId, QoS, TopicName, TopicPolicy, TopicScope,
    UnixMillis, Urgency,
};
use sotto_mqtt::codec::properties::PropertyBuf;
use sotto_mqtt::codec::property::PropertyId;
use sotto_mqtt::handshake::Will;
use sotto_mqtt::packet::Publish;
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::message_log::{Append, RetainChange};
use tokio::sync::oneshot;

use crate::commits::{Pending, Publisher, delivered};
use crate::connection_id::ConnectionId;
use crate::record::{Message, Record};
use crate::services::Services;
use crate::session_entry::SessionEntry;

/// Between a fetch of a key that failed and the next.
const KEY_RETRY_AFTER: Duration = Duration::from_millis(500);

/// A message that a connection wants published, owned: it may have to wait.
pub(crate) struct Publication {
    message: Message,
    /// Of a QoS 1 or 2 PUBLISH, which is answered.
    packet_id: Option<PacketId>,
    /// The publisher's name for it.
    id: Option<PublicationId>,
    /// How soon it wakes devices that sleep.
    urgency: Urgency,
    /// Dropped once it is committed, or will not be.
    settled: Option<oneshot::Sender<()>>,
    /// The kept will that it is.
    will: Option<MessageId>,
}

/// What became of a publication.
pub(crate) enum Published {
    /// Nothing is to be waited for; a QoS 1 or 2 PUBLISH is answered with this.
    Decided(ReasonCode),
    /// Its answer comes to the mailbox, after the commit; a kept will is gone with the commit.
    Submitted,
    /// It must wait, and nothing may overtake it.
    Stalled(Box<Publication>, Stall),
    Denied,
    /// The node is shutting down.
    Closed,
}

#[derive(Clone, Copy)]
pub(crate) enum Stall {
    /// Too many bytes wait for a commit.
    Budget,
    Key(KeyRequest),
}

impl Publication {
    pub(crate) fn of_publish(
        publish: &Publish<'_>,
        topic: TopicName,
        entry: &SessionEntry,
        clock: &impl Clock,
    ) -> Result<Self, ReasonCode> {
        let now = clock.unix_now();
        let mut forwarded = PropertyBuf::new();
        forwarded.extend_filtered(publish.properties, is_forwarded);
        let expires_at = publish.properties.message_expiry_interval().map(|seconds| expiry(now, seconds));
        let message = Message {
            tenant: entry.principal.tenant,
            topic,
            sender: entry.principal.user,
            message_id: MessageId::draw(clock),
            qos: publish.qos,
            retain: publish.retain,
            expires_at,
            properties: forwarded.into_bytes().into(),
            payload: publish.payload.into(),
            publisher: entry.tag,
        };
        let id = match publish.qos {
            // It is not stored, so there is nothing that it could be compared with.
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => publication_id(publish)?,
        };
        let urgency = urgency(publish)?;
        Ok(Self { message, packet_id: publish.packet_id, id, urgency, settled: None, will: None })
    }

    /// `kept`: under which it is kept in the store. Fails where the topic cannot be a topic name here.
    pub(crate) fn of_will(
        will: Will,
        entry: &SessionEntry,
        clock: &impl Clock,
        kept: Option<MessageId>,
    ) -> Result<Self, ReasonCode> {
        let now = clock.unix_now();
        let topic = TopicName::parse(&will.topic).map_err(|_| ReasonCode::TopicNameInvalid)?;
        let message = Message {
            tenant: entry.principal.tenant,
            topic,
            sender: entry.principal.user,
            message_id: kept.unwrap_or_else(|| MessageId::draw(clock)),
            qos: will.qos,
            retain: will.retain,
            expires_at: will.message_expiry_seconds.map(|seconds| expiry(now, seconds)),
            properties: will.properties,
            payload: will.payload,
            publisher: entry.tag,
        };
        let urgency = Urgency::High;
        Ok(Self { message, packet_id: None, id: None, urgency, settled: None, will: kept })
    }

    /// A will that was kept in the store.
    pub(crate) fn of_kept(
        message: Message,
        message_expiry_seconds: Option<u32>,
        kept: MessageId,
        now: UnixMillis,
    ) -> Self {
        let expires_at = message_expiry_seconds.map(|seconds| expiry(now, seconds));
        let message = Message { expires_at, ..message };
        let urgency = Urgency::High;
        Self { message, packet_id: None, id: None, urgency, settled: None, will: Some(kept) }
    }

    pub(crate) fn into_message(self) -> Message {
        self.message
    }

    pub(crate) fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }

    pub(crate) fn scope(&self) -> TopicScope {
        self.message.topic.scope()
    }

    pub(crate) fn is_settling(&self) -> bool {
        self.settled.is_some()
    }

    /// Resolves, with an error, once the store has committed the message or refused it.
    pub(crate) fn settling(&mut self) -> oneshot::Receiver<()> {
        let (settled, settling) = oneshot::channel();
        self.settled = Some(settled);
        settling
    }
}

impl Services {
    /// Never awaits. `after_uncommitted`: messages of the same connection, and as high a QoS, are on their way
    /// into the log.
    pub(crate) fn publish(
        &self,
        entry: &Arc<SessionEntry>,
        connection: ConnectionId,
        publication: Publication,
        after_uncommitted: bool,
    ) -> Published {
        let principal = &entry.principal;
        let Publication { message, packet_id, id, urgency, settled, will } = publication;
        let Ok(permit) = self.policy.permit_publish(principal, &message.topic) else {
            return Published::Denied;
        };
        let guarded = principal.topics == TopicPolicy::Membership;
        let scope = if guarded { message.topic.scope() } else { TopicScope::Other };
        // What is named is stored: only so can it be known when it comes again.
        if id.is_none() && !self.is_stored(scope, &message, after_uncommitted) {
            let qos = message.qos;
            let subscribed = self.router.fan_out(&Record::unlogged(message));
            return Published::Decided(delivered(qos, subscribed));
        }
        let Some(reservation) = self.committer.try_reserve(message.bytes()) else {
            let publication = Box::new(Publication { message, packet_id, id, urgency, settled, will });
            return Published::Stalled(publication, Stall::Budget);
        };
        let sealed = match self.seal(permit, &message) {
            Ok(sealed) => sealed,
            Err((_, SealError::KeyCold(request))) => {
                let publication = Box::new(Publication { message, packet_id, id, urgency, settled, will });
                return Published::Stalled(publication, Stall::Key(request));
            }
            Err((_, error)) => {
                tracing::error!(event = "seal_failed", error = %error, "a message could not be sealed");
                return Published::Decided(ReasonCode::ImplementationSpecificError);
            }
        };
        let exactly_once = packet_id
            .filter(|_| message.qos == QoS::ExactlyOnce)
            .and_then(|packet_id| Some((entry.stored()?.id, packet_id)));
        let append = Append {
            sealed,
            qos: message.qos,
            retain: match (message.retain, message.payload.is_empty()) {
                (false, _) => RetainChange::Keep,
                (true, false) => RetainChange::Set,
                (true, true) => RetainChange::Clear,
            },
            expires_at: message.expires_at,
            wakes: (message.qos != QoS::AtMostOnce && scope != TopicScope::Other).then_some(urgency),
            exactly_once,
            publication: id,
            will,
        };
        let publisher = packet_id.map(|packet_id| Publisher { entry: entry.clone(), connection, packet_id });
        if let Some(will) = will {
            self.commits.wills.submitted(will);
        }
        let pending = Pending { message, told: guarded, publisher, _settled: settled, will };
        match self.committer.submit(reservation, append, pending) {
            Ok(()) if packet_id.is_some() || will.is_some() => Published::Submitted,
            Ok(()) => Published::Decided(ReasonCode::Success),
            Err(_) => {
                if let Some(will) = will {
                    self.commits.wills.withdrawn(will);
                }
                Published::Closed
            }
        }
    }

    pub(crate) fn seal(
        &self,
        permit: PublishPermit,
        message: &Message,
    ) -> Result<Sealed, (PublishPermit, SealError)> {
        let head = message.body_head();
        let parts: [&[u8]; 3] = [&head, &message.properties, &message.payload];
        self.keyring.seal(permit, message.message_id, &parts, self.clock.now())
    }

    /// Fetches the key that stalled a publication. Where that fails, it returns only when trying again makes
    /// sense.
    pub(crate) async fn warm(&self, request: KeyRequest) {
        if self.keyring.warm(request, self.clock.now()).await.is_err() {
            tokio::time::sleep(KEY_RETRY_AFTER).await;
        }
    }

    /// May the will be published when its time comes? Asked at CONNECT.
    pub(crate) fn permits_will(&self, principal: &Principal, will: &Will) -> Result<(), ReasonCode> {
        let topic = self.topic_name(&will.topic)?;
        match self.policy.permit_publish(principal, &topic) {
            Ok(_) => Ok(()),
            Err(Denied) => Err(ReasonCode::NotAuthorized),
        }
    }

    /// A topic name that clients of this node may use.
    pub(crate) fn topic_name(&self, raw: &str) -> Result<TopicName, ReasonCode> {
        let allowed = Some(raw).filter(|raw| self.limits.allow_topic(raw)).map(TopicName::parse);
        allowed.and_then(Result::ok).ok_or(ReasonCode::TopicNameInvalid)
    }

    fn is_stored(&self, scope: TopicScope, message: &Message, after_uncommitted: bool) -> bool {
        if message.retain {
            return true;
        }
        // It must not overtake them. [MQTT-4.6.0-5]
        if after_uncommitted {
            return true;
        }
        if message.qos == QoS::AtMostOnce {
            return false;
        }
        match scope {
            TopicScope::Conversation(_) => true,
            TopicScope::Inbox(_) | TopicScope::Other => {
                self.router.has_subscriber_by_log(message.tenant, &message.topic)
            }
        }
    }
}

/// User property by which a publisher names its message.
const PUBLICATION_ID: &str = "sotto-id";

/// A name that is none is refused: its publisher would rely on it.
fn publication_id(publish: &Publish<'_>) -> Result<Option<PublicationId>, ReasonCode> {
    let named = publish.properties.user_properties().find(|(name, _)| *name == PUBLICATION_ID);
    named.map(|(_, id)| id.parse().map_err(|_| ReasonCode::ImplementationSpecificError)).transpose()
}

/// User property by which a publisher says how soon its message is to wake devices.
const URGENCY: &str = "sotto-urgency";

/// A word that is none is refused: its publisher would rely on it.
fn urgency(publish: &Publish<'_>) -> Result<Urgency, ReasonCode> {
    let named = publish.properties.user_properties().find(|(name, _)| *name == URGENCY);
    match named {
        None => Ok(Urgency::High),
        Some((_, word)) if word == Urgency::High.as_str() => Ok(Urgency::High),
        Some((_, word)) if word == Urgency::Low.as_str() => Ok(Urgency::Low),
        Some(_) => Err(ReasonCode::ImplementationSpecificError),
    }
}

fn expiry(now: UnixMillis, seconds: u32) -> UnixMillis {
    now.saturating_add(Duration::from_secs(seconds.into()))
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20]
fn is_forwarded(property: PropertyId) -> bool {
    matches!(
        property,
        PropertyId::PayloadFormatIndicator
            | PropertyId::ContentType
            | PropertyId::ResponseTopic
            | PropertyId::CorrelationData
            | PropertyId::UserProperty
    )
}
