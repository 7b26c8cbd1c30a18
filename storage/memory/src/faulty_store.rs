//! A store whose calls fail as they are drawn to.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sotto_keyring::{Epoch, KeyId, KeyScope, KeyStore, KeyStoreError, WrappedDataKey, WrappedEpochKey};
use sotto_model::{
    AclRuleId, ClientId, ConversationId, DeviceId, MessageId, Offset, SessionId, TenantId, TopicFilter,
    TopicName, UnixMillis, UserId,
};
use sotto_storage::StoreError;
use sotto_storage::audit::{AuditEvent, AuditLog};
use sotto_storage::directory::{
    Conversation, Directory, DirectoryError, DirectorySnapshot, StoredPassword, Tenant, TenantAclRule, User,
};
use sotto_storage::message_log::{
    Batch, MessageLog, Page, PageLimit, Placed, RetainedPage, Selector, StoredMessage,
};
use sotto_storage::outbox::{
    ClaimedWakeup, DeadLetter, DeadLetterSelector, Outbox, OutboxLag, Relayed, Replayed, Settlement,
};
use sotto_storage::push_registry::{Lane, PushRegistration, PushRegistry};
use sotto_storage::retention::{Retention, RetentionLimits, RetentionPolicy, TenantRetention, Trimmed};
use sotto_storage::session_store::{ListedSession, SessionOp, SessionReply, SessionStore};
use sotto_storage::wakeup_quota::WakeupQuota;
use sotto_storage::wills::{DueWill, Wills};
use tokio::sync::Notify;

use crate::faults::{FaultRates, Faults};
use crate::store::MemoryStore;

/// A [`MemoryStore`] behind a connection that is slow, is lost, and comes back.
///
/// A call waits, is done, waits again and is answered. Dropping it while it waits leaves it undone or done and
/// unheard of: that is what the crash of a process does to what it has asked of its database.
pub struct FaultyStore {
    inner: Arc<MemoryStore>,
    /// Locked by each call, for one draw.
    faults: Mutex<Faults>,
    up: AtomicBool,
    /// Whoever waits is told in the order of coming: a watch would shuffle them, and no seed repeat that.
    went_down: Notify,
    /// Locked by appends, to look a topic up.
    refused_topics: Mutex<Vec<TopicName>>,
}

impl FaultyStore {
    /// Without faults, until [`Self::set_rates`] says otherwise.
    pub fn new(inner: Arc<MemoryStore>, seed: u64) -> Self {
        Self {
            inner,
            faults: Mutex::new(Faults::new(seed)),
            up: AtomicBool::new(true),
            went_down: Notify::new(),
            refused_topics: Mutex::new(Vec::new()),
        }
    }

    pub fn set_rates(&self, rates: FaultRates) {
        self.faults.lock().rates = rates;
    }

    /// While it is down every call fails, and what waits fails where it is: undone, or done and unheard of.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
        if !up {
            self.went_down.notify_waiters();
        }
    }

    /// No batch with a message on this topic is taken.
    pub fn refuse_topic(&self, topic: TopicName) {
        self.refused_topics.lock().push(topic);
    }

    async fn call<T, E>(
        &self,
        operation: &'static str,
        run: impl Future<Output = Result<T, E>>,
        error: impl Fn(StoreError) -> E,
    ) -> Result<T, E> {
        let unavailable = |code: &str| error(StoreError::Unavailable { operation, code: code.to_owned() });
        let fate = self.faults.lock().draw();
        if !self.up.load(Ordering::SeqCst) || !self.stays_up(fate.before).await {
            return Err(unavailable("down"));
        }
        if !fate.is_done {
            return Err(unavailable("failed before"));
        }
        let result = run.await;
        if !self.stays_up(fate.after).await {
            return Err(unavailable("down"));
        }
        if result.is_ok() && !fate.is_told {
            return Err(unavailable("failed after"));
        }
        result
    }

    async fn stays_up(&self, wait: Duration) -> bool {
        if wait.is_zero() {
            return true;
        }
        let mut went_down = std::pin::pin!(self.went_down.notified());
        went_down.as_mut().enable();
        self.up.load(Ordering::SeqCst) && tokio::time::timeout(wait, went_down).await.is_err()
    }

    fn refuses(&self, batch: &Batch) -> bool {
        let refused = self.refused_topics.lock();
        batch.appends.iter().any(|append| refused.contains(append.sealed.topic()))
    }
}

fn key_store_error(error: StoreError) -> KeyStoreError {
    KeyStoreError::Unavailable(Box::new(error))
}

#[async_trait]
impl MessageLog for FaultyStore {
    async fn claim_writer(&self) -> Result<u64, StoreError> {
        self.call("claim writer", self.inner.claim_writer(), std::convert::identity).await
    }

