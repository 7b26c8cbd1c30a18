//! Every session of this node by tenant and Client Identifier: one owner at a time.

use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, Entry};
use sotto_model::{ClientId, ClientLimits, Principal, TenantId};

use crate::connection_id::ConnectionId;
use crate::router::Router;
use crate::session_entry::{Command, SessionEntry};

/// How long a connection waits for the one before it to let go of the session.
const TAKEOVER_WAIT: Duration = Duration::from_secs(10);

/// The table gives memory back when it is filled to less than one of so many parts, unless it is this small.
const SHRINK_BELOW: usize = 8;
const KEPT_PLACES: usize = 1024;

pub(crate) struct Registry {
    entries: DashMap<(TenantId, ClientId), Arc<SessionEntry>, KeyHasher>,
    /// Entries of each tenant that has any.
    counts: DashMap<TenantId, usize>,
    limits: ClientLimits,
    router: Arc<Router>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Yet another connection came for the same session.
    #[error("session was taken over while waiting for it")]
    Superseded,
    #[error("session is still in use")]
    Busy,
    #[error("tenant has as many sessions as it may")]
    Full,
}

impl Registry {
    pub(crate) fn new(router: Arc<Router>, limits: ClientLimits) -> Self {
        Self { entries: entries(), counts: DashMap::new(), limits, router }
    }

    /// A session that is stored, made known at start.
    pub(crate) fn insert(&self, entry: Arc<SessionEntry>) {
        self.router.add_session(&entry);
        *self.counts.entry(entry.principal.tenant).or_default() += 1;
        self.entries.insert(key(&entry.principal), entry);
    }

    /// Makes the connection the session's owner, sending the owner before it away. [MQTT-3.1.4-3]
    pub(crate) async fn claim(
        &self,
        principal: &Principal,
        connection: ConnectionId,
    ) -> Result<Arc<SessionEntry>, ClaimError> {
        match tokio::time::timeout(TAKEOVER_WAIT, self.claim_in_turn(principal, connection)).await {
            Ok(claimed) => claimed,
            Err(_) => Err(ClaimError::Busy),
        }
    }

    async fn claim_in_turn(
        &self,
        principal: &Principal,
        connection: ConnectionId,
    ) -> Result<Arc<SessionEntry>, ClaimError> {
        loop {
            let waiting = {
                // The shard stays locked until the entry is claimed, or `release` could take it away between.
                let found = match self.entries.entry(key(principal)) {
                    Entry::Occupied(known) => known.into_ref(),
                    Entry::Vacant(place) => {
                        self.count_one_more(principal.tenant)?;
                        place.insert(Arc::new(SessionEntry::new(principal.clone(), &self.limits)))
                    }
                };
                match found.claim(connection) {
                    Ok(()) => {
                        let entry = found.clone();
                        drop(found);
                        self.router.add_session(&entry);
                        return Ok(entry);
                    }
                    Err(waiting) => waiting,
                }
            };
            if waiting.await.is_err() {
                return Err(ClaimError::Superseded);
            }
        }
    }

    /// Lets go of the session; one that does not outlive its connection is forgotten.
    pub(crate) fn release(&self, entry: &Arc<SessionEntry>, connection: ConnectionId) {
        self.router.set_connected(entry, false);
        if !entry.is_stored() {
            // Subscriptions go first: the next owner starts without them.
            self.router.remove_session(entry);
        }
        entry.release(connection);
        if !entry.is_stored() {
            let gone = self
                .entries
                .remove_if(&key(&entry.principal), |_, known| Arc::ptr_eq(known, entry) && !known.is_owned());
            if gone.is_some() {
                self.count_one_less(entry.principal.tenant);
            }
        }
    }

    /// A stored session has expired.
    pub(crate) fn expire(&self, tenant: TenantId, client_id: &ClientId) {
        let gone = self.entries.remove_if(&(tenant, client_id.clone()), |_, entry| !entry.is_owned());
        if let Some((_, entry)) = gone {
            self.count_one_less(tenant);
            self.router.remove_session(&entry);
        }
    }

    /// Ends sessions: their connections are closed, and what is stored of them is no longer known.
    pub(crate) fn revoke(&self, entries: &[Arc<SessionEntry>]) {
        for entry in entries {
            entry.set_stored(None);
            if entry.is_owned() {
                entry.command(Command::Revoked);
            } else {
                self.expire(entry.principal.tenant, &entry.principal.client_id);
            }
        }
    }

    fn count_one_more(&self, tenant: TenantId) -> Result<(), ClaimError> {
        let mut count = self.counts.entry(tenant).or_default();
        if *count >= self.limits.sessions_per_tenant_max {
            return Err(ClaimError::Full);
        }
        *count += 1;
        Ok(())
    }

    fn count_one_less(&self, tenant: TenantId) {
        if let Entry::Occupied(mut count) = self.counts.entry(tenant) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(crate) fn for_each(&self, mut call: impl FnMut(&Arc<SessionEntry>)) {
        self.entries.iter().for_each(|entry| call(entry.value()));
    }

    /// Gives back the memory of many sessions that have gone.
    pub(crate) fn shrink(&self) {
        if self.entries.capacity() / SHRINK_BELOW > self.entries.len().max(KEPT_PLACES) {
            self.entries.shrink_to_fit();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Client Identifiers are chosen by clients: what they hash to is not for them to know.
#[cfg(not(test))]
type KeyHasher = std::hash::RandomState;
/// The same order in every run.
#[cfg(test)]
type KeyHasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

#[cfg(not(test))]
fn entries() -> DashMap<(TenantId, ClientId), Arc<SessionEntry>, KeyHasher> {
    DashMap::with_hasher(KeyHasher::default())
}

/// On every machine.
#[cfg(test)]
fn entries() -> DashMap<(TenantId, ClientId), Arc<SessionEntry>, KeyHasher> {
    DashMap::with_hasher_and_shard_amount(KeyHasher::default(), 4)
}

fn key(principal: &Principal) -> (TenantId, ClientId) {
    (principal.tenant, principal.client_id.clone())
}
