//! All groups of this node, by tenant and filter as subscribed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sotto_model::limits::SHARES_PER_TENANT_MAX;
use sotto_model::{ClientLimits, Offset, Subscription, TenantId, TopicFilter};
use sotto_storage::session_store::SessionRef;

use crate::session_entry::SessionEntry;
use crate::share::group::{Group, GroupFull};

/// What groups need done that is not theirs to do.
pub(crate) trait GroupHost: Send + Sync {
    /// Sees to it that the group's messages are handed out.
    fn drive(&self, group: Arc<Group>);
    /// The group is stored no longer.
    fn forget(&self, session: SessionRef);
}

pub(crate) struct Groups {
    /// Locked whenever a member comes or goes; no message on its way asks for it.
    by_tenant: Mutex<ByTenant>,
    limits: ClientLimits,
    /// Set once the broker is put together.
    host: OnceLock<Box<dyn GroupHost>>,
}

type ByTenant = HashMap<TenantId, HashMap<TopicFilter, Arc<Group>>>;

/// What the router is to know of a group after a member has come or gone.
pub(crate) enum Indexed<'i> {
    Subscribed(&'i Arc<SessionEntry>, &'i Subscription),
    Unsubscribed(&'i Arc<SessionEntry>, &'i Subscription),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReserveError {
    #[error("tenant has as many shared subscriptions as it may")]
    TooMany,
    #[error(transparent)]
    Full(#[from] GroupFull),
}

impl Groups {
    pub(crate) fn new(limits: ClientLimits) -> Self {
        Self { by_tenant: Mutex::new(HashMap::new()), limits, host: OnceLock::new() }
    }

    pub(crate) fn hosted_by(&self, host: impl GroupHost + 'static) {
        self.host.get_or_init(|| Box::new(host));
    }

    /// The group of a subscription that is being made; it stays until it is released.
    pub(crate) fn reserve(
        &self,
        entry: &Arc<SessionEntry>,
        filter: &TopicFilter,
        head: Offset,
    ) -> Result<Arc<Group>, ReserveError> {
        let mut by_tenant = self.by_tenant.lock();
        let groups = by_tenant.get(&entry.principal.tenant);
        if groups.is_some_and(|groups| groups.len() >= SHARES_PER_TENANT_MAX && !groups.contains_key(filter))
        {
            return Err(ReserveError::TooMany);
        }
        let group = self.group(&mut by_tenant, entry, filter, head);
        group.hold(entry)?;
        Ok(group)
    }

    pub(crate) fn release(&self, group: &Arc<Group>) {
        let mut by_tenant = self.by_tenant.lock();
        group.release();
        self.end_if_due(&mut by_tenant, group);
    }

    /// `index` is called before another member comes or goes.
    pub(crate) fn join(
        &self,
        entry: &Arc<SessionEntry>,
        subscription: &Subscription,
        index: impl FnOnce(Indexed<'_>),
    ) {
        let mut by_tenant = self.by_tenant.lock();
        let group = self.group(&mut by_tenant, entry, &subscription.filter, subscription.since);
        let own = group.join(entry, subscription);
        index(Indexed::Subscribed(&group.entry, &own));
        // With another QoS it may be stored no longer.
        self.end_if_due(&mut by_tenant, &group);
    }

    pub(crate) fn leave(
        &self,
        entry: &Arc<SessionEntry>,
        subscription: &Subscription,
        index: impl FnOnce(Indexed<'_>),
    ) {
        let mut by_tenant = self.by_tenant.lock();
        let groups = by_tenant.get(&entry.principal.tenant);
        let Some(group) = groups.and_then(|groups| groups.get(&subscription.filter)).cloned() else { return };
        match group.leave(entry) {
            Some(own) => index(Indexed::Subscribed(&group.entry, &own)),
            None => {
                // One, or none if the session was not a member.
                if let Some(own) = group.entry.set_subscriptions(Vec::new()).first() {
                    index(Indexed::Unsubscribed(&group.entry, own));
                }
            }
        }
        self.end_if_due(&mut by_tenant, &group);
    }

    pub(crate) fn set_connected(&self, entry: &Arc<SessionEntry>, connected: bool) {
        let by_tenant = self.by_tenant.lock();
        let Some(groups) = by_tenant.get(&entry.principal.tenant) else { return };
        entry.with_subscriptions(|subscriptions| {
            for subscription in subscriptions {
                if let Some(group) = groups.get(&subscription.filter) {
                    group.set_connected(entry, connected);
                }
            }
        });
    }

    /// In the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.by_tenant.lock().values().flat_map(HashMap::values).cloned().collect();
        groups.sort_by(|a, b| {
            (a.entry.principal.tenant, &a.filter).cmp(&(b.entry.principal.tenant, &b.filter))
        });
        groups
    }

    fn group(
        &self,
        by_tenant: &mut ByTenant,
        entry: &SessionEntry,
        filter: &TopicFilter,
        head: Offset,
    ) -> Arc<Group> {
        let groups = by_tenant.entry(entry.principal.tenant).or_default();
        if let Some(known) = groups.get(filter) {
            return known.clone();
        }
        let group = Arc::new(Group::new(&entry.principal, filter.clone(), head, &self.limits));
        groups.insert(filter.clone(), group.clone());
        if let Some(host) = self.host.get() {
            host.drive(group.clone());
        }
        group
    }

    /// A group ends with its last member, and is stored for as long as a member is that outlives its
    /// connection.
    fn end_if_due(&self, by_tenant: &mut ByTenant, group: &Arc<Group>) {
        if let Some(session) = group.entry.stored()
            && !group.is_to_be_stored()
        {
            group.entry.set_stored(None);
            if let Some(host) = self.host.get() {
                host.forget(session);
            }
        }
        if group.is_vacant() {
            group.ended.cancel();
            let tenant = group.entry.principal.tenant;
            if let Some(groups) = by_tenant.get_mut(&tenant) {
                groups.remove(&group.filter);
                if groups.is_empty() {
                    by_tenant.remove(&tenant);
                }
            }
        }
    }
}
