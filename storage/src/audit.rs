//! Audit rows: who did what, to what, with which outcome. Ids only.

use async_trait::async_trait;
use sotto_model::{TenantId, UnixMillis, UserId};
use uuid::Uuid;

use crate::error::StoreError;

/// What was done or tried. The names are stored; they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditAction {
    ConnectRefused,
    /// From an address too many clients failed to sign in.
    AddressBarred,
    PublishDenied,
    SubscribeDenied,
    TenantCreated,
    UserCreated,
    UserRemoved,
    PasswordChanged,
    DeviceCreated,
    DeviceRemoved,
    ConversationCreated,
    ConversationRemoved,
    MemberAdded,
    MemberRemoved,
    MemberMuted,
    MemberUnmuted,
    PushRegistered,
    PushUnregistered,
    AclRuleAdded,
    AclRuleRemoved,
    RetentionChanged,
    LegalHoldSet,
    LegalHoldLifted,
    StoreRestored,
}

impl AuditAction {
    pub const ALL: [Self; 24] = [
        Self::ConnectRefused,
        Self::AddressBarred,
        Self::PublishDenied,
        Self::SubscribeDenied,
        Self::TenantCreated,
        Self::UserCreated,
        Self::UserRemoved,
        Self::PasswordChanged,
        Self::DeviceCreated,
        Self::DeviceRemoved,
        Self::ConversationCreated,
        Self::ConversationRemoved,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::MemberMuted,
        Self::MemberUnmuted,
        Self::PushRegistered,
        Self::PushUnregistered,
        Self::AclRuleAdded,
        Self::AclRuleRemoved,
        Self::RetentionChanged,
        Self::LegalHoldSet,
        Self::LegalHoldLifted,
        Self::StoreRestored,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect.refused",
            Self::AddressBarred => "connect.address_barred",
            Self::PublishDenied => "publish.denied",
            Self::SubscribeDenied => "subscribe.denied",
            Self::TenantCreated => "tenant.created",
            Self::UserCreated => "user.created",
            Self::UserRemoved => "user.removed",
            Self::PasswordChanged => "user.password_changed",
            Self::DeviceCreated => "device.created",
            Self::DeviceRemoved => "device.removed",
            Self::ConversationCreated => "conversation.created",
            Self::ConversationRemoved => "conversation.removed",
            Self::MemberAdded => "member.added",
            Self::MemberRemoved => "member.removed",
            Self::MemberMuted => "member.muted",
            Self::MemberUnmuted => "member.unmuted",
            Self::PushRegistered => "push.registered",
            Self::PushUnregistered => "push.unregistered",
            Self::AclRuleAdded => "acl.rule_added",
            Self::AclRuleRemoved => "acl.rule_removed",
            Self::RetentionChanged => "tenant.retention_changed",
            Self::LegalHoldSet => "tenant.legal_hold_set",
            Self::LegalHoldLifted => "tenant.legal_hold_lifted",
            Self::StoreRestored => "store.restored",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub at: UnixMillis,
    pub tenant: Option<TenantId>,
    /// The user who acted; `None` for an operator, or before authentication.
    pub actor: Option<UserId>,
    pub action: AuditAction,
    /// The tenant, user, device, conversation or access rule acted on, where it has an id; of a membership,
    /// the user.
    pub resource: Option<Uuid>,
    pub allowed: bool,
}

#[async_trait]
pub trait AuditLog: Send + Sync {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), StoreError>;
    /// The newest first.
    async fn recent(&self, tenant: Option<TenantId>, limit: usize) -> Result<Vec<AuditEvent>, StoreError>;
}
