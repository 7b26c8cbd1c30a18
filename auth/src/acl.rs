//! A tenant's access rules, ready to be asked.

use sotto_model::{AclEffect, AclFilter, AclRule, Principal, Reach, TopicFilter, TopicName};

/// The rules by action, each list in the order in which it is asked: the first that matches decides.
pub(crate) struct Acl {
    publish: Box<[Entry]>,
    subscribe: Box<[Entry]>,
}

struct Entry {
    effect: AclEffect,
    filter: AclFilter,
}

impl Acl {
    /// `None` where there are no rules.
    pub(crate) fn new(rules: &[AclRule]) -> Option<Self> {
        let of = |speaks_of: fn(&AclRule) -> bool| {
            let rules = rules.iter().filter(|rule| speaks_of(rule));
            rules.map(|rule| Entry { effect: rule.effect, filter: rule.filter.clone() }).collect()
        };
        (!rules.is_empty()).then(|| Self {
            publish: of(|rule| rule.action.is_of_publish()),
            subscribe: of(|rule| rule.action.is_of_subscribe()),
        })
    }

    /// `None`: no rule speaks of it.
    pub(crate) fn publish(&self, principal: &Principal, topic: &TopicName) -> Option<AclEffect> {
        verdict(&self.publish, principal, topic.as_str())
    }

    /// Of a requested filter, with the share name taken off. A rule that denies a part of it leaves that part
    /// to [`Self::receive`].
    pub(crate) fn subscribe(&self, principal: &Principal, filter: &TopicFilter) -> Option<AclEffect> {
        verdict(&self.subscribe, principal, filter.as_str())
    }

    pub(crate) fn receive(&self, principal: &Principal, topic: &TopicName) -> Option<AclEffect> {
        verdict(&self.subscribe, principal, topic.as_str())
    }
}

fn verdict(entries: &[Entry], principal: &Principal, reached: &str) -> Option<AclEffect> {
    entries.iter().find_map(|entry| match (entry.filter.reach(principal, reached), entry.effect) {
        (Reach::Covers, effect) => Some(effect),
        // What cannot be told is denied, and never allowed.
        (Reach::Unclear, AclEffect::Deny) => Some(AclEffect::Deny),
        (Reach::Unclear, AclEffect::Allow) | (Reach::Misses, _) => None,
    })
}
