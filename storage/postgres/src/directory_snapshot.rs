//! The directory as a whole, and its revision: what brokers follow.

use sotto_model::{AclFilter, AclRule, AclRuleId, ConversationId, DeviceId, TenantId, TopicPolicy, UserId};
use sotto_storage::directory::{
    Conversation, Device, DirectorySnapshot, Membership, StoredPassword, Tenant, TenantAclRule, User,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::column;
use crate::fault::Fault;

pub(crate) async fn revision(connection: &mut PgConnection) -> Result<u64, Fault> {
    let revision =
        sqlx::query_scalar("SELECT revision FROM directory_revision").fetch_one(connection).await?;
    column::unsigned(revision)
}

pub(crate) async fn snapshot(connection: &mut PgConnection) -> Result<DirectorySnapshot, Fault> {
    // All of one moment, or the revision would not be that of the rest.
    let mut moment = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let revision = revision(&mut moment).await?;
    let tenants: Vec<(Uuid, String, i16)> =
        sqlx::query_as("SELECT tenant_id, name, topic_policy FROM tenants").fetch_all(&mut *moment).await?;
    let users: Vec<(Uuid, Uuid, String, String, Option<String>)> =
        sqlx::query_as("SELECT user_id, tenant_id, name, password_hash, scram FROM users")
            .fetch_all(&mut *moment)
            .await?;
    let devices: Vec<(Uuid, Uuid, Uuid, String)> =
        sqlx::query_as("SELECT device_id, tenant_id, user_id, name FROM devices")
            .fetch_all(&mut *moment)
            .await?;
    let conversations: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT conversation_id, tenant_id FROM conversations")
            .fetch_all(&mut *moment)
            .await?;
    let memberships: Vec<(Uuid, Uuid, Uuid, i64, bool)> =
        sqlx::query_as("SELECT tenant_id, conversation_id, user_id, since_offset, muted FROM memberships")
            .fetch_all(&mut *moment)
            .await?;
    let acl_rules: Vec<(Uuid, Uuid, String, String, String)> = sqlx::query_as(
        "SELECT tenant_id, rule_id, effect, action, filter FROM acl_rules ORDER BY tenant_id, position",
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(DirectorySnapshot {
        revision,
        tenants: tenants
            .into_iter()
            .map(|(id, name, policy)| Ok(Tenant { id: TenantId(id), name, topics: policy_of(policy)? }))
            .collect::<Result<_, Fault>>()?,
        users: users
            .into_iter()
            .map(|(id, tenant, name, hash, scram)| User {
                id: UserId(id),
                tenant: TenantId(tenant),
                name,
                password: StoredPassword { hash, scram },
            })
            .collect(),
        devices: devices
            .into_iter()
            .map(|(id, tenant, user, name)| Device {
                id: DeviceId(id),
                tenant: TenantId(tenant),
                user: UserId(user),
                name,
            })
            .collect(),
        conversations: conversations
            .into_iter()
            .map(|(id, tenant)| Conversation { id: ConversationId(id), tenant: TenantId(tenant) })
            .collect(),
        memberships: memberships
            .into_iter()
            .map(|(tenant, conversation, user, since, muted)| {
                Ok(Membership {
                    tenant: TenantId(tenant),
                    conversation: ConversationId(conversation),
                    user: UserId(user),
                    since: column::offset(since)?,
                    muted,
                })
            })
            .collect::<Result<_, Fault>>()?,
        acl_rules: acl_rules
            .into_iter()
            .map(|(tenant, id, effect, action, filter)| {
                let rule = AclRule {
                    effect: effect.parse().map_err(|_| Fault::Inconsistent("effect"))?,
                    action: action.parse().map_err(|_| Fault::Inconsistent("action"))?,
                    filter: AclFilter::parse(&filter).map_err(|_| Fault::Inconsistent("filter"))?,
                };
                Ok(TenantAclRule { id: AclRuleId(id), tenant: TenantId(tenant), rule })
            })
            .collect::<Result<_, Fault>>()?,
    })
}

pub(crate) fn policy_code(policy: TopicPolicy) -> i16 {
    match policy {
        TopicPolicy::Membership => 1,
        TopicPolicy::Open => 2,
    }
}

fn policy_of(code: i16) -> Result<TopicPolicy, Fault> {
    match code {
        1 => Ok(TopicPolicy::Membership),
        2 => Ok(TopicPolicy::Open),
        _ => Err(Fault::Inconsistent("topic_policy")),
    }
}
