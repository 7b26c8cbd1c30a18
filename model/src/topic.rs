//! Topic names and filters: parsed once, matched often.
//!
//! Both may name people or places, so neither has `Display` and their `Debug` hides them.

use std::fmt;
use std::sync::Arc;

use crate::ids::{ConversationId, UserId};
use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic is empty")]
    Empty,
    #[error("topic is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    #[error("topic has more than {TOPIC_LEVELS_MAX} levels")]
    TooDeep,
    #[error("topic name holds a wildcard")]
    WildcardInName,
    #[error("wildcard is not alone in its level, or '#' is not last")]
    MisplacedWildcard,
    #[error("topic holds U+0000")]
    Nul,
    #[error("shared subscription without a share name or filter")]
    BadShare,
}

/// The topic of one message: no wildcards. [MQTT-3.3.2-2]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// What a topic name belongs to, in a tenant with guarded topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicScope {
    /// `c/<conversation>/…`
    Conversation(ConversationId),
    /// `u/<user>/…`
    Inbox(UserId),
    Other,
}

impl TopicName {
    pub fn parse(raw: &str) -> Result<Self, TopicError> {
        check_length(raw)?;
        if raw.contains(['+', '#']) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    pub fn scope(&self) -> TopicScope {
        match scoped_id(&self.0) {
            Some(("c", id)) => {
                id.parse().map_or(TopicScope::Other, |id| TopicScope::Conversation(ConversationId(id)))
            }
            Some(("u", id)) => id.parse().map_or(TopicScope::Other, |id| TopicScope::Inbox(UserId(id))),
            _ => TopicScope::Other,
        }
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicName(..)")
    }
}

/// The Topic Filter of one subscription, with the ShareName of a shared one taken off.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter {
    /// As the client sent it, `$share/…` included.
    raw: Arc<str>,
    /// Where the filter begins behind `$share/<name>/`; 0 when it is not shared.
    filter_start: u16,
    has_wildcard: bool,
}

/// What a filter reaches, in a tenant with guarded topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterScope {
    /// `c/<conversation>/…`
    Conversation(ConversationId),
    /// `c/+/…`, `c/#`: the subscriber's own conversations, as they change.
    MyConversations,
    /// `u/<user>/…`
    Inbox(UserId),
    Other,
}

impl TopicFilter {
    pub fn parse(raw: &str) -> Result<Self, TopicError> {
        check_length(raw)?;
        let filter_start = match raw.strip_prefix("$share/") {
            None => 0,
            Some(rest) => {
                let (name, filter) = rest.split_once('/').ok_or(TopicError::BadShare)?;
                // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
                if name.is_empty() || name.contains(['+', '#']) || filter.is_empty() {
                    return Err(TopicError::BadShare);
                }
                raw.len() - filter.len()
            }
        };
        let filter = &raw[filter_start..];
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            let last = levels.peek().is_none();
            // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
            let misplaced = match level {
                "#" => !last,
                "+" => false,
                _ => level.contains(['+', '#']),
            };
            if misplaced {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self {
            raw: raw.into(),
            filter_start: u16::try_from(filter_start).expect("shorter than TOPIC_BYTES_MAX"),
            has_wildcard: filter.contains(['+', '#']),
        })
    }

    /// The whole filter as subscribed, `$share/…` included: the key of a subscription.
    pub fn as_subscribed(&self) -> &str {
        &self.raw
    }

    /// The filter that topics are matched against.
    pub fn as_str(&self) -> &str {
        &self.raw[usize::from(self.filter_start)..]
    }

    /// The same, in the filter's own memory unless it is shared.
    pub fn text(&self) -> Arc<str> {
        if self.filter_start == 0 { self.raw.clone() } else { self.as_str().into() }
    }

    /// `$share/<name>/…`
    pub fn share_name(&self) -> Option<&str> {
        let prefix = self.raw.get(..usize::from(self.filter_start))?;
        prefix.strip_prefix("$share/")?.strip_suffix('/')
    }

    /// The filter that topics are matched against, as a subscription of its own.
    #[must_use]
    pub fn unshared(&self) -> Self {
        Self { raw: self.as_str().into(), filter_start: 0, has_wildcard: self.has_wildcard }
    }

