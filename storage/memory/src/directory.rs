//! Tenants, users, devices, conversations, members, access rules.

use async_trait::async_trait;
use sotto_model::limits::{ACL_RULES_PER_TENANT_MAX, CONVERSATION_MEMBERS_MAX, DEVICES_PER_USER_MAX};
use sotto_model::{AclRuleId, ConversationId, DeviceId, Offset, SessionId, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::directory::{
    Conversation, Device, Directory, DirectoryError, DirectorySnapshot, Membership, StoredPassword, Tenant,
    TenantAclRule, User,
};
use sotto_storage::retention::{RetentionLimits, TenantRetention};
use uuid::Uuid;

use crate::state::{MemberRow, SessionRow, State, TenantRow};
use crate::store::MemoryStore;

#[async_trait]
impl Directory for MemoryStore {
    async fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.lock().revision)
    }

    async fn snapshot(&self) -> Result<DirectorySnapshot, StoreError> {
        Ok(snapshot(&self.lock()))
    }

    async fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        let taken = state.tenants.values().any(|row| row.tenant.name == tenant.name);
        if taken || state.tenants.contains_key(&tenant.id) {
            return Err(DirectoryError::Exists("tenant"));
        }
        let retention = TenantRetention {
            tenant: tenant.id,
            limits: RetentionLimits::default(),
            legal_hold: false,
            start: Offset(0),
        };
        state.tenants.insert(tenant.id, TenantRow { tenant: tenant.clone(), head: Offset(0), retention });
        changed(&mut state, tenant.id, AuditAction::TenantCreated, tenant.id.0, now);
        Ok(())
    }

    async fn create_user(&self, user: &User, now: UnixMillis) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, user.tenant)?;
        let taken = state.users.values().any(|other| other.tenant == user.tenant && other.name == user.name);
        if taken || state.users.contains_key(&(user.tenant, user.id)) {
            return Err(DirectoryError::Exists("user"));
        }
        state.users.insert((user.tenant, user.id), user.clone());
        changed(&mut state, user.tenant, AuditAction::UserCreated, user.id.0, now);
        Ok(())
    }

    async fn set_password(
        &self,
        tenant: TenantId,
        user: UserId,
        password: &StoredPassword,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        let row = state.users.get_mut(&(tenant, user)).ok_or(DirectoryError::Missing("user"))?;
        row.password = password.clone();
        changed(&mut state, tenant, AuditAction::PasswordChanged, user.0, now);
        Ok(())
    }

    async fn remove_user(
        &self,
        tenant: TenantId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        state.users.remove(&(tenant, user)).ok_or(DirectoryError::Missing("user"))?;
        let is_theirs = |device: &Device| device.tenant == tenant && device.user == user;
        let devices: Vec<DeviceId> =
            state.devices.values().filter(|device| is_theirs(device)).map(|device| device.id).collect();
        for device in devices {
            state.devices.remove(&(tenant, device));
            state.registrations.remove(&(tenant, device));
            state.wakes.remove(&(tenant, device));
        }
        state.memberships.retain(|&(owner, _, member), _| (owner, member) != (tenant, user));
        state.wills.retain(|row| (row.tenant, row.will.sealed.sender()) != (tenant, user));
        state.sessions.retain(|_, row| (row.tenant, row.user) != (tenant, user));
        changed(&mut state, tenant, AuditAction::UserRemoved, user.0, now);
        Ok(())
    }

    async fn ensure_device(
        &self,
        tenant: TenantId,
        user: UserId,
        name: &str,
        now: UnixMillis,
    ) -> Result<DeviceId, DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        let mut of_user =
            state.devices.values().filter(|device| device.tenant == tenant && device.user == user);
        if let Some(device) = of_user.clone().find(|device| device.name == name) {
            return Ok(device.id);
        }
        if !state.users.contains_key(&(tenant, user)) {
            return Err(DirectoryError::Missing("user"));
        }
        if of_user.by_ref().count() >= DEVICES_PER_USER_MAX {
            return Err(DirectoryError::Full("list of devices"));
        }
        // Unique, since the revision never comes again, and the same every time.
        let id = DeviceId(Uuid::from_u64_pair(u64::from_be_bytes(*b"device\0\0"), state.revision));
        state.devices.insert((tenant, id), Device { id, tenant, user, name: name.to_owned() });
        changed(&mut state, tenant, AuditAction::DeviceCreated, id.0, now);
        Ok(id)
    }

    async fn remove_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        state.devices.remove(&(tenant, device)).ok_or(DirectoryError::Missing("device"))?;
        state.registrations.remove(&(tenant, device));
        state.wakes.remove(&(tenant, device));
        let is_its = |row: &SessionRow| row.tenant == tenant && row.device == Some(device);
        let ended: Vec<SessionId> =
            state.sessions.iter().filter(|(_, row)| is_its(row)).map(|(id, _)| *id).collect();
        state.wills.retain(|row| !ended.contains(&row.session));
        state.sessions.retain(|id, _| !ended.contains(id));
        changed(&mut state, tenant, AuditAction::DeviceRemoved, device.0, now);
        Ok(())
    }

    async fn create_conversation(
        &self,
        conversation: &Conversation,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, conversation.tenant)?;
        if !state.conversations.insert((conversation.tenant, conversation.id)) {
            return Err(DirectoryError::Exists("conversation"));
        }
        let action = AuditAction::ConversationCreated;
        changed(&mut state, conversation.tenant, action, conversation.id.0, now);
        Ok(())
    }

    async fn remove_conversation(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        if !state.conversations.remove(&(tenant, conversation)) {
            return Err(DirectoryError::Missing("conversation"));
        }
        state.memberships.retain(|&(owner, of, _), _| (owner, of) != (tenant, conversation));
        changed(&mut state, tenant, AuditAction::ConversationRemoved, conversation.0, now);
        Ok(())
    }

    async fn add_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<Offset, DirectoryError> {
        let mut state = self.lock();
        let since = has_tenant(&state, tenant)?;
        if !state.users.contains_key(&(tenant, user)) {
            return Err(DirectoryError::Missing("user"));
        }
        if !state.conversations.contains(&(tenant, conversation)) {
            return Err(DirectoryError::Missing("conversation"));
        }
        let key = (tenant, conversation, user);
        if state.memberships.contains_key(&key) {
            return Err(DirectoryError::Exists("member"));
        }
        let is_in = |key: &&(TenantId, ConversationId, UserId)| (key.0, key.1) == (tenant, conversation);
        if state.memberships.keys().filter(is_in).count() >= CONVERSATION_MEMBERS_MAX {
            return Err(DirectoryError::Full("conversation"));
        }
        state.memberships.insert(key, MemberRow { since, muted: false });
        changed(&mut state, tenant, AuditAction::MemberAdded, user.0, now);
        Ok(since)
    }

    async fn remove_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        let removed = state.memberships.remove(&(tenant, conversation, user));
        removed.ok_or(DirectoryError::Missing("member"))?;
        changed(&mut state, tenant, AuditAction::MemberRemoved, user.0, now);
        Ok(())
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
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        let row = state.memberships.get_mut(&(tenant, conversation, user));
        let row = row.ok_or(DirectoryError::Missing("member"))?;
        if row.muted != muted {
            row.muted = muted;
            let action = if muted { AuditAction::MemberMuted } else { AuditAction::MemberUnmuted };
            changed_by(&mut state, tenant, actor, action, user.0, now);
        }
        Ok(())
    }

    async fn add_acl_rule(
        &self,
        rule: &TenantAclRule,
        position: Option<usize>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, rule.tenant)?;
        let rules = state.acl_rules.entry(rule.tenant).or_default();
        if rules.iter().any(|standing| standing.id == rule.id || standing.rule == rule.rule) {
            return Err(DirectoryError::Exists("access rule"));
        }
        if rules.len() >= ACL_RULES_PER_TENANT_MAX {
            return Err(DirectoryError::Full("list of access rules"));
        }
        let end = rules.len() + 1;
        rules.insert(position.map_or(end, |position| position.clamp(1, end)) - 1, rule.clone());
        changed(&mut state, rule.tenant, AuditAction::AclRuleAdded, rule.id.0, now);
        Ok(())
    }

    async fn remove_acl_rule(
        &self,
        tenant: TenantId,
        rule: AclRuleId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut state = self.lock();
        has_tenant(&state, tenant)?;
        let rules = state.acl_rules.entry(tenant).or_default();
        let place = rules.iter().position(|standing| standing.id == rule);
        rules.remove(place.ok_or(DirectoryError::Missing("access rule"))?);
        changed(&mut state, tenant, AuditAction::AclRuleRemoved, rule.0, now);
        Ok(())
    }
}

