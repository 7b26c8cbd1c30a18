//! Who may publish, subscribe and receive: the memberships of every tenant, in memory.
//!
//! | topic                | publish                              | subscribe and receive            |
//! |----------------------|--------------------------------------|----------------------------------|
//! | `c/<conversation>/…` | members                              | members, past their offset       |
//! | `c/+/…`, `c/#`       | –                                    | everybody: *my* conversations    |
//! | `u/<user>/…`         | the user, and who shares a           | the user                         |
//! |                      | conversation with them               |                                  |
//! | anything else        | as the tenant's access rules say, else nobody | the same                |
//!
//! Everything else under `c/` and `u/` is refused, rules or not. In a tenant of [`TopicPolicy::Open`]
//! everything is allowed that its access rules do not deny; in others nobody publishes to `$…`. A tenant
//! that is not known is allowed nothing.
//!
//! A subscription is granted when rules allow all of what it asks for. What they deny a part of is granted,
//! and that part is withheld message by message.
//!
//! Reading takes a lock of one map shard for a lookup. Writers take turns; each change is seen whole by
//! whoever asks after it returned.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use sotto_model::{
    AclEffect, AclRule, ConversationId, FilterScope, Offset, Principal, TenantId, TopicFilter, TopicName,
    TopicPolicy, TopicScope, UserId,
};

use crate::acl::Acl;
use crate::journal::{Journal, Load, LoadError};
use crate::permit::{Denied, PublishPermit};

pub struct Policy {
    tables: Tables,
    /// Held by whoever changes the tables, for the length of the change.
    journal: Mutex<Journal<Change>>,
}

/// One member of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub user: UserId,
    /// Messages after this offset are theirs to receive.
    pub since: Offset,
}

/// One member of one conversation, as loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub tenant: TenantId,
    pub conversation: ConversationId,
    pub user: UserId,
    pub since: Offset,
}

/// The whole set, as loaded.
#[derive(Clone, Debug, Default)]
pub struct PolicySnapshot {
    pub tenants: Vec<(TenantId, TopicPolicy)>,
    pub conversations: Vec<(TenantId, ConversationId)>,
    pub memberships: Vec<Membership>,
    /// In the order in which they are asked.
    pub acl_rules: Vec<(TenantId, AclRule)>,
}

impl Policy {
    /// Knows no tenant, so it denies everything.
    pub fn new() -> Self {
        Self { tables: Tables::default(), journal: Mutex::new(Journal::new()) }
    }

    /// Call it before the first row of a snapshot is read.
    pub fn begin_load(&self) -> Load {
        self.journal.lock().begin()
    }

    /// Makes the snapshot, and what has changed since the load began, the whole truth. Who is a member
    /// before and after is one all along. On an error nothing has changed: load again.
    pub fn replace(&self, load: Load, snapshot: PolicySnapshot) -> Result<(), LoadError> {
        let loaded = Tables::from(snapshot);
        let mut journal = self.journal.lock();
        for change in journal.finish(load)? {
            loaded.apply(change);
        }
        self.tables.become_like(loaded);
        Ok(())
    }

    pub fn add_tenant(&self, tenant: TenantId, topics: TopicPolicy) {
        self.change(Change::AddTenant(tenant, topics));
    }

    /// With the tenant go its conversations and access rules.
    pub fn remove_tenant(&self, tenant: TenantId) {
        self.change(Change::RemoveTenant(tenant));
    }

    pub fn add_conversation(&self, tenant: TenantId, conversation: ConversationId) {
        self.change(Change::AddConversation(tenant, conversation));
    }

    pub fn remove_conversation(&self, tenant: TenantId, conversation: ConversationId) {
        self.change(Change::RemoveConversation(tenant, conversation));
    }

    /// Whoever is a member already is one since `since` from here on.
    pub fn add_member(&self, tenant: TenantId, conversation: ConversationId, user: UserId, since: Offset) {
        self.change(Change::AddMember(Membership { tenant, conversation, user, since }));
    }

    pub fn remove_member(&self, tenant: TenantId, conversation: ConversationId, user: UserId) {
        self.change(Change::RemoveMember(tenant, conversation, user));
    }

    /// Ends every membership of the user.
    pub fn remove_user(&self, tenant: TenantId, user: UserId) {
        self.change(Change::RemoveUser(tenant, user));
    }

