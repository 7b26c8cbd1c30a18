//! Tenants, users, devices, conversations, members, access rules. Every change raises the revision and writes an audit
//! row in its own transaction.

use async_trait::async_trait;
use sotto_model::limits::{ACL_RULES_PER_TENANT_MAX, CONVERSATION_MEMBERS_MAX, DEVICES_PER_USER_MAX};
use sotto_model::{AclRuleId, ConversationId, DeviceId, Offset, TenantId, TopicPolicy, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::directory::{
    Conversation, Directory, DirectoryError, DirectorySnapshot, StoredPassword, Tenant, TenantAclRule, User,
};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteQueryResult;
use uuid::Uuid;

use crate::audit::insert_audit;
use crate::directory_snapshot::{revision, snapshot};
use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::{from_row, offset, to_row};
use crate::store::SqliteStore;
use crate::tenants::TenantNumbers;

#[async_trait]
impl Directory for SqliteStore {
    async fn revision(&self) -> Result<u64, StoreError> {
        let mut reader = self.readers.acquire().await.during("read revision")?;
        revision(&mut reader).await
    }

    async fn snapshot(&self) -> Result<DirectorySnapshot, StoreError> {
        // One transaction: all of it as of one revision.
        let mut transaction = self.readers.begin().await.during("read directory")?;
        snapshot(&mut transaction).await
    }

    async fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("create tenant").await?;
        let result = create_tenant(transaction.connection(), tenant, now).await;
        transaction.finish(result).await
    }

    async fn create_user(&self, user: &User, now: UnixMillis) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("create user").await?;
        let result = create_user(transaction.connection(), &self.tenants, user, now).await;
        transaction.finish(result).await
    }

    async fn set_password(
        &self,
        tenant: TenantId,
        user: UserId,
        password: &StoredPassword,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("set password").await?;
        let connection = transaction.connection();
        let result = set_password(connection, &self.tenants, tenant, user, password, now).await;
        transaction.finish(result).await
    }

    async fn remove_user(
        &self,
        tenant: TenantId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("remove user").await?;
        let result = remove_user(transaction.connection(), &self.tenants, tenant, user, now).await;
        transaction.finish(result).await
    }

    async fn ensure_device(
        &self,
        tenant: TenantId,
        user: UserId,
        name: &str,
        now: UnixMillis,
    ) -> Result<DeviceId, DirectoryError> {
        // Nearly always it is there, and then it takes no write lock.
        let mut reader = self.readers.acquire().await.during("find device")?;
        let tenant_no = tenant_number(&mut reader, &self.tenants, tenant).await?;
        if let Some(device) = find_device(&mut reader, tenant_no, user, name).await? {
            return Ok(device);
        }
        drop(reader);
        let mut transaction = self.writer.begin("create device").await?;
        let connection = transaction.connection();
        let result = ensure_device(connection, tenant, tenant_no, user, name, now).await;
        transaction.finish(result).await
    }

    async fn remove_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("remove device").await?;
        let result = remove_device(transaction.connection(), &self.tenants, tenant, device, now).await;
        transaction.finish(result).await
    }

    async fn create_conversation(
        &self,
        conversation: &Conversation,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("create conversation").await?;
        let result = create_conversation(transaction.connection(), &self.tenants, conversation, now).await;
        transaction.finish(result).await
    }

    async fn remove_conversation(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("remove conversation").await?;
        let connection = transaction.connection();
        let result = remove_conversation(connection, &self.tenants, tenant, conversation, now).await;
        transaction.finish(result).await
    }

    async fn add_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<Offset, DirectoryError> {
        let mut transaction = self.writer.begin("add member").await?;
        let connection = transaction.connection();
        let result = add_member(connection, &self.tenants, tenant, conversation, user, now).await;
        transaction.finish(result).await
    }

    async fn remove_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("remove member").await?;
        let connection = transaction.connection();
        let result = remove_member(connection, &self.tenants, tenant, conversation, user, now).await;
        transaction.finish(result).await
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
        let mut transaction = self.writer.begin("mute conversation").await?;
        let connection = transaction.connection();
        let result =
            set_muted(connection, &self.tenants, (tenant, conversation, user), muted, actor, now).await;
        transaction.finish(result).await
    }

    async fn add_acl_rule(
        &self,
        rule: &TenantAclRule,
        position: Option<usize>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("add access rule").await?;
        let result = add_acl_rule(transaction.connection(), &self.tenants, rule, position, now).await;
        transaction.finish(result).await
    }

    async fn remove_acl_rule(
        &self,
        tenant: TenantId,
        rule: AclRuleId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("remove access rule").await?;
        let result = remove_acl_rule(transaction.connection(), &self.tenants, tenant, rule, now).await;
        transaction.finish(result).await
    }
}

