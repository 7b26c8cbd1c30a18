//! Which live sessions a message goes to.
//!
//! Topics under `c/` of a tenant with guarded topics are routed by membership: the members' sessions are
//! asked for matching subscriptions, so that a removed member is out with the removal, and a wildcard
//! follows membership without a new SUBSCRIBE. All other topics are routed by the tenant's topic tree.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::RwLock;
use sotto_auth::Policy;
use sotto_model::{ClientLimits, QoS, Subscription, TenantId, TopicName, TopicPolicy, TopicScope, UserId};

use crate::metrics::{Drop, dropped};
use crate::record::Record;
use crate::session_entry::{Delivery, Grant, Posted, SessionEntry, Terms};
use crate::share::groups::{Groups, Indexed};
use crate::topic_tree::TopicTree;

/// Beside one filter: a session has at most one subscription of it in the tree, for what it shares is its
/// group's.
#[derive(Clone)]
struct Subscriber {
    entry: Arc<SessionEntry>,
    terms: Terms,
}

pub(crate) struct Router {
    policy: Arc<Policy>,
    /// A tenant's topics but those of conversations.
    trees: DashMap<TenantId, Arc<RwLock<TopicTree<Subscriber>>>>,
    /// Every session of a user, in tenants with guarded topics.
    sessions: DashMap<(TenantId, UserId), Vec<Arc<SessionEntry>>>,
    /// Shared subscriptions: what comes to their members is the groups' business.
    pub(crate) groups: Groups,
}

impl Router {
    pub(crate) fn new(policy: Arc<Policy>, limits: ClientLimits) -> Self {
        Self { policy, trees: DashMap::new(), sessions: DashMap::new(), groups: Groups::new(limits) }
    }

    /// Makes a session known; its conversations reach it from here on.
    pub(crate) fn add_session(&self, entry: &Arc<SessionEntry>) {
        if entry.principal.topics == TopicPolicy::Membership {
            let mut sessions = self.sessions.entry(user_of(entry)).or_default();
            if !sessions.iter().any(|known| Arc::ptr_eq(known, entry)) {
                sessions.push(entry.clone());
            }
        }
    }

    /// Forgets a session and its subscriptions.
    pub(crate) fn remove_session(&self, entry: &Arc<SessionEntry>) {
        self.remove_subscriptions(entry, &entry.set_subscriptions(Vec::new()));
        if let Some(mut sessions) = self.sessions.get_mut(&user_of(entry)) {
            sessions.retain(|known| !Arc::ptr_eq(known, entry));
        }
        self.sessions.remove_if(&user_of(entry), |_, sessions| sessions.is_empty());
    }

    /// Indexes a subscription that the entry holds.
    pub(crate) fn subscribe(&self, entry: &Arc<SessionEntry>, subscription: &Subscription) {
        if subscription.filter.share_name().is_some() {
            self.groups.join(entry, subscription, |indexed| self.index(&indexed));
        } else {
            self.index(&Indexed::Subscribed(entry, subscription));
        }
    }

    pub(crate) fn unsubscribe(&self, entry: &Arc<SessionEntry>, subscription: &Subscription) {
        if subscription.filter.share_name().is_some() {
            self.groups.leave(entry, subscription, |indexed| self.index(&indexed));
        } else {
            self.index(&Indexed::Unsubscribed(entry, subscription));
        }
    }

    /// A connection of the session has begun, or ended: its groups hand out to it, or to others.
    pub(crate) fn set_connected(&self, entry: &Arc<SessionEntry>, connected: bool) {
        if !entry.desk.is_used() {
            return;
        }
        if !connected {
            drop(entry.desk.set_room(0));
        }
        self.groups.set_connected(entry, connected);
    }

    fn index(&self, indexed: &Indexed<'_>) {
        match indexed {
            Indexed::Subscribed(entry, subscription) => self.insert(entry, subscription),
            Indexed::Unsubscribed(entry, subscription) => self.remove(entry, subscription),
        }
    }

    fn insert(&self, entry: &Arc<SessionEntry>, subscription: &Subscription) {
        if is_by_membership(entry, subscription) {
            return;
        }
        let subscriber = Subscriber { entry: entry.clone(), terms: Terms::of(subscription) };
        // The map's guard is held until the insert is done, or an empty tree could be dropped between.
        let tree = self
            .trees
            .entry(entry.principal.tenant)
            .or_insert_with(|| Arc::new(RwLock::new(TopicTree::new())));
        tree.write().insert(&subscription.filter, subscriber, |known| Arc::ptr_eq(&known.entry, entry));
    }

    fn remove(&self, entry: &Arc<SessionEntry>, subscription: &Subscription) {
        if is_by_membership(entry, subscription) {
            return;
        }
        let tree = self.trees.get(&entry.principal.tenant).map(|tree| tree.clone());
        if let Some(tree) = tree {
            tree.write().remove(&subscription.filter, |known| Arc::ptr_eq(&known.entry, entry));
        }
    }

