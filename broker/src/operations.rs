//! Carrying out what operators ask for: names become ids, the store is changed, live sessions follow.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use sotto_auth::{DeviceName, PasswordError, PasswordHash, ScramCredentials, TenantName, UserName};
use sotto_model::{
    AclFilter, AclFilterError, AclRule, AclRuleId, Clock, ConversationId, DeviceId, TenantId, TopicPolicy,
    Urgency, UserId,
};
use sotto_storage::Store;
use sotto_storage::directory::{
    Conversation, Device, DirectoryError, DirectorySnapshot, StoredPassword, Tenant, TenantAclRule, User,
};
use sotto_storage::error::StoreError;
use sotto_storage::outbox::{DeadLetterSelector, Replayed};
use sotto_storage::push_registry::Lane;
use sotto_storage::retention::{RetentionLimits, RetentionPolicy};
use sotto_wakeup::{TargetError, TargetRequest, TestPushError, Wakeups};
use tokio::sync::Notify;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::SystemClock;
use crate::config::ConfiguredRule;
use crate::directory::LiveDirectory;
use crate::log_starts::LogStart;
use crate::operation::{NewTarget, Operation};
use crate::registrar::{RegisterError, Registrar};

/// Audit rows and dead letters in one answer.
const ROWS_MAX: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error("{0}: 1 to 64 of a-z, 0-9, '.', '_' and '-' are expected")]
    Name(&'static str),
    #[error("no such {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("a broker must run: it alone speaks to push services")]
    NotRunning,
    #[error(transparent)]
    TestPush(#[from] TestPushError),
    #[error(transparent)]
    AclFilter(#[from] AclFilterError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("retention.minimum_days is {minimum_days}: {days} days are too few (0: for good)")]
    RetentionTooShort { days: u32, minimum_days: u32 },
    #[error("key service unavailable")]
    Key,
    #[error("internal fault")]
    Internal,
}

pub(crate) struct Operations {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) registrar: Arc<Registrar>,
    /// Once the broker wakes devices; never when the store is administered directly.
    pub(crate) wakeups: OnceLock<Wakeups>,
    pub(crate) configured_rules: Arc<[ConfiguredRule]>,
    pub(crate) retention: RetentionPolicy,
    /// Rung when somebody's is changed.
    pub(crate) retention_changed: Arc<Notify>,
    /// The running broker's memory; none when the store is administered directly.
    pub(crate) live: Option<Arc<LiveDirectory>>,
}

impl Operations {
    /// Returns when the change is committed and live sessions obey it.
    pub(crate) async fn run(&self, operation: Operation) -> Result<Value, OperationError> {
        let now = self.clock.unix_now();
        match operation {
            Operation::TenantAdd { tenant } => self.add_tenant(&tenant, TopicPolicy::Membership).await,
            Operation::TenantList {} => self.list_tenants().await,
            Operation::TenantRetention { tenant, days, bytes, default } => {
                self.set_retention(&tenant, days, bytes, default).await
            }
            Operation::TenantHold { tenant, hold } => {
                let (_, tenant) = self.tenant(&tenant).await?;
                self.store.set_legal_hold(tenant, hold, now).await?;
                self.retention_changed.notify_one();
                Ok(json!({"id": tenant, "legal_hold": hold}))
            }
            Operation::UserAdd { tenant, user, password } => self.add_user(&tenant, &user, password).await,
            Operation::UserList { tenant } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let rows = directory.users.iter().filter(|user| user.tenant == tenant);
                Ok(rows.map(|user| json!({"user": user.name, "id": user.id})).collect())
            }
            Operation::UserRemove { tenant, user } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                self.store.remove_user(tenant, user, now).await?;
                self.follow().await;
                Ok(json!({"id": user}))
            }
            Operation::UserPassword { tenant, user, password } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                let password = stored(password).await?;
                self.store.set_password(tenant, user, &password, now).await?;
                self.follow().await;
                Ok(json!({"id": user}))
            }
            Operation::ConversationAdd { tenant, id } => {
                let (_, tenant) = self.tenant(&tenant).await?;
                let id = id.unwrap_or_else(|| ConversationId(Uuid::new_v4()));
                self.store.create_conversation(&Conversation { id, tenant }, now).await?;
                if let Some(live) = &self.live {
                    live.policy.add_conversation(tenant, id);
                }
                Ok(json!({"id": id, "topic": format!("c/{id}/m")}))
            }
            Operation::ConversationList { tenant } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let rows = directory.conversations.iter().filter(|row| row.tenant == tenant);
                Ok(rows.map(|row| json!({"id": row.id, "topic": format!("c/{}/m", row.id)})).collect())
            }
            Operation::ConversationRemove { tenant, conversation } => {
                let (_, tenant) = self.tenant(&tenant).await?;
                self.store.remove_conversation(tenant, conversation, now).await?;
                if let Some(live) = &self.live {
                    live.policy.remove_conversation(tenant, conversation);
                }
                Ok(json!({"id": conversation}))
            }
            Operation::MemberAdd { tenant, conversation, user } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                let since = self.store.add_member(tenant, conversation, user, now).await?;
                if let Some(live) = &self.live {
                    live.policy.add_member(tenant, conversation, user, since);
                }
                Ok(json!({"conversation": conversation, "id": user, "since": since.0}))
            }
            Operation::MemberList { tenant, conversation } => {
                let (directory, _) = self.tenant(&tenant).await?;
                let rows = directory.memberships.iter().filter(|row| row.conversation == conversation);
                let name =
                    |id: UserId| directory.users.iter().find(|user| user.id == id).map(|user| &user.name);
                Ok(rows
                    .map(|row| json!({"user": name(row.user), "id": row.user, "since": row.since.0, "muted": row.muted}))
                    .collect())
            }
            Operation::MemberRemove { tenant, conversation, user } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                self.store.remove_member(tenant, conversation, user, now).await?;
                if let Some(live) = &self.live {
                    live.policy.remove_member(tenant, conversation, user);
                }
                Ok(json!({"conversation": conversation, "id": user}))
            }
            Operation::MemberMute { tenant, conversation, user, muted } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                self.store.set_muted(tenant, conversation, user, muted, None, now).await?;
                Ok(json!({"conversation": conversation, "id": user, "muted": muted}))
            }
            Operation::DeviceList { tenant, user } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                let rows = directory.devices.iter().filter(|row| row.tenant == tenant && row.user == user);
                Ok(rows.map(|row| json!({"device": row.name, "id": row.id})).collect())
            }
            Operation::DeviceRemove { tenant, user, device } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                let id = find_device(&directory, tenant, user, &device)?.id;
                self.store.remove_device(tenant, id, now).await?;
                if let Some(live) = &self.live {
                    live.remove_device(tenant, user, &device);
                }
                Ok(json!({"id": id}))
            }
            Operation::PushRegister { tenant, user, device, target } => {
                self.register_push(&tenant, &user, &device, &target).await
            }
            Operation::PushUnregister { tenant, user, device } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                let device = find_device(&directory, tenant, user, &device)?;
                self.registrar.unregister(tenant, device.id, None).await?;
                Ok(json!({"device": device.id}))
            }
            Operation::PushList { tenant } => {
                let (_, tenant) = self.tenant(&tenant).await?;
                let rows = self.store.registrations(tenant).await?;
                Ok(rows
                    .iter()
                    .map(|row| {
                        json!({"device": row.device, "platform": row.platform.as_str(), "app": row.app,
                               "registered_at_ms": row.registered_at.0})
                    })
                    .collect())
            }
            Operation::PushDeadLetters {} => {
                let rows = self.store.dead_letters(ROWS_MAX).await?;
                Ok(rows
                    .iter()
                    .map(|row| {
                        json!({"tenant": row.tenant, "device": row.device, "platform": row.platform.as_str(),
                               "app": row.app, "urgency": row.urgency.as_str(), "attempts": row.attempts,
                               "outcome": row.outcome, "died_at_ms": row.died_at.0})
                    })
                    .collect())
            }
            Operation::PushReplay { tenant, device } => self.replay(tenant, device).await,
            Operation::PushStatus {} => self.push_status().await,
            Operation::PushTest { tenant, user, device, low } => {
                let (directory, tenant) = self.tenant(&tenant).await?;
                let user = find_user(&directory, tenant, &user)?;
                let device = find_device(&directory, tenant, user, &device)?.id;
                let wakeups = self.wakeups.get().ok_or(OperationError::NotRunning)?;
                let registrations = self.store.registrations(tenant).await?;
                let registration = registrations.iter().find(|row| row.device == device);
                let registration = registration.ok_or(OperationError::Missing("push registration"))?;
                let urgency = if low { Urgency::Low } else { Urgency::High };
                let (outcome, why) = wakeups.test(registration, urgency).await?;
                Ok(json!({"device": device, "platform": registration.platform.as_str(),
                          "outcome": outcome.as_str(), "why": why}))
            }
            Operation::AclAdd { tenant, effect, action, filter, position } => {
                let (_, tenant) = self.tenant(&tenant).await?;
                let rule = AclRule { effect, action, filter: AclFilter::parse(&filter)? };
                let rule = TenantAclRule { id: AclRuleId(Uuid::new_v4()), tenant, rule };
                self.store.add_acl_rule(&rule, position, now).await?;
                self.follow().await;
                Ok(json!({"id": rule.id}))
            }
            Operation::AclList { tenant } => self.list_acl_rules(&tenant).await,
            Operation::AclRemove { tenant, rule } => {
                let (_, tenant) = self.tenant(&tenant).await?;
                self.store.remove_acl_rule(tenant, rule, now).await?;
                self.follow().await;
                Ok(json!({"id": rule}))
            }
            Operation::AuditList { tenant, limit } => {
                let tenant = match tenant {
                    Some(name) => Some(self.tenant(&name).await?.1),
                    None => None,
                };
                let rows = self.store.recent(tenant, limit.min(ROWS_MAX)).await?;
                Ok(rows
                    .iter()
                    .map(|row| {
                        json!({"at_ms": row.at.0, "tenant": row.tenant, "actor": row.actor,
                               "action": row.action.as_str(), "resource": row.resource, "allowed": row.allowed})
                    })
                    .collect())
            }
        }
    }

    pub(crate) async fn add_tenant(&self, name: &str, topics: TopicPolicy) -> Result<Value, OperationError> {
        TenantName::parse(name).map_err(|_| OperationError::Name("tenant"))?;
        let tenant = Tenant { id: TenantId(Uuid::new_v4()), name: name.to_owned(), topics };
        self.store.create_tenant(&tenant, self.clock.unix_now()).await?;
        if let Some(live) = &self.live {
            live.policy.add_tenant(tenant.id, topics);
        }
        Ok(json!({"tenant": tenant.name, "id": tenant.id}))
    }

    /// As each is kept, be it by limits of its own or by those configured.
    async fn list_tenants(&self) -> Result<Value, OperationError> {
        let tenants = self.store.snapshot().await?.tenants;
        let retention = self.store.retention().await?;
        let row = |tenant: &Tenant| {
            let kept = retention.iter().find(|kept| kept.tenant == tenant.id);
            let limits = kept.map(|kept| kept.limits).unwrap_or_default();
            json!({
                "tenant": tenant.name,
                "id": tenant.id,
                "retention_days": limits.days.unwrap_or(self.retention.days),
                "retention_bytes": limits.bytes.unwrap_or(self.retention.bytes),
                "legal_hold": kept.is_some_and(|kept| kept.legal_hold),
                "history_from": kept.map(|kept| LogStart(kept.start).first_held().0),
            })
        };
        Ok(tenants.iter().map(row).collect())
    }

    async fn set_retention(
        &self,
        name: &str,
        days: Option<u32>,
        bytes: Option<u64>,
        default: bool,
    ) -> Result<Value, OperationError> {
        if let Some(days) = days.filter(|days| !self.retention.allows_days(*days)) {
            return Err(OperationError::RetentionTooShort {
                days,
                minimum_days: self.retention.minimum_days,
            });
        }
        let (_, tenant) = self.tenant(name).await?;
        let retention = self.store.retention().await?;
        let own = retention.iter().find(|kept| kept.tenant == tenant).filter(|_| !default);
        let own = own.map(|kept| kept.limits).unwrap_or_default();
        let limits = RetentionLimits { days: days.or(own.days), bytes: bytes.or(own.bytes) };
        self.store.set_retention(tenant, limits, self.clock.unix_now()).await?;
        self.retention_changed.notify_one();
        Ok(json!({
            "id": tenant,
            "retention_days": limits.days.unwrap_or(self.retention.days),
            "retention_bytes": limits.bytes.unwrap_or(self.retention.bytes),
        }))
    }

    async fn add_user(&self, tenant: &str, name: &str, password: String) -> Result<Value, OperationError> {
        UserName::parse(name).map_err(|_| OperationError::Name("user"))?;
        let (_, tenant) = self.tenant(tenant).await?;
        let password = stored(password).await?;
        let user = User { id: UserId(Uuid::new_v4()), tenant, name: name.to_owned(), password };
        self.store.create_user(&user, self.clock.unix_now()).await?;
        self.follow().await;
        Ok(json!({"user": user.name, "id": user.id}))
    }

    /// In the order in which they are asked. Only those of the store have a position and an id: the others
    /// are changed where they are written.
    async fn list_acl_rules(&self, name: &str) -> Result<Value, OperationError> {
        let (directory, tenant) = self.tenant(name).await?;
        let row = |rule: &AclRule, position: Option<usize>, id: Option<AclRuleId>| {
            json!({"position": position, "effect": rule.effect, "action": rule.action,
                   "filter": rule.filter, "id": id})
        };
        let configured = self.configured_rules.iter().filter(|configured| configured.tenant == name);
        let configured = configured.map(|configured| row(&configured.rule, None, None));
        let stored = directory.acl_rules.iter().filter(|stored| stored.tenant == tenant);
        let stored = (1..).zip(stored).map(|(at, stored)| row(&stored.rule, Some(at), Some(stored.id)));
        Ok(configured.chain(stored).collect())
    }

    async fn register_push(
        &self,
        tenant: &str,
        user: &str,
        device: &str,
        target: &NewTarget,
    ) -> Result<Value, OperationError> {
        let target = self.registrar.target(TargetRequest {
            platform: &target.platform,
            app: target.app.as_deref(),
            token: target.token.as_ref().map(|token| token.as_str()),
            endpoint: target.endpoint.as_ref().map(|endpoint| endpoint.as_str()),
        })?;
        DeviceName::parse(device).map_err(|_| OperationError::Name("device"))?;
        let (directory, tenant) = self.tenant(tenant).await?;
        let user = find_user(&directory, tenant, user)?;
        let device = self.store.ensure_device(tenant, user, device, self.clock.unix_now()).await?;
        self.registrar.register(tenant, device, &target, None).await.map_err(|error| match error {
            RegisterError::Key => OperationError::Key,
            RegisterError::Directory(error) => error.into(),
        })?;
        let lane = target.lane();
        Ok(json!({"device": device, "platform": lane.platform.as_str(), "app": lane.app}))
    }

    /// All dead letters, those of a tenant, or those of a device of it.
    async fn replay(
        &self,
        tenant: Option<String>,
        device: Option<DeviceId>,
    ) -> Result<Value, OperationError> {
        let selector = match (tenant, device) {
            (None, None) => DeadLetterSelector::All,
            (Some(name), None) => DeadLetterSelector::Tenant(self.tenant(&name).await?.1),
            (Some(name), Some(device)) => DeadLetterSelector::Device(self.tenant(&name).await?.1, device),
            (None, Some(_)) => return Err(OperationError::Missing("tenant")),
        };
        let mut replayed = Replayed::default();
        // As many as there were when it began: those that die meanwhile stay.
        let mut left = self.store.lag(self.clock.unix_now()).await?.dead_letters;
        while left > 0 {
            let turn = self.store.replay_dead_letters(selector, ROWS_MAX, self.clock.unix_now()).await?;
            let taken = turn.due + turn.gone;
            replayed.due += turn.due;
            replayed.gone += turn.gone;
            if taken == 0 {
                break;
            }
            left = left.saturating_sub(taken);
        }
        if let Some(wakeups) = self.wakeups.get() {
            wakeups.committed().ring();
        }
        Ok(json!({"due": replayed.due, "gone": replayed.gone}))
    }

    /// A row for every lane that is configured here or waits in the store.
    async fn push_status(&self) -> Result<Value, OperationError> {
        let lag = self.store.lag(self.clock.unix_now()).await?;
        let health = self.wakeups.get().map(Wakeups::health).unwrap_or_default();
        let mut lanes: Vec<Lane> = self.registrar.lanes().to_vec();
        for waiting in &lag.lanes {
            if !lanes.contains(&waiting.lane) {
                lanes.push(waiting.lane.clone());
            }
        }
        let rows: Vec<Value> = lanes
            .iter()
            .map(|lane| {
                let health = health.iter().find(|health| health.lane == *lane);
                let waiting = lag.lanes.iter().find(|waiting| waiting.lane == *lane);
                let trouble = health.and_then(|health| health.last_trouble);
                let failure = health.and_then(|health| health.last_failure);
                json!({
                    "lane": lane.to_string(),
                    "configured": self.registrar.lanes().contains(lane),
                    "breaker": health.map(|health| health.breaker.as_str()),
                    "delivered": health.map(|health| health.delivered),
                    "due": waiting.map_or(0, |waiting| waiting.due),
                    "waiting": waiting.map_or(0, |waiting| waiting.waiting),
                    "leased": waiting.map_or(0, |waiting| waiting.leased),
                    "sent": waiting.map_or(0, |waiting| waiting.sent),
                    "oldest_due_ms": waiting.and_then(|waiting| waiting.oldest_due).map(|at| at.0),
                    "credential_since_ms": health.and_then(|health| health.credential.since).map(|at| at.0),
                    "public_key": health.and_then(|health| health.public_key.clone()),
                    "last_trouble": trouble.map(|(why, _)| why),
                    "last_trouble_ms": trouble.map(|(_, at)| at.0),
                    "last_failure": failure.map(|(why, _)| why),
                    "last_failure_ms": failure.map(|(_, at)| at.0),
                })
            })
            .collect();
        Ok(Value::Array(rows))
    }

    async fn tenant(&self, name: &str) -> Result<(DirectorySnapshot, TenantId), OperationError> {
        let directory = self.store.snapshot().await?;
        let tenant = directory.tenants.iter().find(|tenant| tenant.name == name).map(|tenant| tenant.id);
        tenant.map(|tenant| (directory, tenant)).ok_or(OperationError::Missing("tenant"))
    }

    /// Has the running broker take the change up before the operator is answered.
    async fn follow(&self) {
        if let Some(live) = &self.live
            && live.load().await.is_err()
        {
            // The follower goes on trying; the change is committed.
            live.changed.notify_one();
        }
    }
}

async fn stored(password: String) -> Result<StoredPassword, OperationError> {
    let derived = tokio::task::spawn_blocking(move || {
        let password = Zeroizing::new(password);
        let hash = PasswordHash::hash_password(password.as_bytes())?.as_phc().to_owned();
        // A password that RFC 4013 has no form for still does for signing in without SCRAM.
        let scram = ScramCredentials::derive(&password).ok().map(|credentials| credentials.to_stored());
        Ok(StoredPassword { hash, scram })
    });
    derived.await.map_err(|_| OperationError::Internal)?
}

fn find_user(directory: &DirectorySnapshot, tenant: TenantId, name: &str) -> Result<UserId, OperationError> {
    let user = directory.users.iter().find(|user| user.tenant == tenant && user.name == name);
    user.map(|user| user.id).ok_or(OperationError::Missing("user"))
}

fn find_device<'d>(
    directory: &'d DirectorySnapshot,
    tenant: TenantId,
    user: UserId,
    name: &str,
) -> Result<&'d Device, OperationError> {
    directory
        .devices
        .iter()
        .find(|device| device.tenant == tenant && device.user == user && device.name == name)
        .ok_or(OperationError::Missing("device"))
}