async fn create_tenant(
    connection: &mut SqliteConnection,
    tenant: &Tenant,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "create tenant";
    let inserted: Option<(i64,)> = sqlx::query_as(
        "INSERT INTO tenants (tenant_id, name, open_topics) VALUES (?, ?, ?)
         ON CONFLICT DO NOTHING RETURNING tenant_no",
    )
    .bind(tenant.id.0)
    .bind(&tenant.name)
    .bind(tenant.topics == TopicPolicy::Open)
    .fetch_optional(&mut *connection)
    .await
    .during(OPERATION)?;
    let (number,) = inserted.ok_or(DirectoryError::Exists("tenant"))?;
    sqlx::query("INSERT INTO counters (tenant_no, head) VALUES (?, 0)")
        .bind(TenantNo::from_row(number)?.to_row())
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    changed(connection, tenant.id, AuditAction::TenantCreated, Some(tenant.id.0), now).await
}

async fn create_user(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    user: &User,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    let tenant_no = tenant_number(connection, tenants, user.tenant).await?;
    let inserted = sqlx::query(
        "INSERT INTO users (tenant_no, user_id, name, password_hash, scram) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant_no.to_row())
    .bind(user.id.0)
    .bind(&user.name)
    .bind(&user.password.hash)
    .bind(&user.password.scram)
    .execute(&mut *connection)
    .await
    .during("create user")?;
    one_row(&inserted, DirectoryError::Exists("user"))?;
    changed(connection, user.tenant, AuditAction::UserCreated, Some(user.id.0), now).await
}

async fn set_password(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    user: UserId,
    password: &StoredPassword,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    let updated =
        sqlx::query("UPDATE users SET password_hash = ?, scram = ? WHERE tenant_no = ? AND user_id = ?")
            .bind(&password.hash)
            .bind(&password.scram)
            .bind(tenant_no.to_row())
            .bind(user.0)
            .execute(&mut *connection)
            .await
            .during("set password")?;
    one_row(&updated, DirectoryError::Missing("user"))?;
    changed(connection, tenant, AuditAction::PasswordChanged, Some(user.0), now).await
}

/// Devices, memberships, registrations and wakeups follow by their foreign keys. Sessions have none,
/// because anonymous users have sessions and no row.
async fn remove_user(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    user: UserId,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "remove user";
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    let deleted = sqlx::query("DELETE FROM users WHERE tenant_no = ? AND user_id = ?")
        .bind(tenant_no.to_row())
        .bind(user.0)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    one_row(&deleted, DirectoryError::Missing("user"))?;
    sqlx::query("DELETE FROM wills WHERE tenant_no = ? AND sender = ?")
        .bind(tenant_no.to_row())
        .bind(user.0)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    sqlx::query("DELETE FROM sessions WHERE tenant_no = ? AND user_id = ?")
        .bind(tenant_no.to_row())
        .bind(user.0)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    changed(connection, tenant, AuditAction::UserRemoved, Some(user.0), now).await
}

async fn remove_device(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    device: DeviceId,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "remove device";
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    // Registration and wakeup go with it, by their foreign keys.
    let deleted = sqlx::query("DELETE FROM devices WHERE tenant_no = ? AND device_id = ?")
        .bind(tenant_no.to_row())
        .bind(device.0)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    one_row(&deleted, DirectoryError::Missing("device"))?;
    for statement in [
        "DELETE FROM wills WHERE session_id IN (
             SELECT session_id FROM sessions WHERE tenant_no = ? AND device_id = ?)",
        "DELETE FROM sessions WHERE tenant_no = ? AND device_id = ?",
    ] {
        sqlx::query(statement)
            .bind(tenant_no.to_row())
            .bind(device.0)
            .execute(&mut *connection)
            .await
            .during(OPERATION)?;
    }
    changed(connection, tenant, AuditAction::DeviceRemoved, Some(device.0), now).await
}