    /// Puts `subscriptions` in the place of those that the entry holds.
    pub(crate) fn replace_subscriptions(&self, entry: &Arc<SessionEntry>, subscriptions: Vec<Subscription>) {
        for subscription in &subscriptions {
            self.subscribe(entry, subscription);
        }
        let mut gone = entry.set_subscriptions(subscriptions);
        entry.with_subscriptions(|held| gone.retain(|old| !held.iter().any(|new| new.filter == old.filter)));
        self.remove_subscriptions(entry, &gone);
    }

    /// Is there a session to which a QoS 1 or 2 message has to come by the log: one that outlives its
    /// connection, or one whose mailbox is crowded?
    pub(crate) fn has_subscriber_by_log(&self, tenant: TenantId, topic: &TopicName) -> bool {
        let mut wanted = false;
        self.with_tree(tenant, |tree| {
            tree.matching(topic, |subscriber| {
                let entry = &subscriber.entry;
                wanted |= subscriber.terms.options.qos != QoS::AtMostOnce
                    && (entry.is_stored() || entry.needs_the_log());
            });
        });
        wanted
    }

    /// Posts a message to every live session that it is for. False when no session subscribes to it, as far
    /// as its publisher may know: of conversations and inboxes nobody is told who listens.
    pub(crate) fn fan_out(&self, record: &Arc<Record>) -> bool {
        let tenant = record.message.tenant;
        let guarded = self.policy.topics(tenant) == Some(TopicPolicy::Membership);
        if guarded && let TopicScope::Conversation(conversation) = record.scope() {
            for member in self.policy.members(tenant, conversation).as_deref().unwrap_or_default() {
                if record.offset().is_some_and(|offset| offset <= member.since) {
                    continue;
                }
                let Some(sessions) = self.sessions.get(&(tenant, member.user)) else { continue };
                for entry in sessions.iter() {
                    if let Some(grant) = entry.grant(record) {
                        post(entry, record, grant);
                    }
                }
            }
            return true;
        }
        let mut matches: Vec<(Arc<SessionEntry>, Grant)> = Vec::new();
        self.with_tree(tenant, |tree| {
            let mut found: smallvec::SmallVec<[&Subscriber; 16]> = smallvec::SmallVec::new();
            tree.matching(&record.message.topic, |subscriber| {
                if subscriber.entry.takes(subscriber.terms.options, record) {
                    found.push(subscriber);
                }
            });
            // Overlapping subscriptions of one session come to stand side by side. Sessions stand in the order of
            // their tags, which is the same in every run; two with one tag are told apart by where they lie.
            if found.len() > 1 {
                found.sort_by_key(|subscriber| (subscriber.entry.tag, Arc::as_ptr(&subscriber.entry)));
            }
            for subscriber in found {
                match matches.last_mut() {
                    Some((entry, grant)) if Arc::ptr_eq(entry, &subscriber.entry) => {
                        grant.merge(subscriber.terms, record);
                    }
                    _ => {
                        matches.push((subscriber.entry.clone(), Grant::of(subscriber.terms, record)));
                    }
                }
            }
        });
        let subscribed = !matches.is_empty();
        for (entry, grant) in matches {
            post(&entry, record, grant);
        }
        subscribed || guarded && record.scope() != TopicScope::Other
    }

    fn with_tree(&self, tenant: TenantId, read: impl FnOnce(&TopicTree<Subscriber>)) {
        let tree = self.trees.get(&tenant).map(|tree| tree.clone());
        if let Some(tree) = tree {
            read(&tree.read());
        }
    }

    fn remove_subscriptions(&self, entry: &Arc<SessionEntry>, subscriptions: &[Subscription]) {
        for subscription in subscriptions {
            self.unsubscribe(entry, subscription);
        }
        self.trees.remove_if(&entry.principal.tenant, |_, tree| tree.read().is_empty());
    }
}

fn post(entry: &Arc<SessionEntry>, record: &Arc<Record>, grant: Grant) {
    let delivery = Delivery { record: record.clone(), grant };
    if entry.post(delivery) == Posted::Dropped && entry.is_owned() {
        dropped(Drop::MailboxFull);
    }
}

fn user_of(entry: &SessionEntry) -> (TenantId, UserId) {
    (entry.principal.tenant, entry.principal.user)
}

/// Is the subscription found through its user's conversations, and not through the tree?
fn is_by_membership(entry: &SessionEntry, subscription: &Subscription) -> bool {
    entry.principal.topics == TopicPolicy::Membership && subscription.filter.as_str().starts_with("c/")
}

#[cfg(test)]
mod tests;