    pub fn has_wildcard(&self) -> bool {
        self.has_wildcard
    }

    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    pub fn matches(&self, topic: &TopicName) -> bool {
        if !self.has_wildcard {
            return self.as_str() == topic.as_str();
        }
        // [MQTT-4.7.2-1]
        if topic.as_str().starts_with('$') && self.as_str().starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.levels();
        for level in self.levels() {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// The longest text with which every matching topic begins, but for a trailing `/` before `#`:
    /// `a/b/#` matches `a/b` too. [MQTT-4.7.1-2]
    pub fn literal_prefix(&self) -> &str {
        let filter = self.as_str();
        let end = filter.find(['+', '#']).unwrap_or(filter.len());
        let prefix = &filter[..end];
        if filter[end..].starts_with('#') { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix }
    }

    pub fn scope(&self) -> FilterScope {
        let filter = self.as_str();
        if filter.starts_with("c/+") || filter == "c/#" {
            return FilterScope::MyConversations;
        }
        match scoped_id(filter) {
            Some(("c", id)) => {
                id.parse().map_or(FilterScope::Other, |id| FilterScope::Conversation(ConversationId(id)))
            }
            Some(("u", id)) => id.parse().map_or(FilterScope::Other, |id| FilterScope::Inbox(UserId(id))),
            _ => FilterScope::Other,
        }
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicFilter(..)")
    }
}

fn check_length(raw: &str) -> Result<(), TopicError> {
    // [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
    if raw.is_empty() {
        return Err(TopicError::Empty);
    }
    if raw.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if raw.contains('\0') {
        return Err(TopicError::Nul);
    }
    if raw.split('/').count() > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooDeep);
    }
    Ok(())
}

/// Splits `c/<id>/rest`: only the canonical lower-case hyphenated form of an id counts, so that one
/// conversation has one spelling.
fn scoped_id(raw: &str) -> Option<(&str, &str)> {
    let (kind, rest) = raw.split_once('/')?;
    let (id, _) = rest.split_once('/')?;
    let canonical = id.len() == 36 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    canonical.then_some((kind, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::parse(filter).expect("filter").matches(&TopicName::parse(topic).expect("topic"))
    }

    #[test]
    fn a_filter_matches_as_the_specification_s_examples_say() {
        assert!(matches("sport/tennis/player1/#", "sport/tennis/player1"));
        assert!(matches("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(matches("#", "a"));
        assert!(!matches("#", "$SYS/a"));
        assert!(!matches("+/monitor", "$SYS/monitor"));
        assert!(matches("$SYS/#", "$SYS/monitor"));
    }

    #[test]
    fn a_wildcard_must_be_alone_in_its_level() {
        for bad in ["sport/tennis#", "sport/#/ranking", "sport+", "a/+b/c", "##"] {
            assert_eq!(TopicFilter::parse(bad), Err(TopicError::MisplacedWildcard), "{bad}");
        }
    }

    #[test]
    fn a_share_needs_a_name_and_a_filter() {
        for bad in ["$share/x", "$share//x", "$share/x/", "$share/+/x", "$share/a#/x"] {
            assert_eq!(TopicFilter::parse(bad), Err(TopicError::BadShare), "{bad}");
        }
        let shared = TopicFilter::parse("$share/g/a/+").expect("filter");
        assert_eq!(shared.share_name(), Some("g"));
        assert_eq!(shared.as_str(), "a/+");
        assert_eq!(TopicFilter::parse("a/+").expect("filter").share_name(), None);
        assert_eq!(shared.unshared(), TopicFilter::parse("a/+").expect("filter"));
        let twice = TopicFilter::parse("$share/g/$share/h/a").expect("filter").unshared();
        assert_eq!((twice.share_name(), twice.as_str()), (None, "$share/h/a"));
    }

    #[test]
    fn every_match_begins_with_the_literal_prefix() {
        for (filter, prefix) in [("a/b/#", "a/b"), ("a/+/c", "a/"), ("#", ""), ("a/b", "a/b"), ("+/a", "")] {
            assert_eq!(TopicFilter::parse(filter).expect("filter").literal_prefix(), prefix);
        }
    }

    #[test]
    fn a_conversation_has_one_spelling() {
        let id = "0190a0b0-0000-7000-8000-0000000000ab";
        let name = |raw: &str| TopicName::parse(raw).expect("topic").scope();
        assert_eq!(name(&format!("c/{id}/m")), TopicScope::Conversation(id.parse().expect("id")));
        assert_eq!(name(&format!("c/{}/m", id.to_uppercase())), TopicScope::Other);
        assert_eq!(name(&format!("c/{id}")), TopicScope::Other);
        let filter = |raw: &str| TopicFilter::parse(raw).expect("filter").scope();
        assert_eq!(filter("c/+/m"), FilterScope::MyConversations);
        assert_eq!(filter("c/#"), FilterScope::MyConversations);
        assert_eq!(filter(&format!("c/{id}/#")), FilterScope::Conversation(id.parse().expect("id")));
        assert_eq!(filter("+/x"), FilterScope::Other);
    }
}
