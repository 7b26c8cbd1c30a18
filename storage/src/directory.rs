//! Tenants, users, devices, conversations, members, access rules.

use async_trait::async_trait;
use sotto_model::{
    AclRule, AclRuleId, ConversationId, DeviceId, Offset, TenantId, TopicPolicy, UnixMillis, UserId,
};

use crate::error::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{0} exists already")]
    Exists(&'static str),
    #[error("no such {0}")]
    Missing(&'static str),
    #[error("{0} is full")]
    Full(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub topics: TopicPolicy,
}

#[derive(Clone)]
pub struct User {
    pub id: UserId,
    pub tenant: TenantId,
    pub name: String,
    pub password: StoredPassword,
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword {
    /// A PHC string.
    pub hash: String,
    /// Credentials of SCRAM-SHA-256; `None` where it was set before there were any, or cannot have any.
    pub scram: Option<String>,
}

#[derive(Clone)]
pub struct Device {
    pub id: DeviceId,
    pub tenant: TenantId,
    pub user: UserId,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Conversation {
    pub id: ConversationId,
    pub tenant: TenantId,
}

#[derive(Clone, Debug)]
pub struct Membership {
    pub tenant: TenantId,
    pub conversation: ConversationId,
    pub user: UserId,
    /// Messages after this offset are the member's to receive.
    pub since: Offset,
    /// Messages here wake the member's devices with [`Urgency::Low`](sotto_model::Urgency::Low) at most.
    pub muted: bool,
}

#[derive(Clone, Debug)]
pub struct TenantAclRule {
    pub id: AclRuleId,
    pub tenant: TenantId,
    pub rule: AclRule,
}

/// Everything that authentication and authorization decide by.
#[derive(Clone)]
pub struct DirectorySnapshot {
    /// Rises with every change.
    pub revision: u64,
    pub tenants: Vec<Tenant>,
    pub users: Vec<User>,
    pub devices: Vec<Device>,
    pub conversations: Vec<Conversation>,
    pub memberships: Vec<Membership>,
    /// Each tenant's in the order in which they are asked.
    pub acl_rules: Vec<TenantAclRule>,
}

/// Every change raises the revision, and writes an audit row, in its own transaction. What is refused, or is
/// so already, does neither. Ids and names are looked up within the tenant given and nowhere else.
#[async_trait]
pub trait Directory: Send + Sync {
    async fn revision(&self) -> Result<u64, StoreError>;
    async fn snapshot(&self) -> Result<DirectorySnapshot, StoreError>;

    async fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> Result<(), DirectoryError>;
    async fn create_user(&self, user: &User, now: UnixMillis) -> Result<(), DirectoryError>;
    async fn set_password(
        &self,
        tenant: TenantId,
        user: UserId,
        password: &StoredPassword,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    /// With the user go devices, memberships, push registrations and stored sessions.
    async fn remove_user(
        &self,
        tenant: TenantId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    /// The device of that name, made if there is none. `Full` beyond `DEVICES_PER_USER_MAX`.
    async fn ensure_device(
        &self,
        tenant: TenantId,
        user: UserId,
        name: &str,
        now: UnixMillis,
    ) -> Result<DeviceId, DirectoryError>;
    /// With the device go its push registration and its stored sessions, with the wills kept for them.
    async fn remove_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    async fn create_conversation(
        &self,
        conversation: &Conversation,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    async fn remove_conversation(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    /// Returns the offset since which the membership holds: the tenant's last. `Exists` for a member, `Full`
    /// beyond `CONVERSATION_MEMBERS_MAX`.
    async fn add_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<Offset, DirectoryError>;
    async fn remove_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    /// `Missing` for who is no member. A membership begins unmuted. `actor`: the user, where one asked.
    async fn set_muted(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        muted: bool,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    /// Puts a rule at a position of the tenant's list, counted from 1 and moving those behind it; at its end
    /// where it is `None` or beyond. `Exists` for an equal rule, `Full` beyond `ACL_RULES_PER_TENANT_MAX`.
    async fn add_acl_rule(
        &self,
        rule: &TenantAclRule,
        position: Option<usize>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
    async fn remove_acl_rule(
        &self,
        tenant: TenantId,
        rule: AclRuleId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError>;
}