async fn ensure_device(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    tenant_no: TenantNo,
    user: UserId,
    name: &str,
    now: UnixMillis,
) -> Result<DeviceId, DirectoryError> {
    const OPERATION: &str = "create device";
    // Another connection of the user may have been faster.
    if let Some(device) = find_device(connection, tenant_no, user, name).await? {
        return Ok(device);
    }
    if !user_exists(connection, tenant_no, user).await? {
        return Err(DirectoryError::Missing("user"));
    }
    let (devices,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM devices WHERE tenant_no = ? AND user_id = ?")
            .bind(tenant_no.to_row())
            .bind(user.0)
            .fetch_one(&mut *connection)
            .await
            .during(OPERATION)?;
    if from_row(devices, "count")? >= DEVICES_PER_USER_MAX as u64 {
        return Err(DirectoryError::Full("list of devices"));
    }
    let device = DeviceId(Uuid::new_v4());
    sqlx::query("INSERT INTO devices (tenant_no, device_id, user_id, name) VALUES (?, ?, ?, ?)")
        .bind(tenant_no.to_row())
        .bind(device.0)
        .bind(user.0)
        .bind(name)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    changed(connection, tenant, AuditAction::DeviceCreated, Some(device.0), now).await?;
    Ok(device)
}

async fn find_device(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    user: UserId,
    name: &str,
) -> Result<Option<DeviceId>, StoreError> {
    let device: Option<(Uuid,)> =
        sqlx::query_as("SELECT device_id FROM devices WHERE tenant_no = ? AND user_id = ? AND name = ?")
            .bind(tenant.to_row())
            .bind(user.0)
            .bind(name)
            .fetch_optional(connection)
            .await
            .during("find device")?;
    Ok(device.map(|(id,)| DeviceId(id)))
}

async fn create_conversation(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    conversation: &Conversation,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    let tenant_no = tenant_number(connection, tenants, conversation.tenant).await?;
    let inserted = sqlx::query(
        "INSERT INTO conversations (tenant_no, conversation_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(tenant_no.to_row())
    .bind(conversation.id.0)
    .execute(&mut *connection)
    .await
    .during("create conversation")?;
    one_row(&inserted, DirectoryError::Exists("conversation"))?;
    let id = Some(conversation.id.0);
    changed(connection, conversation.tenant, AuditAction::ConversationCreated, id, now).await
}

async fn remove_conversation(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    conversation: ConversationId,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    let deleted = sqlx::query("DELETE FROM conversations WHERE tenant_no = ? AND conversation_id = ?")
        .bind(tenant_no.to_row())
        .bind(conversation.0)
        .execute(&mut *connection)
        .await
        .during("remove conversation")?;
    one_row(&deleted, DirectoryError::Missing("conversation"))?;
    changed(connection, tenant, AuditAction::ConversationRemoved, Some(conversation.0), now).await
}

async fn add_member(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    conversation: ConversationId,
    user: UserId,
    now: UnixMillis,
) -> Result<Offset, DirectoryError> {
    const OPERATION: &str = "add member";
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    if !user_exists(connection, tenant_no, user).await? {
        return Err(DirectoryError::Missing("user"));
    }
    let (exists, members): (bool, i64) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM conversations WHERE tenant_no = ?1 AND conversation_id = ?2),
                (SELECT count(*) FROM memberships WHERE tenant_no = ?1 AND conversation_id = ?2)",
    )
    .bind(tenant_no.to_row())
    .bind(conversation.0)
    .fetch_one(&mut *connection)
    .await
    .during(OPERATION)?;
    if !exists {
        return Err(DirectoryError::Missing("conversation"));
    }
    let inserted: Option<(i64,)> = sqlx::query_as(
        "INSERT INTO memberships (tenant_no, conversation_id, user_id, since)
         SELECT tenant_no, ?, ?, head FROM counters WHERE tenant_no = ?
         ON CONFLICT DO NOTHING RETURNING since",
    )
    .bind(conversation.0)
    .bind(user.0)
    .bind(tenant_no.to_row())
    .fetch_optional(&mut *connection)
    .await
    .during(OPERATION)?;
    let (since,) = inserted.ok_or(DirectoryError::Exists("member"))?;
    if from_row(members, "count")? >= CONVERSATION_MEMBERS_MAX as u64 {
        return Err(DirectoryError::Full("conversation"));
    }
    changed(connection, tenant, AuditAction::MemberAdded, Some(user.0), now).await?;
    Ok(offset(since)?)
}

