//! The real outbox behind a connection that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use sotto_model::UnixMillis;
use sotto_sqlite::SqliteStore;
use sotto_storage::StoreError;
use sotto_storage::outbox::{
    ClaimedWakeup, DeadLetter, DeadLetterSelector, Outbox, OutboxLag, Relayed, Replayed, Settlement,
};
use sotto_storage::push_registry::Lane;
use sotto_storage::wakeup_quota::WakeupQuota;

pub(crate) struct FlakyOutbox {
    store: Arc<SqliteStore>,
    /// Everything fails.
    away: AtomicBool,
    /// Settling fails.
    settles_lost: AtomicBool,
}

impl FlakyOutbox {
    pub(crate) fn new(store: Arc<SqliteStore>) -> Self {
        Self { store, away: AtomicBool::new(false), settles_lost: AtomicBool::new(false) }
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn lose_settlements(&self, lose: bool) {
        self.settles_lost.store(lose, Ordering::SeqCst);
    }

    fn ask(&self) -> Result<&SqliteStore, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { operation: "outbox", code: "test".into() });
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl Outbox for FlakyOutbox {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        self.ask()?.relay(limit, now).await
    }

    async fn claim(
        &self,
        lane: &Lane,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        self.ask()?.claim(lane, limit, now, lease_until).await
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        self.ask()?.still_due(wakeup).await
    }

    async fn settle_many(
        &self,
        settlements: &[(ClaimedWakeup, Settlement)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if self.settles_lost.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { operation: "settle", code: "test".into() });
        }
        self.ask()?.settle_many(settlements, now).await
    }

    fn set_wakeup_quota(&self, quota: WakeupQuota) {
        self.store.set_wakeup_quota(quota);
    }

    async fn lag(&self, now: UnixMillis) -> Result<OutboxLag, StoreError> {
        self.ask()?.lag(now).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.ask()?.dead_letters(limit).await
    }

    async fn replay_dead_letters(
        &self,
        selector: DeadLetterSelector,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Replayed, StoreError> {
        self.ask()?.replay_dead_letters(selector, limit, now).await
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        self.ask()?.purge_dead_letters(before, limit).await
    }
}
