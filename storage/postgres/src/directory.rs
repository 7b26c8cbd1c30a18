//! Tenants, users, devices, conversations, members, access rules.
//!
//! A change raises the directory's revision first: the lock on that one row puts changes in a sequence,
//! so that what a change has looked at (a count, a row) still holds when it commits.

use async_trait::async_trait;
use sotto_model::limits::{ACL_RULES_PER_TENANT_MAX, CONVERSATION_MEMBERS_MAX, DEVICES_PER_USER_MAX};
use sotto_model::{AclRuleId, ConversationId, DeviceId, Offset, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::{
    Conversation, Directory, DirectoryError, DirectorySnapshot, StoredPassword, Tenant, TenantAclRule, User,
};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::audit::{insert_change, insert_change_by};
use crate::column::{self, bigint};
use crate::directory_snapshot::{policy_code, revision, snapshot};
use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;

#[async_trait]
impl Directory for PostgresStore {
    async fn revision(&self) -> Result<u64, StoreError> {
        let mut held = self.control.hold("read revision").await?;
        let result = within(revision(held.connection())).await;
        held.settle(result)
    }

    async fn snapshot(&self) -> Result<DirectorySnapshot, StoreError> {
        let mut held = self.control.hold("read directory").await?;
        let result = within(snapshot(held.connection())).await;
        held.settle(result)
    }

    async fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("create tenant").await?;
        let result = within(create_tenant(held.connection(), tenant, now)).await;
        held.settle(result)?
    }

    async fn create_user(&self, user: &User, now: UnixMillis) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("create user").await?;
        let result = within(create_user(held.connection(), user, now)).await;
        held.settle(result)?
    }

    async fn set_password(
        &self,
        tenant: TenantId,
        user: UserId,
        password: &StoredPassword,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("set password").await?;
        let result = within(set_password(held.connection(), tenant, user, password, now)).await;
        held.settle(result)?
    }

    async fn remove_user(
        &self,
        tenant: TenantId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("remove user").await?;
        let result = within(remove_user(held.connection(), tenant, user, now)).await;
        held.settle(result)?
    }

    async fn ensure_device(
        &self,
        tenant: TenantId,
        user: UserId,
        name: &str,
        now: UnixMillis,
    ) -> Result<DeviceId, DirectoryError> {
        let mut held = self.control.hold("ensure device").await?;
        let result = within(ensure_device(held.connection(), tenant, user, name, now)).await;
        held.settle(result)?
    }

    async fn remove_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("remove device").await?;
        let result = within(remove_device(held.connection(), tenant, device, now)).await;
        held.settle(result)?
    }

    async fn create_conversation(
        &self,
        conversation: &Conversation,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("create conversation").await?;
        let result = within(create_conversation(held.connection(), conversation, now)).await;
        held.settle(result)?
    }

    async fn remove_conversation(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("remove conversation").await?;
        let result = within(remove_conversation(held.connection(), tenant, conversation, now)).await;
        held.settle(result)?
    }

    async fn add_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<Offset, DirectoryError> {
        let mut held = self.control.hold("add member").await?;
        let result = within(add_member(held.connection(), tenant, conversation, user, now)).await;
        held.settle(result)?
    }

    async fn remove_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("remove member").await?;
        let result = within(remove_member(held.connection(), tenant, conversation, user, now)).await;
        held.settle(result)?
    }

    async fn set_muted(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        muted: bool,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("mute conversation").await?;
        let result =
            within(set_muted(held.connection(), tenant, conversation, user, muted, actor, now)).await;
        held.settle(result)?
    }

    async fn add_acl_rule(
        &self,
        rule: &TenantAclRule,
        position: Option<usize>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("add access rule").await?;
        let result = within(add_acl_rule(held.connection(), rule, position, now)).await;
        held.settle(result)?
    }

    async fn remove_acl_rule(
        &self,
        tenant: TenantId,
        rule: AclRuleId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("remove access rule").await?;
        let result = within(remove_acl_rule(held.connection(), tenant, rule, now)).await;
        held.settle(result)?
    }
}

/// A change, or why the directory does not allow it; the transaction ends without a trace then.
pub(crate) type Change<T> = Result<Result<T, DirectoryError>, Fault>;