async fn remove_member(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    conversation: ConversationId,
    user: UserId,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    let deleted =
        sqlx::query("DELETE FROM memberships WHERE tenant_no = ? AND conversation_id = ? AND user_id = ?")
            .bind(tenant_no.to_row())
            .bind(conversation.0)
            .bind(user.0)
            .execute(&mut *connection)
            .await
            .during("remove member")?;
    one_row(&deleted, DirectoryError::Missing("member"))?;
    changed(connection, tenant, AuditAction::MemberRemoved, Some(user.0), now).await
}

async fn set_muted(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    (tenant, conversation, user): (TenantId, ConversationId, UserId),
    muted: bool,
    actor: Option<UserId>,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "mute conversation";
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    let was_muted: Option<bool> = sqlx::query_scalar(
        "SELECT muted FROM memberships WHERE tenant_no = ? AND conversation_id = ? AND user_id = ?",
    )
    .bind(tenant_no.to_row())
    .bind(conversation.0)
    .bind(user.0)
    .fetch_optional(&mut *connection)
    .await
    .during(OPERATION)?;
    if was_muted.ok_or(DirectoryError::Missing("member"))? == muted {
        return Ok(());
    }
    sqlx::query(
        "UPDATE memberships SET muted = ? WHERE tenant_no = ? AND conversation_id = ? AND user_id = ?",
    )
    .bind(muted)
    .bind(tenant_no.to_row())
    .bind(conversation.0)
    .bind(user.0)
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let action = if muted { AuditAction::MemberMuted } else { AuditAction::MemberUnmuted };
    changed_by(connection, tenant, actor, action, Some(user.0), now).await
}