/// Its head.
fn has_tenant(state: &State, tenant: TenantId) -> Result<Offset, DirectoryError> {
    state.tenants.get(&tenant).map(|row| row.head).ok_or(DirectoryError::Missing("tenant"))
}

/// What every change ends with.
pub(crate) fn changed(
    state: &mut State,
    tenant: TenantId,
    action: AuditAction,
    resource: Uuid,
    now: UnixMillis,
) {
    changed_by(state, tenant, None, action, resource, now);
}

fn changed_by(
    state: &mut State,
    tenant: TenantId,
    actor: Option<UserId>,
    action: AuditAction,
    resource: Uuid,
    now: UnixMillis,
) {
    state.revision += 1;
    let resource = Some(resource);
    state.audit.push(AuditEvent { at: now, tenant: Some(tenant), actor, action, resource, allowed: true });
}

fn snapshot(state: &State) -> DirectorySnapshot {
    DirectorySnapshot {
        revision: state.revision,
        tenants: state.tenants.values().map(|row| row.tenant.clone()).collect(),
        users: state.users.values().cloned().collect(),
        devices: state.devices.values().cloned().collect(),
        conversations: state.conversations.iter().map(|&(tenant, id)| Conversation { id, tenant }).collect(),
        memberships: state
            .memberships
            .iter()
            .map(|(&(tenant, conversation, user), &MemberRow { since, muted })| Membership {
                tenant,
                conversation,
                user,
                since,
                muted,
            })
            .collect(),
        acl_rules: state.acl_rules.values().flatten().cloned().collect(),
    }
}
