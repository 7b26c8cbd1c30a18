//! The directory as a whole, and its revision: what brokers follow.

use sotto_model::{AclFilter, AclRule, AclRuleId, ConversationId, DeviceId, TenantId, TopicPolicy, UserId};
use sotto_storage::StoreError;
use sotto_storage::directory::{
    Conversation, Device, DirectorySnapshot, Membership, StoredPassword, Tenant, TenantAclRule, User,
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::number::{from_row, offset};

pub(crate) async fn revision(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let (revision,): (i64,) = sqlx::query_as("SELECT revision FROM directory_revision")
        .fetch_one(connection)
        .await
        .during("read revision")?;
    from_row(revision, "revision")
}

pub(crate) async fn snapshot(connection: &mut SqliteConnection) -> Result<DirectorySnapshot, StoreError> {
    const OPERATION: &str = "read directory";
    let revision = revision(connection).await?;
    let tenants: Vec<(Uuid, String, bool)> =
        sqlx::query_as("SELECT tenant_id, name, open_topics FROM tenants ORDER BY tenant_no")
            .fetch_all(&mut *connection)
            .await
            .during(OPERATION)?;
    let users: Vec<(Uuid, Uuid, String, String, Option<String>)> = sqlx::query_as(
        "SELECT tenants.tenant_id, users.user_id, users.name, users.password_hash, users.scram
         FROM users JOIN tenants USING (tenant_no)",
    )
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    let devices: Vec<(Uuid, Uuid, Uuid, String)> = sqlx::query_as(
        "SELECT tenants.tenant_id, devices.device_id, devices.user_id, devices.name
         FROM devices JOIN tenants USING (tenant_no)",
    )
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    let conversations: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT tenants.tenant_id, conversations.conversation_id
         FROM conversations JOIN tenants USING (tenant_no)",
    )
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    let memberships: Vec<(Uuid, Uuid, Uuid, i64, bool)> = sqlx::query_as(
        "SELECT tenants.tenant_id, memberships.conversation_id, memberships.user_id, memberships.since,
                memberships.muted
         FROM memberships JOIN tenants USING (tenant_no)",
    )
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    let acl_rules: Vec<(Uuid, Uuid, String, String, String)> = sqlx::query_as(
        "SELECT tenants.tenant_id, rule_id, effect, action, filter
         FROM acl_rules JOIN tenants USING (tenant_no) ORDER BY tenant_no, position",
    )
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    Ok(DirectorySnapshot {
        revision,
        tenants: tenants
            .into_iter()
            .map(|(id, name, open)| Tenant {
                id: TenantId(id),
                name,
                topics: if open { TopicPolicy::Open } else { TopicPolicy::Membership },
            })
            .collect(),
        users: users
            .into_iter()
            .map(|(tenant, id, name, hash, scram)| User {
                id: UserId(id),
                tenant: TenantId(tenant),
                name,
                password: StoredPassword { hash, scram },
            })
            .collect(),
        devices: devices
            .into_iter()
            .map(|(tenant, id, user, name)| Device {
                id: DeviceId(id),
                tenant: TenantId(tenant),
                user: UserId(user),
                name,
            })
            .collect(),
        conversations: conversations
            .into_iter()
            .map(|(tenant, id)| Conversation { id: ConversationId(id), tenant: TenantId(tenant) })
            .collect(),
        memberships: memberships
            .into_iter()
            .map(|(tenant, conversation, user, since, muted)| {
                Ok(Membership {
                    tenant: TenantId(tenant),
                    conversation: ConversationId(conversation),
                    user: UserId(user),
                    since: offset(since)?,
                    muted,
                })
            })
            .collect::<Result<_, StoreError>>()?,
        acl_rules: acl_rules
            .into_iter()
            .map(|(tenant, id, effect, action, filter)| {
                let rule = AclRule {
                    effect: effect.parse().map_err(|_| StoreError::Inconsistent("effect"))?,
                    action: action.parse().map_err(|_| StoreError::Inconsistent("action"))?,
                    filter: AclFilter::parse(&filter).map_err(|_| StoreError::Inconsistent("filter"))?,
                };
                Ok(TenantAclRule { id: AclRuleId(id), tenant: TenantId(tenant), rule })
            })
            .collect::<Result<_, StoreError>>()?,
    })
}