    pub fn permit_publish(&self, principal: &Principal, topic: &TopicName) -> Result<PublishPermit, Denied> {
        let tenant = principal.tenant;
        let topics = self.topics(tenant).ok_or(Denied)?;
        // §4.7.2 would have the server keep clients from exchanging messages under '$'; in an open tenant there
        // is nothing of the server's to keep them from.
        if topics == TopicPolicy::Membership && topic.as_str().starts_with('$') {
            return Err(Denied);
        }
        let by_rule = || self.acl(tenant).and_then(|acl| acl.publish(principal, topic));
        let conversation = match topics {
            TopicPolicy::Open if by_rule() == Some(AclEffect::Deny) => return Err(Denied),
            TopicPolicy::Open => None,
            TopicPolicy::Membership => match topic.scope() {
                TopicScope::Conversation(conversation) => {
                    self.member_since(tenant, conversation, principal.user).ok_or(Denied)?;
                    Some(conversation)
                }
                TopicScope::Inbox(owner)
                    if owner == principal.user
                        || self.share_a_conversation(tenant, owner, principal.user) =>
                {
                    None
                }
                TopicScope::Other
                    if !is_by_membership(topic.as_str()) && by_rule() == Some(AclEffect::Allow) =>
                {
                    None
                }
                TopicScope::Inbox(_) | TopicScope::Other => return Err(Denied),
            },
        };
        Ok(PublishPermit::new(tenant, principal.user, topic.clone(), conversation))
    }

    pub fn permit_subscribe(&self, principal: &Principal, filter: &TopicFilter) -> Result<(), Denied> {
        let tenant = principal.tenant;
        let by_rule = || self.acl(tenant).and_then(|acl| acl.subscribe(principal, filter));
        let allowed = match self.topics(tenant).ok_or(Denied)? {
            TopicPolicy::Open => by_rule() != Some(AclEffect::Deny),
            // A share would hand one member's messages to another.
            TopicPolicy::Membership if filter.share_name().is_some() && may_be_by_membership(filter) => false,
            TopicPolicy::Membership => match filter.scope() {
                FilterScope::MyConversations => true,
                FilterScope::Conversation(conversation) => {
                    self.member_since(tenant, conversation, principal.user).is_some()
                }
                FilterScope::Inbox(owner) => owner == principal.user,
                FilterScope::Other if is_by_membership(filter.as_str()) => false,
                FilterScope::Other => by_rule() == Some(AclEffect::Allow),
            },
        };
        if allowed { Ok(()) } else { Err(Denied) }
    }

    /// Asked at every delivery, however the message came: live, caught up, retained or a will.
    pub fn may_receive(&self, principal: &Principal, topic: &TopicName, offset: Offset) -> bool {
        let tenant = principal.tenant;
        let by_rule = || self.acl(tenant).and_then(|acl| acl.receive(principal, topic));
        match self.topics(tenant) {
            None => false,
            Some(TopicPolicy::Open) => by_rule() != Some(AclEffect::Deny),
            Some(TopicPolicy::Membership) => match topic.scope() {
                TopicScope::Conversation(conversation) => self
                    .member_since(tenant, conversation, principal.user)
                    .is_some_and(|since| offset > since),
                TopicScope::Inbox(owner) => owner == principal.user,
                TopicScope::Other if is_by_membership(topic.as_str()) => false,
                TopicScope::Other => by_rule() == Some(AclEffect::Allow),
            },
        }
    }

    /// Has any tenant access rules? Where none has, nobody pays for asking.
    pub fn has_acl_rules(&self) -> bool {
        self.tables.has_acls.load(Ordering::Acquire)
    }

    fn acl(&self, tenant: TenantId) -> Option<Arc<Acl>> {
        if !self.has_acl_rules() {
            return None;
        }
        self.tables.acls.get(&tenant).map(|acl| Arc::clone(&acl))
    }

    pub fn topics(&self, tenant: TenantId) -> Option<TopicPolicy> {
        self.tables.tenants.get(&tenant).map(|topics| *topics)
    }

    /// The members of a conversation as of this moment, by user id; `None` where there is none.
    pub fn members(&self, tenant: TenantId, conversation: ConversationId) -> Option<Arc<[Member]>> {
        self.tables.conversations.get(&(tenant, conversation)).map(|members| Arc::clone(&members))
    }

    pub fn member_since(
        &self,
        tenant: TenantId,
        conversation: ConversationId,
        user: UserId,
    ) -> Option<Offset> {
        self.tables.conversations.get(&(tenant, conversation))?.since(user)
    }

