//! Which subscriptions match a topic: exact filters by hash, wildcard filters by a tree of levels.
//!
//! A filter is freed with its last subscriber. Matching walks at most `2^wildcard levels` nodes, capped by
//! `TOPIC_LEVELS_MAX`, without recursion.

use std::collections::HashMap;
use std::sync::Arc;

use sotto_model::{TopicFilter, TopicName};

/// The table of exact filters gives memory back when it is filled to less than one of so many parts, unless it
/// is this small.
const SHRINK_BELOW: usize = 8;
const KEPT_FILTERS: usize = 1024;

/// Most filters have one.
type Subscribers<S> = smallvec::SmallVec<[S; 1]>;

pub(crate) struct TopicTree<S> {
    exact: HashMap<Arc<str>, Subscribers<S>>,
    root: Node<S>,
}

struct Node<S> {
    /// Literal levels.
    children: HashMap<Box<str>, Node<S>>,
    plus: Option<Box<Node<S>>>,
    /// Filters that end with `#` here.
    hash: Subscribers<S>,
    /// Filters that end here.
    here: Subscribers<S>,
}

impl<S> TopicTree<S> {
    pub(crate) fn new() -> Self {
        Self { exact: HashMap::new(), root: Node::new() }
    }

    /// Adds a subscriber, in the place of one that `same` knows.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, subscriber: S, same: impl Fn(&S) -> bool) {
        let subscribers = if filter.has_wildcard() {
            self.root.descend(filter)
        } else {
            self.exact.entry(filter.text()).or_default()
        };
        match subscribers.iter_mut().find(|known| same(known)) {
            Some(known) => *known = subscriber,
            None => subscribers.push(subscriber),
        }
    }

    pub(crate) fn remove(&mut self, filter: &TopicFilter, same: impl Fn(&S) -> bool) {
        if filter.has_wildcard() {
            let levels: Vec<&str> = filter.levels().collect();
            self.root.remove(&levels, &same);
        } else if let Some(subscribers) = self.exact.get_mut(filter.as_str()) {
            discard(subscribers, &same);
            if subscribers.is_empty() {
                self.exact.remove(filter.as_str());
                if self.exact.capacity() / SHRINK_BELOW > self.exact.len().max(KEPT_FILTERS) {
                    self.exact.shrink_to(self.exact.len() * 2);
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.root.is_empty()
    }

    /// Calls `found` for every subscriber of every filter that matches.
    pub(crate) fn matching<'a>(&'a self, topic: &TopicName, mut found: impl FnMut(&'a S)) {
        self.exact.get(topic.as_str()).into_iter().flatten().for_each(&mut found);
        if self.root.is_empty() {
            return;
        }
        // [MQTT-4.7.2-1]
        let wildcard_may_lead = !topic.as_str().starts_with('$');
        let levels: smallvec::SmallVec<[&str; 8]> = topic.levels().collect();
        let mut pending: smallvec::SmallVec<[(&'a Node<S>, usize); 16]> =
            smallvec::smallvec![(&self.root, 0)];
        while let Some((node, depth)) = pending.pop() {
            let wildcards = wildcard_may_lead || depth > 0;
            if wildcards {
                node.hash.iter().for_each(&mut found);
            }
            let Some(level) = levels.get(depth) else {
                node.here.iter().for_each(&mut found);
                continue;
            };
            if let Some(child) = node.children.get(*level) {
                pending.push((child, depth + 1));
            }
            if let Some(plus) = node.plus.as_deref().filter(|_| wildcards) {
                pending.push((plus, depth + 1));
            }
        }
    }
}

impl<S> Node<S> {
    fn new() -> Self {
        Self { children: HashMap::new(), plus: None, hash: Subscribers::new(), here: Subscribers::new() }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.hash.is_empty() && self.here.is_empty()
    }

    fn descend(&mut self, filter: &TopicFilter) -> &mut Subscribers<S> {
        let mut node = self;
        for level in filter.levels() {
            node = match level {
                "#" => return &mut node.hash,
                "+" => node.plus.get_or_insert_with(|| Box::new(Node::new())),
                literal => node.children.entry(literal.into()).or_insert_with(Node::new),
            };
        }
        &mut node.here
    }

    /// As deep as the filter has levels: at most `TOPIC_LEVELS_MAX`.
    fn remove(&mut self, levels: &[&str], same: &impl Fn(&S) -> bool) {
        match levels {
            [] => discard(&mut self.here, same),
            ["#", ..] => discard(&mut self.hash, same),
            ["+", rest @ ..] => {
                if let Some(plus) = &mut self.plus {
                    plus.remove(rest, same);
                    if plus.is_empty() {
                        self.plus = None;
                    }
                }
            }
            [literal, rest @ ..] => {
                if let Some(child) = self.children.get_mut(*literal) {
                    child.remove(rest, same);
                    if child.is_empty() {
                        self.children.remove(*literal);
                    }
                }
            }
        }
    }
}

fn discard<S>(subscribers: &mut Subscribers<S>, same: &impl Fn(&S) -> bool) {
    subscribers.retain(|known| !same(known));
    subscribers.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), Just("a".into()), Just("b".into()), Just("$s".into())]
    }

    fn filter() -> impl Strategy<Value = TopicFilter> {
        let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        (proptest::collection::vec(level, 1..5), any::<bool>()).prop_filter_map(
            "empty",
            |(mut levels, hash)| {
                if hash {
                    levels.push("#".into());
                }
                TopicFilter::parse(&levels.join("/")).ok()
            },
        )
    }

    fn topic() -> impl Strategy<Value = TopicName> {
        proptest::collection::vec(level(), 1..5)
            .prop_filter_map("empty", |levels| TopicName::parse(&levels.join("/")).ok())
    }

    proptest! {
        #[test]
        fn the_tree_matches_what_each_filter_alone_would(
            filters in proptest::collection::vec(filter(), 0..24),
            removed in proptest::collection::vec(any::<bool>(), 24),
            topics in proptest::collection::vec(topic(), 1..8),
        ) {
            let mut tree = TopicTree::new();
            for (number, filter) in filters.iter().enumerate() {
                tree.insert(filter, number, |known| *known == number);
            }
            for (number, filter) in filters.iter().enumerate().filter(|(number, _)| removed[*number]) {
                tree.remove(filter, |known| *known == number);
            }
            for topic in &topics {
                let mut found = Vec::new();
                tree.matching(topic, |number| found.push(*number));
                found.sort_unstable();
                let expected: Vec<usize> = (0..filters.len())
                    .filter(|number| !removed[*number] && filters[*number].matches(topic))
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn nothing_is_left_of_filters_without_subscribers(filters in proptest::collection::vec(filter(), 0..24)) {
            let mut tree = TopicTree::new();
            for (number, filter) in filters.iter().enumerate() {
                tree.insert(filter, number, |known| *known == number);
                tree.insert(filter, number, |known| *known == number);
            }
            for (number, filter) in filters.iter().enumerate() {
                tree.remove(filter, |known| *known == number);
            }
            prop_assert!(tree.is_empty());
        }
    }
}
