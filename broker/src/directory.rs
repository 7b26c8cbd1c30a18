//! The directory in memory: loaded at start, followed as it changes, whoever changes it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sotto_auth::{
    Authenticator, Membership, PasswordHash, Policy, PolicySnapshot, ScramCredentials, TenantName,
    UserCredentials, UserName,
};
use sotto_model::{TenantId, TopicPolicy, UserId};
use sotto_storage::directory::DirectorySnapshot;
use sotto_storage::{Store, StoreError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::ConfiguredRule;
use crate::devices::Devices;
use crate::registry::Registry;
use crate::session_entry::SessionEntry;

/// Between two looks at the directory's revision: a change made past this process holds within a second.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Loads begun anew because too much changed while one ran.
const LOADS_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("directory holds a {0} that is not one")]
    Inconsistent(&'static str),
    #[error("acl: no such tenant as {0}")]
    NoSuchTenant(String),
    #[error("directory changes faster than it can be loaded")]
    Restless,
}

pub(crate) struct LiveDirectory {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) registry: Arc<Registry>,
    /// Asked before those in the store.
    pub(crate) configured_rules: Arc<[ConfiguredRule]>,
    /// Rung by whoever changed something, to be followed at once.
    pub(crate) changed: Notify,
}

impl LiveDirectory {
    /// Brings memory up to the store, ends the sessions of users who are gone, and returns the revision.
    pub(crate) async fn load(&self) -> Result<u64, LoadError> {
        for _ in 0..LOADS_MAX {
            let policy_load = self.policy.begin_load();
            let users_load = self.authenticator.begin_load();
            let snapshot = self.store.snapshot().await?;
            let users = credentials(&snapshot)?;
            let policy = policy(&snapshot, &self.configured_rules)?;
            if self.policy.replace(policy_load, policy).is_err()
                || self.authenticator.replace(users_load, users).is_err()
            {
                continue;
            }
            self.devices.replace(&snapshot.devices);
            self.end_sessions_of_the_gone(&snapshot);
            return Ok(snapshot.revision);
        }
        Err(LoadError::Restless)
    }

    /// Looks for changes until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, mut known: u64, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
            // A store that is away changes nothing; what is in memory holds.
            let Ok(revision) = self.store.revision().await else { continue };
            if revision == known {
                continue;
            }
            match self.load().await {
                Ok(revision) => known = revision,
                Err(error) => {
                    tracing::error!(event = "directory_load_failed", error = %error, "the directory could not be followed");
                }
            }
        }
    }

    /// Ends its session. It has been removed from the store.
    pub(crate) fn remove_device(&self, tenant: TenantId, user: UserId, name: &str) {
        self.devices.forget(tenant, user, name);
        let mut gone: Vec<Arc<SessionEntry>> = Vec::new();
        self.registry.for_each(|entry| {
            let principal = &entry.principal;
            // A stored session that nobody has taken up is known by its Client Identifier alone: user/device.
            let client_id = principal.client_id.as_str().rsplit_once('/');
            if principal.tenant == tenant
                && principal.user == user
                && client_id.is_some_and(|(_, device)| device == name)
            {
                gone.push(entry.clone());
            }
        });
        self.registry.revoke(&gone);
    }

    fn end_sessions_of_the_gone(&self, snapshot: &DirectorySnapshot) {
        let users: HashSet<(TenantId, UserId)> =
            snapshot.users.iter().map(|user| (user.tenant, user.id)).collect();
        let mut gone: Vec<Arc<SessionEntry>> = Vec::new();
        self.registry.for_each(|entry| {
            let principal = &entry.principal;
            if principal.topics == TopicPolicy::Membership
                && !users.contains(&(principal.tenant, principal.user))
            {
                gone.push(entry.clone());
            }
        });
        self.registry.revoke(&gone);
    }
}

fn policy(
    snapshot: &DirectorySnapshot,
    configured_rules: &[ConfiguredRule],
) -> Result<PolicySnapshot, LoadError> {
    let mut acl_rules = Vec::with_capacity(configured_rules.len() + snapshot.acl_rules.len());
    for ConfiguredRule { tenant: name, rule } in configured_rules {
        let tenant = snapshot.tenants.iter().find(|tenant| tenant.name == *name);
        let tenant = tenant.ok_or_else(|| LoadError::NoSuchTenant(name.clone()))?;
        acl_rules.push((tenant.id, rule.clone()));
    }
    acl_rules.extend(snapshot.acl_rules.iter().map(|stored| (stored.tenant, stored.rule.clone())));
    Ok(PolicySnapshot {
        tenants: snapshot.tenants.iter().map(|tenant| (tenant.id, tenant.topics)).collect(),
        conversations: snapshot
            .conversations
            .iter()
            .map(|conversation| (conversation.tenant, conversation.id))
            .collect(),
        memberships: snapshot
            .memberships
            .iter()
            .map(|member| Membership {
                tenant: member.tenant,
                conversation: member.conversation,
                user: member.user,
                since: member.since,
            })
            .collect(),
        acl_rules,
    })
}

fn credentials(snapshot: &DirectorySnapshot) -> Result<Vec<UserCredentials>, LoadError> {
    snapshot
        .users
        .iter()
        .map(|user| {
            let tenant = snapshot
                .tenants
                .iter()
                .find(|tenant| tenant.id == user.tenant)
                .ok_or(LoadError::Inconsistent("user's tenant"))?;
            Ok(UserCredentials {
                tenant: user.tenant,
                tenant_name: TenantName::parse(&tenant.name)
                    .map_err(|_| LoadError::Inconsistent("tenant name"))?,
                user: user.id,
                user_name: UserName::parse(&user.name).map_err(|_| LoadError::Inconsistent("user name"))?,
                password: PasswordHash::parse(&user.password.hash)
                    .map_err(|_| LoadError::Inconsistent("password hash"))?,
                scram: match &user.password.scram {
                    None => None,
                    Some(scram) => Some(Arc::new(
                        ScramCredentials::parse(scram)
                            .map_err(|_| LoadError::Inconsistent("credential of SCRAM-SHA-256"))?,
                    )),
                },
                disabled: false,
            })
        })
        .collect()
}
