//! The unwrapped keys of this process: bounded in number and in age.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sotto_model::TenantId;

use crate::data_key::{DataKey, EpochKey, Moment};
use crate::key_request::KeyRequest;
use crate::key_scope::{Epoch, KeyId, KeyScope};
use crate::limits::{KEY_REFRESH_PERCENT, KeyringLimits};

pub(crate) struct KeyCache {
    limits: KeyringLimits,
    data_keys: HashMap<KeyId, Arc<DataKey>>,
    /// Which key of a scope seals; always one of `data_keys`.
    current: HashMap<(TenantId, KeyScope), Current>,
    epoch_keys: HashMap<(TenantId, Epoch), Arc<EpochKey>>,
    current_epochs: HashMap<TenantId, (Epoch, Moment)>,
}

struct Current {
    key: Arc<DataKey>,
    /// When the store was last asked which key and epoch are the latest.
    checked_at: Moment,
}

impl KeyCache {
    pub(crate) fn new(limits: KeyringLimits) -> Self {
        Self {
            limits,
            data_keys: HashMap::new(),
            current: HashMap::new(),
            epoch_keys: HashMap::new(),
            current_epochs: HashMap::new(),
        }
    }

    /// The key that seals in a scope; `None` where it must be fetched first.
    pub(crate) fn current(&self, tenant: TenantId, scope: KeyScope, now: Moment) -> Option<&Arc<DataKey>> {
        let current = self.current.get(&(tenant, scope))?;
        let usable = self.is_fresh(current.checked_at.age(now))
            && self.is_fresh(current.key.age(now))
            && current.key.seals() < self.limits.seals_per_load_max;
        usable.then_some(&current.key)
    }

    /// The key of that id, for opening; `None` where it must be fetched first.
    pub(crate) fn data_key(&self, id: KeyId, now: Moment) -> Option<&Arc<DataKey>> {
        self.data_keys.get(&id).filter(|key| self.is_fresh(key.age(now)))
    }

    /// The key of that id however old it is: for what outlives a fetch.
    pub(crate) fn stale_data_key(&self, id: KeyId) -> Option<&Arc<DataKey>> {
        self.data_keys.get(&id)
    }

    pub(crate) fn epoch_key(&self, tenant: TenantId, epoch: Epoch, now: Moment) -> Option<&Arc<EpochKey>> {
        self.epoch_keys.get(&(tenant, epoch)).filter(|key| self.is_fresh(key.verified_at().age(now)))
    }

    /// The tenant's latest epoch, and when the store last said so; not older than `age_max`.
    pub(crate) fn current_epoch(
        &self,
        tenant: TenantId,
        age_max: Duration,
        now: Moment,
    ) -> Option<(Epoch, Moment)> {
        self.current_epochs.get(&tenant).copied().filter(|(_, checked_at)| checked_at.age(now) <= age_max)
    }

    pub(crate) fn insert_data_key(&mut self, key: Arc<DataKey>) {
        if !self.data_keys.contains_key(&key.id) && self.data_keys.len() >= self.limits.cached_keys_max {
            self.evict_data_keys();
        }
        if let Some(current) = self.current.get_mut(&(key.tenant, key.scope))
            && current.key.id == key.id
        {
            current.key = Arc::clone(&key);
        }
        self.data_keys.insert(key.id, key);
    }

    pub(crate) fn insert_current(&mut self, key: Arc<DataKey>, checked_at: Moment) {
        let scope = (key.tenant, key.scope);
        self.insert_data_key(Arc::clone(&key));
        self.current.insert(scope, Current { key, checked_at });
    }

    /// Returns the key to use: the one held already where the key service gave out the same again.
    pub(crate) fn insert_epoch_key(&mut self, key: EpochKey) -> Arc<EpochKey> {
        let place = (key.tenant, key.epoch);
        if let Some(held) = self.epoch_keys.get(&place)
            && held.verified_again(&key)
        {
            return Arc::clone(held);
        }
        if self.epoch_keys.len() >= self.limits.cached_keys_max {
            evict_oldest(&mut self.epoch_keys, |key| key.verified_at());
        }
        let key = Arc::new(key);
        self.epoch_keys.insert(place, Arc::clone(&key));
        key
    }