    /// The user's conversations, each with the offset since which they are a member.
    pub fn conversations_of(&self, tenant: TenantId, user: UserId) -> Vec<(ConversationId, Offset)> {
        let joined = self.tables.users.get(&(tenant, user)).map(|joined| Arc::clone(&joined));
        joined.map_or_else(Vec::new, |joined| joined.iter().map(|&entry| entry.into()).collect())
    }

    fn share_a_conversation(&self, tenant: TenantId, one: UserId, other: UserId) -> bool {
        let joined = |user| self.tables.users.get(&(tenant, user)).map(|joined| Arc::clone(&joined));
        let (Some(one), Some(other)) = (joined(one), joined(other)) else { return false };
        let (fewer, more) = if one.len() <= other.len() { (one, other) } else { (other, one) };
        fewer.iter().any(|entry| more.since(entry.conversation).is_some())
    }

    fn change(&self, change: Change) {
        let mut journal = self.journal.lock();
        journal.record(change);
        self.tables.apply(change);
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy)]
enum Change {
    AddTenant(TenantId, TopicPolicy),
    RemoveTenant(TenantId),
    AddConversation(TenantId, ConversationId),
    RemoveConversation(TenantId, ConversationId),
    AddMember(Membership),
    RemoveMember(TenantId, ConversationId, UserId),
    RemoveUser(TenantId, UserId),
}

/// Governed by membership alone: whatever is under `c/` and `u/`.
fn is_by_membership(topic_or_filter: &str) -> bool {
    matches!(topic_or_filter.split('/').next(), Some("c" | "u"))
}

/// Can the filter match something that membership governs?
fn may_be_by_membership(filter: &TopicFilter) -> bool {
    is_by_membership(filter.as_str()) || filter.as_str().starts_with(['+', '#'])
}

/// The same memberships twice: by conversation for publish and delivery, by user for the rest.
#[derive(Default)]
struct Tables {
    tenants: DashMap<TenantId, TopicPolicy>,
    /// Of tenants that have rules.
    acls: DashMap<TenantId, Arc<Acl>>,
    /// Is there an entry in `acls`?
    has_acls: AtomicBool,
    conversations: DashMap<(TenantId, ConversationId), Arc<[Member]>>,
    users: DashMap<(TenantId, UserId), Arc<[Joined]>>,
}

/// One conversation of a user.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Joined {
    conversation: ConversationId,
    since: Offset,
}

impl Tables {
    fn apply(&self, change: Change) {
        match change {
            Change::AddTenant(tenant, topics) => {
                self.tenants.insert(tenant, topics);
            }
            Change::RemoveTenant(tenant) => {
                self.tenants.remove(&tenant);
                self.acls.remove(&tenant);
                self.conversations.retain(|(of, _), _| *of != tenant);
                self.users.retain(|(of, _), _| *of != tenant);
            }
            Change::AddConversation(tenant, conversation) => {
                self.conversations.entry((tenant, conversation)).or_default();
            }
            Change::RemoveConversation(tenant, conversation) => {
                let removed = self.conversations.remove(&(tenant, conversation));
                for member in removed.iter().flat_map(|(_, members)| members.iter()) {
                    self.leave(tenant, conversation, member.user);
                }
            }
            Change::AddMember(Membership { tenant, conversation, user, since }) => {
                let mut members = self.conversations.entry((tenant, conversation)).or_default();
                *members = members.with(Member { user, since });
                drop(members);
                let mut joined = self.users.entry((tenant, user)).or_default();
                *joined = joined.with(Joined { conversation, since });
            }
            Change::RemoveMember(tenant, conversation, user) => {
                if let Some(mut members) = self.conversations.get_mut(&(tenant, conversation)) {
                    *members = members.without(user);
                }
                self.leave(tenant, conversation, user);
            }
            Change::RemoveUser(tenant, user) => {
                let joined = self.users.get(&(tenant, user)).map(|joined| Arc::clone(&joined));
                for entry in joined.iter().flat_map(|joined| joined.iter()) {
                    self.apply(Change::RemoveMember(tenant, entry.conversation, user));
                }
            }
        }
    }

    /// A user without a conversation keeps no entry.
    fn leave(&self, tenant: TenantId, conversation: ConversationId, user: UserId) {
        if let Some(mut joined) = self.users.get_mut(&(tenant, user)) {
            *joined = joined.without(conversation);
        }
        self.users.remove_if(&(tenant, user), |_, joined| joined.is_empty());
    }