pub(crate) async fn begin_change(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, Fault> {
    let mut change = connection.begin().await?;
    sqlx::query("UPDATE directory_revision SET revision = revision + 1").execute(&mut *change).await?;
    Ok(change)
}

async fn create_tenant(connection: &mut PgConnection, tenant: &Tenant, now: UnixMillis) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let inserted = sqlx::query(
        "INSERT INTO tenants (tenant_id, name, topic_policy, created_at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant.id.0)
    .bind(&tenant.name)
    .bind(policy_code(tenant.topics))
    .bind(bigint(now.0))
    .execute(&mut *change)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Exists("tenant")));
    }
    sqlx::query("INSERT INTO counters (tenant_id) VALUES ($1)")
        .bind(tenant.id.0)
        .execute(&mut *change)
        .await?;
    insert_change(&mut change, tenant.id, AuditAction::TenantCreated, tenant.id.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn create_user(connection: &mut PgConnection, user: &User, now: UnixMillis) -> Change<()> {
    let mut change = begin_change(connection).await?;
    if !exists(
        &mut change,
        "SELECT FROM tenants WHERE tenant_id = $1 AND $1 = $2",
        user.tenant,
        user.tenant.0,
    )
    .await?
    {
        return Ok(Err(DirectoryError::Missing("tenant")));
    }
    let inserted = sqlx::query(
        "INSERT INTO users (user_id, tenant_id, name, password_hash, scram, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(user.id.0)
    .bind(user.tenant.0)
    .bind(&user.name)
    .bind(&user.password.hash)
    .bind(&user.password.scram)
    .bind(bigint(now.0))
    .execute(&mut *change)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Exists("user")));
    }
    insert_change(&mut change, user.tenant, AuditAction::UserCreated, user.id.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn set_password(
    connection: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    password: &StoredPassword,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let updated =
        sqlx::query("UPDATE users SET password_hash = $3, scram = $4 WHERE tenant_id = $1 AND user_id = $2")
            .bind(tenant.0)
            .bind(user.0)
            .bind(&password.hash)
            .bind(&password.scram)
            .execute(&mut *change)
            .await?;
    if updated.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("user")));
    }
    insert_change(&mut change, tenant, AuditAction::PasswordChanged, user.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

/// Devices, memberships, registrations and wakeups go by foreign key; sessions refer to no user, since
/// anonymous ones have none.
async fn remove_user(
    connection: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let deleted = sqlx::query("DELETE FROM users WHERE tenant_id = $1 AND user_id = $2")
        .bind(tenant.0)
        .bind(user.0)
        .execute(&mut *change)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("user")));
    }
    sqlx::query("DELETE FROM wills WHERE tenant_id = $1 AND sender_id = $2")
        .bind(tenant.0)
        .bind(user.0)
        .execute(&mut *change)
        .await?;
    sqlx::query("DELETE FROM sessions WHERE tenant_id = $1 AND user_id = $2")
        .bind(tenant.0)
        .bind(user.0)
        .execute(&mut *change)
        .await?;
    insert_change(&mut change, tenant, AuditAction::UserRemoved, user.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn remove_device(
    connection: &mut PgConnection,
    tenant: TenantId,
    device: DeviceId,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    // Registration and wakeup go with it, by their foreign keys.
    let deleted = sqlx::query("DELETE FROM devices WHERE tenant_id = $1 AND device_id = $2")
        .bind(tenant.0)
        .bind(device.0)
        .execute(&mut *change)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("device")));
    }
    sqlx::query(
        "WITH ended AS (DELETE FROM sessions WHERE device_id = $1 AND tenant_id = $2 RETURNING session_id) \
         DELETE FROM wills WHERE session_id IN (SELECT session_id FROM ended)",
    )
    .bind(device.0)
    .bind(tenant.0)
    .execute(&mut *change)
    .await?;
    insert_change(&mut change, tenant, AuditAction::DeviceRemoved, device.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn ensure_device(
    connection: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    name: &str,
    now: UnixMillis,
) -> Change<DeviceId> {
    if let Some(device) = find_device(connection, tenant, user, name).await? {
        return Ok(Ok(device));
    }
    let mut change = begin_change(connection).await?;
    if let Some(device) = find_device(&mut change, tenant, user, name).await? {
        return Ok(Ok(device));
    }
    if !exists(&mut change, "SELECT FROM users WHERE tenant_id = $1 AND user_id = $2", tenant, user.0).await?
    {
        return Ok(Err(DirectoryError::Missing("user")));
    }
    let devices: i64 =
        sqlx::query_scalar("SELECT count(*) FROM devices WHERE tenant_id = $1 AND user_id = $2")
            .bind(tenant.0)
            .bind(user.0)
            .fetch_one(&mut *change)
            .await?;
    if devices >= column::limit(DEVICES_PER_USER_MAX) {
        return Ok(Err(DirectoryError::Full("user")));
    }
    let device = DeviceId(Uuid::new_v4());
    sqlx::query(
        "INSERT INTO devices (device_id, tenant_id, user_id, name, created_at_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(device.0)
    .bind(tenant.0)
    .bind(user.0)
    .bind(name)
    .bind(bigint(now.0))
    .execute(&mut *change)
    .await?;
    insert_change(&mut change, tenant, AuditAction::DeviceCreated, device.0, now).await?;
    change.commit().await?;
    Ok(Ok(device))
}

async fn find_device(
    connection: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    name: &str,
) -> Result<Option<DeviceId>, Fault> {
    let device: Option<Uuid> = sqlx::query_scalar(
        "SELECT device_id FROM devices WHERE tenant_id = $1 AND user_id = $2 AND name = $3",
    )
    .bind(tenant.0)
    .bind(user.0)
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(device.map(DeviceId))
}

async fn create_conversation(
    connection: &mut PgConnection,
    conversation: &Conversation,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let tenant = conversation.tenant;
    if !exists(&mut change, "SELECT FROM tenants WHERE tenant_id = $1 AND $1 = $2", tenant, tenant.0).await? {
        return Ok(Err(DirectoryError::Missing("tenant")));
    }
    let inserted = sqlx::query(
        "INSERT INTO conversations (conversation_id, tenant_id, created_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(conversation.id.0)
    .bind(tenant.0)
    .bind(bigint(now.0))
    .execute(&mut *change)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Exists("conversation")));
    }
    insert_change(&mut change, tenant, AuditAction::ConversationCreated, conversation.id.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn remove_conversation(
    connection: &mut PgConnection,
    tenant: TenantId,
    conversation: ConversationId,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let deleted = sqlx::query("DELETE FROM conversations WHERE tenant_id = $1 AND conversation_id = $2")
        .bind(tenant.0)
        .bind(conversation.0)
        .execute(&mut *change)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("conversation")));
    }
    insert_change(&mut change, tenant, AuditAction::ConversationRemoved, conversation.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn add_member(
    connection: &mut PgConnection,
    tenant: TenantId,
    conversation: ConversationId,
    user: UserId,
    now: UnixMillis,
) -> Change<Offset> {
    let mut change = begin_change(connection).await?;
    let found = exists(
        &mut change,
        "SELECT FROM conversations WHERE tenant_id = $1 AND conversation_id = $2",
        tenant,
        conversation.0,
    )
    .await?;
    if !found {
        return Ok(Err(DirectoryError::Missing("conversation")));
    }
    if !exists(&mut change, "SELECT FROM users WHERE tenant_id = $1 AND user_id = $2", tenant, user.0).await?
    {
        return Ok(Err(DirectoryError::Missing("user")));
    }
    let members: i64 =
        sqlx::query_scalar("SELECT count(*) FROM memberships WHERE tenant_id = $1 AND conversation_id = $2")
            .bind(tenant.0)
            .bind(conversation.0)
            .fetch_one(&mut *change)
            .await?;
    if members >= column::limit(CONVERSATION_MEMBERS_MAX) {
        return Ok(Err(DirectoryError::Full("conversation")));
    }
    let since: Option<i64> = sqlx::query_scalar(
        "INSERT INTO memberships (tenant_id, conversation_id, user_id, since_offset, added_at_ms) \
         SELECT tenant_id, $2, $3, head, $4 FROM counters WHERE tenant_id = $1 \
         ON CONFLICT DO NOTHING RETURNING since_offset",
    )
    .bind(tenant.0)
    .bind(conversation.0)
    .bind(user.0)
    .bind(bigint(now.0))
    .fetch_optional(&mut *change)
    .await?;
    let Some(since) = since else {
        return Ok(Err(DirectoryError::Exists("member")));
    };
    insert_change(&mut change, tenant, AuditAction::MemberAdded, user.0, now).await?;
    change.commit().await?;
    Ok(Ok(column::offset(since)?))
}

async fn remove_member(
    connection: &mut PgConnection,
    tenant: TenantId,
    conversation: ConversationId,
    user: UserId,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let deleted =
        sqlx::query("DELETE FROM memberships WHERE tenant_id = $1 AND conversation_id = $2 AND user_id = $3")
            .bind(tenant.0)
            .bind(conversation.0)
            .bind(user.0)
            .execute(&mut *change)
            .await?;
    if deleted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("member")));
    }
    insert_change(&mut change, tenant, AuditAction::MemberRemoved, user.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn set_muted(
    connection: &mut PgConnection,
    tenant: TenantId,
    conversation: ConversationId,
    user: UserId,
    muted: bool,
    actor: Option<UserId>,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let was_muted: Option<bool> = sqlx::query_scalar(
        "SELECT muted FROM memberships WHERE tenant_id = $1 AND conversation_id = $2 AND user_id = $3 FOR UPDATE",
    )
    .bind(tenant.0)
    .bind(conversation.0)
    .bind(user.0)
    .fetch_optional(&mut *change)
    .await?;
    match was_muted {
        None => return Ok(Err(DirectoryError::Missing("member"))),
        Some(was_muted) if was_muted == muted => return Ok(Ok(())),
        Some(_) => {}
    }
    sqlx::query(
        "UPDATE memberships SET muted = $4 WHERE tenant_id = $1 AND conversation_id = $2 AND user_id = $3",
    )
    .bind(tenant.0)
    .bind(conversation.0)
    .bind(user.0)
    .bind(muted)
    .execute(&mut *change)
    .await?;
    let action = if muted { AuditAction::MemberMuted } else { AuditAction::MemberUnmuted };
    insert_change_by(&mut change, tenant, actor, action, user.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn add_acl_rule(
    connection: &mut PgConnection,
    added: &TenantAclRule,
    position: Option<usize>,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let tenant = added.tenant;
    if !exists(&mut change, "SELECT FROM tenants WHERE tenant_id = $1 AND $1 = $2", tenant, tenant.0).await? {
        return Ok(Err(DirectoryError::Missing("tenant")));
    }
    let rules: i64 = sqlx::query_scalar("SELECT count(*) FROM acl_rules WHERE tenant_id = $1")
        .bind(tenant.0)
        .fetch_one(&mut *change)
        .await?;
    let end = rules + 1;
    let position = position.map_or(end, |position| column::limit(position).clamp(1, end));
    sqlx::query("UPDATE acl_rules SET position = position + 1 WHERE tenant_id = $1 AND position >= $2")
        .bind(tenant.0)
        .bind(position)
        .execute(&mut *change)
        .await?;
    let inserted = sqlx::query(
        "INSERT INTO acl_rules (tenant_id, rule_id, position, effect, action, filter) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(tenant.0)
    .bind(added.id.0)
    .bind(position)
    .bind(added.rule.effect.as_str())
    .bind(added.rule.action.as_str())
    .bind(added.rule.filter.as_str())
    .execute(&mut *change)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Exists("access rule")));
    }
    if rules >= column::limit(ACL_RULES_PER_TENANT_MAX) {
        return Ok(Err(DirectoryError::Full("list of access rules")));
    }
    insert_change(&mut change, tenant, AuditAction::AclRuleAdded, added.id.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn remove_acl_rule(
    connection: &mut PgConnection,
    tenant: TenantId,
    rule: AclRuleId,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let position: Option<i32> =
        sqlx::query_scalar("DELETE FROM acl_rules WHERE tenant_id = $1 AND rule_id = $2 RETURNING position")
            .bind(tenant.0)
            .bind(rule.0)
            .fetch_optional(&mut *change)
            .await?;
    let Some(position) = position else {
        return Ok(Err(DirectoryError::Missing("access rule")));
    };
    sqlx::query("UPDATE acl_rules SET position = position - 1 WHERE tenant_id = $1 AND position > $2")
        .bind(tenant.0)
        .bind(position)
        .execute(&mut *change)
        .await?;
    insert_change(&mut change, tenant, AuditAction::AclRuleRemoved, rule.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn exists(
    connection: &mut PgConnection,
    subquery: &'static str,
    tenant: TenantId,
    id: Uuid,
) -> Result<bool, Fault> {
    Ok(sqlx::query_scalar(&format!("SELECT EXISTS ({subquery})"))
        .bind(tenant.0)
        .bind(id)
        .fetch_one(connection)
        .await?)
}