async fn add_acl_rule(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    added: &TenantAclRule,
    position: Option<usize>,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "add access rule";
    let tenant_no = tenant_number(connection, tenants, added.tenant).await?;
    let (rules,): (i64,) = sqlx::query_as("SELECT count(*) FROM acl_rules WHERE tenant_no = ?")
        .bind(tenant_no.to_row())
        .fetch_one(&mut *connection)
        .await
        .during(OPERATION)?;
    let rules = from_row(rules, "count")?;
    let end = rules + 1;
    let position = to_row(position.map_or(end, |position| (position as u64).clamp(1, end)));
    sqlx::query("UPDATE acl_rules SET position = position + 1 WHERE tenant_no = ? AND position >= ?")
        .bind(tenant_no.to_row())
        .bind(position)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    let inserted = sqlx::query(
        "INSERT INTO acl_rules (tenant_no, rule_id, position, effect, action, filter)
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(tenant_no.to_row())
    .bind(added.id.0)
    .bind(position)
    .bind(added.rule.effect.as_str())
    .bind(added.rule.action.as_str())
    .bind(added.rule.filter.as_str())
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    one_row(&inserted, DirectoryError::Exists("access rule"))?;
    if rules >= ACL_RULES_PER_TENANT_MAX as u64 {
        return Err(DirectoryError::Full("list of access rules"));
    }
    changed(connection, added.tenant, AuditAction::AclRuleAdded, Some(added.id.0), now).await
}

async fn remove_acl_rule(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    rule: AclRuleId,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    const OPERATION: &str = "remove access rule";
    let tenant_no = tenant_number(connection, tenants, tenant).await?;
    let deleted: Option<(i64,)> =
        sqlx::query_as("DELETE FROM acl_rules WHERE tenant_no = ? AND rule_id = ? RETURNING position")
            .bind(tenant_no.to_row())
            .bind(rule.0)
            .fetch_optional(&mut *connection)
            .await
            .during(OPERATION)?;
    let (position,) = deleted.ok_or(DirectoryError::Missing("access rule"))?;
    sqlx::query("UPDATE acl_rules SET position = position - 1 WHERE tenant_no = ? AND position > ?")
        .bind(tenant_no.to_row())
        .bind(position)
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    changed(connection, tenant, AuditAction::AclRuleRemoved, Some(rule.0), now).await
}

pub(crate) async fn tenant_number(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
) -> Result<TenantNo, DirectoryError> {
    tenants.number(connection, tenant).await?.ok_or(DirectoryError::Missing("tenant"))
}

async fn user_exists(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    user: UserId,
) -> Result<bool, StoreError> {
    let row: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM users WHERE tenant_no = ? AND user_id = ?")
        .bind(tenant.to_row())
        .bind(user.0)
        .fetch_optional(connection)
        .await
        .during("find user")?;
    Ok(row.is_some())
}

fn one_row(done: &SqliteQueryResult, otherwise: DirectoryError) -> Result<(), DirectoryError> {
    if done.rows_affected() == 1 { Ok(()) } else { Err(otherwise) }
}

/// What every change ends with.
/// By an operator.
pub(crate) async fn changed(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    action: AuditAction,
    resource: Option<Uuid>,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    changed_by(connection, tenant, None, action, resource, now).await
}

async fn changed_by(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    actor: Option<UserId>,
    action: AuditAction,
    resource: Option<Uuid>,
    now: UnixMillis,
) -> Result<(), DirectoryError> {
    sqlx::query("UPDATE directory_revision SET revision = revision + 1")
        .execute(&mut *connection)
        .await
        .during("raise revision")?;
    let event = AuditEvent { at: now, tenant: Some(tenant), actor, action, resource, allowed: true };
    Ok(insert_audit(connection, &event).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_conversation_has_a_bounded_number_of_members() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
        let (tenant, now) = (TenantId(Uuid::new_v4()), UnixMillis(0));
        let clinic = Tenant { id: tenant, name: "clinic".into(), topics: TopicPolicy::Membership };
        store.create_tenant(&clinic, now).await.expect("create tenant");
        let conversation = Conversation { id: ConversationId(Uuid::new_v4()), tenant };
        store.create_conversation(&conversation, now).await.expect("create conversation");

        // All but the last, without a transaction for each.
        let mut transaction = store.writer.begin("test").await.expect("begin");
        for sql in [
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
             INSERT INTO users (tenant_no, user_id, name, password_hash)
             SELECT 1, randomblob(16), 'user-' || n, '' FROM number",
            "INSERT INTO memberships (tenant_no, conversation_id, user_id, since)
             SELECT 1, conversation_id, user_id, 0 FROM users, conversations LIMIT ?",
        ] {
            let others = to_row(CONVERSATION_MEMBERS_MAX as u64 - 1);
            let done = sqlx::query(sql).bind(others).execute(transaction.connection()).await;
            done.expect("insert");
        }
        transaction.finish::<_, StoreError>(Ok(())).await.expect("commit");

        let password = StoredPassword { hash: String::new(), scram: None };
        for (name, fits) in [("last", true), ("one-more", false)] {
            let user = UserId(Uuid::new_v4());
            let row = User { id: user, tenant, name: name.into(), password: password.clone() };
            store.create_user(&row, now).await.expect("create user");
            let added = store.add_member(tenant, conversation.id, user, now).await;
            assert!(matches!((fits, added), (true, Ok(_)) | (false, Err(DirectoryError::Full(_)))));
        }
    }
}