    async fn append(&self, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
        if self.refuses(batch) {
            return Err(StoreError::Refused { operation: "append", code: "refused topic".to_owned() });
        }
        self.call("append", self.inner.append(batch), std::convert::identity).await
    }

    async fn heads(&self) -> Result<Vec<(TenantId, Offset)>, StoreError> {
        self.call("heads", self.inner.heads(), std::convert::identity).await
    }

    async fn read(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        after: Offset,
        up_to: Offset,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.call("read", self.inner.read(tenant, selectors, after, up_to, limit), std::convert::identity)
            .await
    }

    async fn get(&self, tenant: TenantId, offsets: &[Offset]) -> Result<Vec<StoredMessage>, StoreError> {
        self.call("get", self.inner.get(tenant, offsets), std::convert::identity).await
    }

    async fn retained(
        &self,
        tenant: TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        now: UnixMillis,
        limit: PageLimit,
    ) -> Result<RetainedPage, StoreError> {
        self.call("retained", self.inner.retained(tenant, filter, after, now, limit), std::convert::identity)
            .await
    }

    async fn retained_topics(&self, limit: usize) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError> {
        self.call("retained topics", self.inner.retained_topics(limit), std::convert::identity).await
    }

    async fn expire_retained(&self, now: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        self.call("expire retained", self.inner.expire_retained(now, limit), std::convert::identity).await
    }

    async fn forget_publications(&self, before: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let forget = self.inner.forget_publications(before, limit);
        self.call("forget publications", forget, std::convert::identity).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.call("ping", self.inner.ping(), std::convert::identity).await
    }
}

#[async_trait]
impl SessionStore for FaultyStore {
    async fn apply(&self, ops: &[SessionOp]) -> Result<Vec<SessionReply>, StoreError> {
        self.call("apply", self.inner.apply(ops), std::convert::identity).await
    }

    async fn recover(&self, now: UnixMillis) -> Result<u64, StoreError> {
        self.call("recover", self.inner.recover(now), std::convert::identity).await
    }

    async fn list(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<ListedSession>, StoreError> {
        self.call("list", self.inner.list(after, limit), std::convert::identity).await
    }

    async fn expire(&self, now: UnixMillis, limit: usize) -> Result<Vec<(TenantId, ClientId)>, StoreError> {
        self.call("expire", self.inner.expire(now, limit), std::convert::identity).await
    }
}

#[async_trait]
impl Wills for FaultyStore {
    async fn due_wills(&self, now: UnixMillis, limit: usize) -> Result<Vec<DueWill>, StoreError> {
        self.call("due wills", self.inner.due_wills(now, limit), std::convert::identity).await
    }

