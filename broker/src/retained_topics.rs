//! Which topics may have a retained message, so that most subscriptions need not ask the store.
//!
//! It errs on one side only: what is said to have none has none. Topics are known by a keyed hash, and one
//! whose message expires or is cleared stays known until the next start.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use parking_lot::RwLock;
use sotto_model::limits::RETAINED_TOPICS_KNOWN_MAX;
use sotto_model::{TenantId, TopicFilter, TopicName};

#[derive(Default)]
pub(crate) struct RetainedTopics {
    hasher: RandomState,
    /// `None` when there are more than are kept: then any topic may have one.
    known: RwLock<Option<Known>>,
}

#[derive(Default)]
struct Known {
    topics: HashMap<TenantId, HashSet<u64>>,
    /// Of all tenants.
    count: usize,
}

impl RetainedTopics {
    /// All that are stored; `None` when there are too many.
    pub(crate) fn new(stored: Option<Vec<(TenantId, TopicName)>>) -> Self {
        let hasher = RandomState::new();
        let known = stored.map(|stored| {
            let mut known = Known::default();
            for (tenant, topic) in stored {
                known.insert(tenant, hasher.hash_one(topic.as_str()));
            }
            known
        });
        Self { hasher, known: RwLock::new(known) }
    }

    /// Called before the message reaches anybody: who subscribes too late to find the topic here gets it live.
    pub(crate) fn insert(&self, tenant: TenantId, topic: &TopicName) {
        let hash = self.hasher.hash_one(topic.as_str());
        let mut place = self.known.write();
        let Some(known) = place.as_mut() else { return };
        known.insert(tenant, hash);
        if known.count > RETAINED_TOPICS_KNOWN_MAX {
            *place = None;
        }
    }

    pub(crate) fn may_match(&self, tenant: TenantId, filter: &TopicFilter) -> bool {
        match &*self.known.read() {
            None => true,
            Some(known) => known.topics.get(&tenant).is_some_and(|topics| {
                filter.has_wildcard() || topics.contains(&self.hasher.hash_one(filter.as_str()))
            }),
        }
    }
}

impl Known {
    fn insert(&mut self, tenant: TenantId, hash: u64) {
        if self.topics.entry(tenant).or_default().insert(hash) {
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CLINIC: TenantId = TenantId(Uuid::from_u128(1));
    const LAB: TenantId = TenantId(Uuid::from_u128(2));

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).expect("topic")
    }

    fn may_match(topics: &RetainedTopics, tenant: TenantId, filter: &str) -> bool {
        topics.may_match(tenant, &TopicFilter::parse(filter).expect("filter"))
    }

    #[test]
    fn a_topic_is_looked_for_where_something_was_retained() {
        let topics = RetainedTopics::new(Some(vec![(CLINIC, topic("ward/1"))]));
        topics.insert(CLINIC, &topic("ward/2"));
        for filter in ["ward/1", "ward/2", "ward/+", "#"] {
            assert!(may_match(&topics, CLINIC, filter), "{filter}");
            assert!(!may_match(&topics, LAB, filter), "{filter}");
        }
        assert!(!may_match(&topics, CLINIC, "ward/3"));
        assert!(may_match(&topics, CLINIC, "$share/nurses/ward/1"));
    }

    #[test]
    fn past_the_bound_any_topic_may_have_one() {
        let topics = RetainedTopics::new(Some(Vec::new()));
        for number in 0..RETAINED_TOPICS_KNOWN_MAX {
            topics.insert(CLINIC, &topic(&format!("{number}")));
        }
        assert!(!may_match(&topics, LAB, "a"));
        topics.insert(LAB, &topic("b"));
        assert!(may_match(&topics, LAB, "a"));
        assert!(may_match(&RetainedTopics::new(None), LAB, "a"));
    }
}