    /// Entry by entry, so that no entry which stays is missing at any moment.
    fn become_like(&self, loaded: Self) {
        self.tenants.retain(|tenant, _| loaded.tenants.contains_key(tenant));
        self.conversations.retain(|key, _| loaded.conversations.contains_key(key));
        self.users.retain(|key, _| loaded.users.contains_key(key));
        // A tenant's rules come before the tenant: nothing is open for a moment that they deny.
        let has_acls = !loaded.acls.is_empty();
        self.has_acls.fetch_or(has_acls, Ordering::AcqRel);
        self.acls.retain(|tenant, _| loaded.acls.contains_key(tenant));
        for (tenant, acl) in loaded.acls {
            self.acls.insert(tenant, acl);
        }
        self.has_acls.store(has_acls, Ordering::Release);
        for (tenant, topics) in loaded.tenants {
            self.tenants.insert(tenant, topics);
        }
        for (key, members) in loaded.conversations {
            self.conversations.insert(key, members);
        }
        for (key, joined) in loaded.users {
            self.users.insert(key, joined);
        }
    }
}

impl From<PolicySnapshot> for Tables {
    fn from(snapshot: PolicySnapshot) -> Self {
        let mut conversations: HashMap<_, Vec<Member>> = HashMap::new();
        let mut users: HashMap<_, Vec<Joined>> = HashMap::new();
        for key in snapshot.conversations {
            conversations.entry(key).or_default();
        }
        for Membership { tenant, conversation, user, since } in snapshot.memberships {
            conversations.entry((tenant, conversation)).or_default().push(Member { user, since });
            users.entry((tenant, user)).or_default().push(Joined { conversation, since });
        }
        let mut rules: HashMap<_, Vec<AclRule>> = HashMap::new();
        for (tenant, rule) in snapshot.acl_rules {
            rules.entry(tenant).or_default().push(rule);
        }
        let acls: DashMap<_, _> = rules
            .into_iter()
            .filter_map(|(tenant, rules)| Some((tenant, Arc::new(Acl::new(&rules)?))))
            .collect();
        Self {
            tenants: snapshot.tenants.into_iter().collect(),
            has_acls: AtomicBool::new(!acls.is_empty()),
            acls,
            conversations: conversations.into_iter().map(|(key, members)| (key, sorted(members))).collect(),
            users: users.into_iter().map(|(key, joined)| (key, sorted(joined))).collect(),
        }
    }
}

/// An entry of a list that is sorted by a key of its own.
trait Keyed: Copy {
    type Key: Ord;

    fn key(&self) -> Self::Key;
    fn since(&self) -> Offset;
}

/// A sorted list that is shared with whoever is reading it, so a change makes a new one.
trait Sorted<T: Keyed> {
    fn since(&self, key: T::Key) -> Option<Offset>;
    fn with(&self, entry: T) -> Arc<[T]>;
    fn without(&self, key: T::Key) -> Arc<[T]>;
}

impl<T: Keyed> Sorted<T> for Arc<[T]> {
    fn since(&self, key: T::Key) -> Option<Offset> {
        let place = self.binary_search_by_key(&key, Keyed::key).ok()?;
        Some(self[place].since())
    }

    fn with(&self, entry: T) -> Arc<[T]> {
        let (before, after) = match self.binary_search_by_key(&entry.key(), Keyed::key) {
            Ok(place) => (&self[..place], &self[place + 1..]),
            Err(place) => self.split_at(place),
        };
        before.iter().copied().chain([entry]).chain(after.iter().copied()).collect()
    }

    fn without(&self, key: T::Key) -> Arc<[T]> {
        match self.binary_search_by_key(&key, Keyed::key) {
            Ok(place) => self[..place].iter().chain(&self[place + 1..]).copied().collect(),
            Err(_) => Arc::clone(self),
        }
    }
}

/// Of entries with the same key the last stays.
fn sorted<T: Keyed>(mut entries: Vec<T>) -> Arc<[T]> {
    entries.reverse();
    entries.sort_by_key(Keyed::key);
    entries.dedup_by_key(|entry| entry.key());
    entries.into()
}

impl Keyed for Member {
    type Key = UserId;

    fn key(&self) -> UserId {
        self.user
    }

    fn since(&self) -> Offset {
        self.since
    }
}

impl Keyed for Joined {
    type Key = ConversationId;

    fn key(&self) -> ConversationId {
        self.conversation
    }

    fn since(&self) -> Offset {
        self.since
    }
}

impl From<Joined> for (ConversationId, Offset) {
    fn from(joined: Joined) -> Self {
        (joined.conversation, joined.since)
    }
}