    pub(crate) fn set_current_epoch(&mut self, tenant: TenantId, epoch: Epoch, now: Moment) {
        if !self.current_epochs.contains_key(&tenant)
            && self.current_epochs.len() >= self.limits.cached_keys_max
        {
            evict_oldest(&mut self.current_epochs, |(_, checked_at)| *checked_at);
        }
        self.current_epochs.insert(tenant, (epoch, now));
    }

    /// What seals for this tenant is asked for again.
    pub(crate) fn forget_current(&mut self, tenant: TenantId) {
        self.current_epochs.remove(&tenant);
        self.current.retain(|(of, _), _| *of != tenant);
    }

    /// Nothing of this tenant opens or seals until its keys are fetched again.
    pub(crate) fn forget_tenant(&mut self, tenant: TenantId) {
        self.forget_current(tenant);
        self.data_keys.retain(|_, key| key.tenant != tenant);
        self.epoch_keys.retain(|(of, _), _| *of != tenant);
    }

    /// Drops what is too old, and names what is in use and soon will be, epoch keys first.
    pub(crate) fn refresh_due(&mut self, now: Moment) -> Vec<KeyRequest> {
        let age_max = self.limits.key_age_max;
        self.data_keys.retain(|_, key| key.age(now) <= age_max);
        self.current.retain(|_, current| current.key.age(now) <= age_max);
        self.epoch_keys.retain(|_, key| key.verified_at().age(now) <= age_max);
        self.current_epochs.retain(|_, (_, checked_at)| checked_at.age(now) <= age_max);

        let refresh_age = age_max * KEY_REFRESH_PERCENT / 100;
        let refresh_seals = self.limits.seals_per_load_max / 100 * KEY_REFRESH_PERCENT;
        let mut epochs = Vec::new();
        let mut keys = Vec::new();
        for key in self.data_keys.values().filter(|key| key.used_at() > key.loaded_at()) {
            if key.epoch_key.verified_at().age(now) >= refresh_age {
                epochs.push(KeyRequest::epoch(key.tenant, key.epoch_key.epoch));
            }
            let current =
                self.current.get(&(key.tenant, key.scope)).filter(|current| current.key.id == key.id);
            let due = key.loaded_at().age(now) >= refresh_age
                || key.seals() >= refresh_seals.max(1)
                || current.is_some_and(|current| current.checked_at.age(now) >= refresh_age);
            if due {
                keys.push(match current {
                    Some(_) => KeyRequest::current(key.tenant, key.scope),
                    None => KeyRequest::by_id(key.tenant, key.id),
                });
            }
        }
        epochs.sort_unstable();
        epochs.dedup();
        epochs.append(&mut keys);
        epochs
    }

    fn is_fresh(&self, age: Duration) -> bool {
        age <= self.limits.key_age_max
    }

    fn evict_data_keys(&mut self) {
        evict_oldest(&mut self.data_keys, |key| key.used_at());
        let data_keys = &self.data_keys;
        self.current.retain(|_, current| data_keys.contains_key(&current.key.id));
    }
}

/// Drops the eighth that was used longest ago: each insertion pays for few steps, as a scan at every one
/// would not.
fn evict_oldest<K: Copy + Eq + std::hash::Hash, V>(
    entries: &mut HashMap<K, V>,
    used_at: impl Fn(&V) -> Moment,
) {
    let mut by_use: Vec<(Moment, K)> = entries.iter().map(|(key, value)| (used_at(value), *key)).collect();
    let count = by_use.len().div_ceil(8);
    if count < by_use.len() {
        by_use.select_nth_unstable_by_key(count, |(used_at, _)| *used_at);
    }
    for (_, key) in &by_use[..count] {
        entries.remove(key);
    }
}
