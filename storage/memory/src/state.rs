//! The tables, in the order of their keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sotto_keyring::{Epoch, KeyId, WrappedDataKey, WrappedEpochKey};
use sotto_model::{
    ClientId, ConversationId, DeviceId, Generation, MessageId, Offset, PacketId, SessionId, Subscription,
    TenantId, TopicName, UnixMillis, Urgency, UserId,
};
use sotto_storage::audit::AuditEvent;
use sotto_storage::directory::{Device, Tenant, TenantAclRule, User};
use sotto_storage::message_log::{Placed, StoredMessage};
use sotto_storage::outbox::DeadLetter;
use sotto_storage::publication_key::PublicationKey;
use sotto_storage::push_registry::PushRegistration;
use sotto_storage::retention::TenantRetention;
use sotto_storage::session_store::SessionProgress;
use sotto_storage::wakeup_quota::{Booked, WakeupQuota};
use sotto_storage::wills::KeptWill;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) tenants: BTreeMap<TenantId, TenantRow>,
    pub(crate) users: BTreeMap<(TenantId, UserId), User>,
    pub(crate) devices: BTreeMap<(TenantId, DeviceId), Device>,
    pub(crate) conversations: BTreeSet<(TenantId, ConversationId)>,
    pub(crate) memberships: BTreeMap<(TenantId, ConversationId, UserId), MemberRow>,
    /// Each tenant's in the order in which they are asked.
    pub(crate) acl_rules: BTreeMap<TenantId, Vec<TenantAclRule>>,
    pub(crate) revision: u64,

    /// Number and places of the last batch.
    pub(crate) last_batch: (u64, Vec<Placed>),
    /// Where each is, and since when.
    pub(crate) publications: BTreeMap<PublicationKey, (Offset, UnixMillis)>,
    pub(crate) messages: BTreeMap<(TenantId, Offset), MessageRow>,
    pub(crate) retained: BTreeMap<(TenantId, TopicName), StoredMessage>,
    pub(crate) outbox: VecDeque<(TenantId, Offset)>,

    pub(crate) sessions: BTreeMap<SessionId, SessionRow>,
    /// The last one given out; none is given twice.
    pub(crate) last_session: u64,
    /// In the order in which they were kept.
    pub(crate) wills: Vec<WillRow>,

    pub(crate) registrations: BTreeMap<(TenantId, DeviceId), RegistrationRow>,
    pub(crate) wakes: BTreeMap<(TenantId, DeviceId), WakeRow>,
    /// The last one given out; none is given twice.
    pub(crate) last_lease: u64,
    pub(crate) quota: WakeupQuota,
    pub(crate) booked: BTreeMap<TenantId, Booked>,
    pub(crate) dead_letters: Vec<DeadLetter>,

    pub(crate) audit: Vec<AuditEvent>,
    pub(crate) epoch_keys: BTreeMap<(TenantId, Epoch), WrappedEpochKey>,
    pub(crate) data_keys: BTreeMap<KeyId, WrappedDataKey>,
}

pub(crate) struct TenantRow {
    pub(crate) tenant: Tenant,
    /// The last offset given out.
    pub(crate) head: Offset,
    pub(crate) retention: TenantRetention,
}

pub(crate) struct MessageRow {
    pub(crate) message: StoredMessage,
    pub(crate) wakes: Option<Urgency>,
}

#[derive(Clone, Copy)]
pub(crate) struct MemberRow {
    /// The offset since which the membership holds.
    pub(crate) since: Offset,
    pub(crate) muted: bool,
}

pub(crate) struct RegistrationRow {
    pub(crate) registration: PushRegistration,
    /// When the token was last handed a wakeup that is not urgent.
    pub(crate) low_sent_at: Option<UnixMillis>,
}

pub(crate) struct SessionRow {
    pub(crate) tenant: TenantId,
    pub(crate) client_id: ClientId,
    pub(crate) user: UserId,
    pub(crate) device: Option<DeviceId>,
    pub(crate) generation: Generation,
    /// But for `exactly_once_received`.
    pub(crate) progress: SessionProgress,
    pub(crate) exactly_once_received: BTreeSet<PacketId>,
    /// By filter as subscribed.
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) connected: bool,
    pub(crate) expiry_seconds: u32,
    /// `None`: connected, or never.
    pub(crate) expires_at: Option<UnixMillis>,
}

pub(crate) struct WillRow {
    pub(crate) message_id: MessageId,
    pub(crate) session: SessionId,
    pub(crate) tenant: TenantId,
    pub(crate) will: KeptWill,
    /// `None`: its session is connected.
    pub(crate) due_at: Option<UnixMillis>,
}

pub(crate) struct WakeRow {
    pub(crate) sent: bool,
    pub(crate) urgency: Urgency,
    pub(crate) due_since: UnixMillis,
    /// The lease's end while it is claimed; when it was sent once it is.
    pub(crate) next_attempt: UnixMillis,
    pub(crate) attempts: u32,
    /// 0: unclaimed.
    pub(crate) lease: u64,
}

impl SessionRow {
    /// A stored session that may yet be taken up.
    pub(crate) fn is_asleep(&self, now: UnixMillis) -> bool {
        !self.connected && self.expires_at.is_none_or(|at| at > now)
    }
}