    async fn forget_wills(&self, wills: &[MessageId]) -> Result<(), StoreError> {
        self.call("forget wills", self.inner.forget_wills(wills), std::convert::identity).await
    }
}

#[async_trait]
impl Outbox for FaultyStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        self.call("relay", self.inner.relay(limit, now), std::convert::identity).await
    }

    async fn claim(
        &self,
        lane: &Lane,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        self.call("claim", self.inner.claim(lane, limit, now, lease_until), std::convert::identity).await
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        self.call("still due", self.inner.still_due(wakeup), std::convert::identity).await
    }

    async fn settle_many(
        &self,
        settlements: &[(ClaimedWakeup, Settlement)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.call("settle", self.inner.settle_many(settlements, now), std::convert::identity).await
    }

    fn set_wakeup_quota(&self, quota: WakeupQuota) {
        self.inner.set_wakeup_quota(quota);
    }

    async fn lag(&self, now: UnixMillis) -> Result<OutboxLag, StoreError> {
        self.call("lag", self.inner.lag(now), std::convert::identity).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.call("dead letters", self.inner.dead_letters(limit), std::convert::identity).await
    }

    async fn replay_dead_letters(
        &self,
        selector: DeadLetterSelector,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Replayed, StoreError> {
        let replayed = self.inner.replay_dead_letters(selector, limit, now);
        self.call("replay dead letters", replayed, std::convert::identity).await
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        self.call("purge dead letters", self.inner.purge_dead_letters(before, limit), std::convert::identity)
            .await
    }
}

#[async_trait]
impl Directory for FaultyStore {
    async fn revision(&self) -> Result<u64, StoreError> {
        self.call("revision", self.inner.revision(), std::convert::identity).await
    }

    async fn snapshot(&self) -> Result<DirectorySnapshot, StoreError> {
        self.call("snapshot", self.inner.snapshot(), std::convert::identity).await
    }

    async fn create_tenant(&self, tenant: &Tenant, now: UnixMillis) -> Result<(), DirectoryError> {
        self.call("create tenant", self.inner.create_tenant(tenant, now), DirectoryError::Store).await
    }

    async fn create_user(&self, user: &User, now: UnixMillis) -> Result<(), DirectoryError> {
        self.call("create user", self.inner.create_user(user, now), DirectoryError::Store).await
    }

    async fn set_password(
        &self,
        tenant: TenantId,
        user: UserId,
        password: &StoredPassword,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call("set password", self.inner.set_password(tenant, user, password, now), DirectoryError::Store)
            .await
    }

    async fn remove_user(
        &self,
        tenant: TenantId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call("remove user", self.inner.remove_user(tenant, user, now), DirectoryError::Store).await
    }

    async fn remove_device(
        &self,
        tenant: TenantId,
        device: DeviceId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call("remove device", self.inner.remove_device(tenant, device, now), DirectoryError::Store).await
    }

    async fn ensure_device(
        &self,
        tenant: TenantId,
        user: UserId,
        name: &str,
        now: UnixMillis,
    ) -> Result<DeviceId, DirectoryError> {
        self.call("ensure device", self.inner.ensure_device(tenant, user, name, now), DirectoryError::Store)
            .await
    }

    async fn create_conversation(
        &self,
        conversation: &Conversation,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call(
            "create conversation",
            self.inner.create_conversation(conversation, now),
            DirectoryError::Store,
        )
        .await
    }

    async fn remove_conversation(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call(
            "remove conversation",
            self.inner.remove_conversation(tenant, conversation, now),
            DirectoryError::Store,
        )
        .await
    }

    async fn add_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<Offset, DirectoryError> {
        self.call("add member", self.inner.add_member(tenant, conversation, user, now), DirectoryError::Store)
            .await
    }

    async fn remove_member(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call(
            "remove member",
            self.inner.remove_member(tenant, conversation, user, now),
            DirectoryError::Store,
        )
        .await
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
        let set = self.inner.set_muted(tenant, conversation, user, muted, actor, now);
        self.call("mute conversation", set, DirectoryError::Store).await
    }

    async fn add_acl_rule(
        &self,
        rule: &TenantAclRule,
        position: Option<usize>,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call("add acl rule", self.inner.add_acl_rule(rule, position, now), DirectoryError::Store).await
    }

    async fn remove_acl_rule(
        &self,
        tenant: TenantId,
        rule: AclRuleId,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        self.call("remove acl rule", self.inner.remove_acl_rule(tenant, rule, now), DirectoryError::Store)
            .await
    }
}

#[async_trait]
impl PushRegistry for FaultyStore {
    async fn register(
        &self,
        registration: &PushRegistration,
        actor: Option<UserId>,
    ) -> Result<(), DirectoryError> {
        self.call("register", self.inner.register(registration, actor), DirectoryError::Store).await
    }

    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.call("unregister", self.inner.unregister(tenant, device, actor, now), std::convert::identity)
            .await
    }

    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError> {
        self.call("registrations", self.inner.registrations(tenant), std::convert::identity).await
    }
}

#[async_trait]
impl AuditLog for FaultyStore {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        self.call("record", self.inner.record(events), std::convert::identity).await
    }

    async fn recent(&self, tenant: Option<TenantId>, limit: usize) -> Result<Vec<AuditEvent>, StoreError> {
        self.call("recent", self.inner.recent(tenant, limit), std::convert::identity).await
    }
}

#[async_trait]
impl Retention for FaultyStore {
    async fn retention(&self) -> Result<Vec<TenantRetention>, StoreError> {
        self.call("read retention", self.inner.retention(), std::convert::identity).await
    }

    async fn set_retention(
        &self,
        tenant: TenantId,
        limits: RetentionLimits,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let set = self.inner.set_retention(tenant, limits, now);
        self.call("set retention", set, DirectoryError::Store).await
    }

    async fn set_legal_hold(
        &self,
        tenant: TenantId,
        legal_hold: bool,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let set = self.inner.set_legal_hold(tenant, legal_hold, now);
        self.call("set legal hold", set, DirectoryError::Store).await
    }

    async fn trim(
        &self,
        policy: &RetentionPolicy,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Trimmed, StoreError> {
        self.call("trim log", self.inner.trim(policy, now, limit), std::convert::identity).await
    }
}

#[async_trait]
impl KeyStore for FaultyStore {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        self.call("epoch key", self.inner.epoch_key(tenant, epoch), key_store_error).await
    }

    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        self.call("current epoch key", self.inner.current_epoch_key(tenant), key_store_error).await
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        self.call("insert epoch key", self.inner.insert_epoch_key(key), key_store_error).await
    }

    async fn rewrap_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        from: &[u8],
        to: Bytes,
    ) -> Result<bool, KeyStoreError> {
        self.call("rewrap epoch key", self.inner.rewrap_epoch_key(tenant, epoch, from, to), key_store_error)
            .await
    }

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        self.call("data key", self.inner.data_key(id), key_store_error).await
    }

    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        self.call("current data key", self.inner.current_data_key(tenant, scope), key_store_error).await
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        self.call("insert data key", self.inner.insert_data_key(key), key_store_error).await
    }
}
