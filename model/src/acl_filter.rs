//! The topics of an access rule: a topic filter in which `%u` and `%c` stand for whoever asks.
//!
//! | written | stands for |
//! |---|---|
//! | `%u` | the user's id, as in `u/<user>` |
//! | `%c` | the Client Identifier; where it holds `/`, several levels |
//! | `%%` | a percent sign |
//! | `+`, `#` | as in any filter: alone in a level, `#` last |
//!
//! A filter may name people or places, so it has no `Display` and its `Debug` hides it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use crate::principal::Principal;

/// Taken apart once, so that asking it allocates and parses nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AclFilter {
    raw: Arc<str>,
    parts: Arc<[Part]>,
}

/// How a rule's filter stands to a topic, or to all topics of a requested filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It holds for each of them.
    Covers,
    /// There is one for which it does not hold.
    Misses,
    /// The Client Identifier holds a wildcard: what the rule means by it cannot be told.
    Unclear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AclFilterError {
    #[error("filter is empty")]
    Empty,
    #[error("filter is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    #[error("filter has more than {TOPIC_LEVELS_MAX} levels")]
    TooDeep,
    #[error("filter holds U+0000")]
    Nul,
    #[error("wildcard is not alone in its level, or '#' is not last")]
    MisplacedWildcard,
    #[error("'%' is followed by something else than 'u', 'c' or '%'")]
    UnknownPlaceholder,
    #[error("a shared subscription is judged by the filter behind its name: leave `$share/<name>/` out")]
    Shared,
}

/// Each takes a definite part of what it is held against, so one pass decides.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
    Client,
    /// One whole level.
    Single,
    /// `/#` at the end: nothing more, or further levels.
    Subtree,
    /// `#` alone, and `+/#`, which is the same.
    Everything,
}

impl AclFilter {
    pub fn parse(raw: &str) -> Result<Self, AclFilterError> {
        if raw.is_empty() {
            return Err(AclFilterError::Empty);
        }
        if raw.len() > TOPIC_BYTES_MAX {
            return Err(AclFilterError::TooLong);
        }
        if raw.contains('\0') {
            return Err(AclFilterError::Nul);
        }
        if raw.split('/').count() > TOPIC_LEVELS_MAX {
            return Err(AclFilterError::TooDeep);
        }
        if raw == "$share" || raw.starts_with("$share/") {
            return Err(AclFilterError::Shared);
        }
        let mut levels = raw.split('/').peekable();
        while let Some(level) = levels.next() {
            let alone = level == "+" || level == "#" && levels.peek().is_none();
            if !alone && level.contains(['+', '#']) {
                return Err(AclFilterError::MisplacedWildcard);
            }
        }
        Ok(Self { raw: raw.into(), parts: take_apart(raw)?.into() })
    }

    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// `reached` is a topic name, or a requested filter without `$share/<name>/`: a name reaches itself
    /// alone.
    pub fn reach(&self, principal: &Principal, reached: &str) -> Reach {
        // [MQTT-4.7.2-1]
        if reached.starts_with('$') && matches!(self.parts[..], [Part::Single | Part::Everything, ..]) {
            return Reach::Misses;
        }
        // A topic name is not empty, so `/#` reaches what `/+/#` does. [MQTT-4.7.3-1]
        let mut rest = if reached == "/#" { "/+/#" } else { reached };
        for part in &*self.parts {
            let left = match part {
                Part::Text(text) => rest.strip_prefix(&**text),
                Part::User => {
                    let mut buffer = uuid::Uuid::encode_buffer();
                    rest.strip_prefix(&*principal.user.0.hyphenated().encode_lower(&mut buffer))
                }
                Part::Client if principal.client_id.as_str().contains(['+', '#']) => return Reach::Unclear,
                Part::Client => rest.strip_prefix(principal.client_id.as_str()),
                Part::Single => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    (&rest[..end] != "#").then_some(&rest[end..])
                }
                Part::Subtree => (rest.is_empty() || rest.starts_with('/')).then_some(""),
                Part::Everything => Some(""),
            };
            let Some(left) = left else { return Reach::Misses };
            rest = left;
        }
        if rest.is_empty() { Reach::Covers } else { Reach::Misses }
    }
}

fn take_apart(raw: &str) -> Result<Vec<Part>, AclFilterError> {
    if raw == "#" || raw == "+/#" {
        return Ok(vec![Part::Everything]);
    }
    let (body, ending) = match raw.strip_suffix("/#") {
        Some(body) => (body, Some(Part::Subtree)),
        None => (raw, None),
    };
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut letters = body.chars();
    while let Some(letter) = letters.next() {
        let part = match letter {
            '+' => Part::Single,
            '%' => match letters.next() {
                Some('u') => Part::User,
                Some('c') => Part::Client,
                Some('%') => {
                    text.push('%');
                    continue;
                }
                _ => return Err(AclFilterError::UnknownPlaceholder),
            },
            letter => {
                text.push(letter);
                continue;
            }
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text).into()));
        }
        parts.push(part);
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    parts.extend(ending);
    Ok(parts)
}

impl PartialEq for AclFilter {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for AclFilter {}

impl fmt::Debug for AclFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AclFilter(..)")
    }
}

impl TryFrom<String> for AclFilter {
    type Error = AclFilterError;

    fn try_from(raw: String) -> Result<Self, AclFilterError> {
        Self::parse(&raw)
    }
}

impl From<AclFilter> for String {
    fn from(filter: AclFilter) -> Self {
        filter.raw.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClientId, TenantId, UserId};
    use crate::principal::TopicPolicy;
    use uuid::Uuid;

    const USER: &str = "0190a0b0-0000-7000-8000-0000000000ab";

    fn reach(filter: &str, client_id: &str, reached: &str) -> Reach {
        let principal = Principal {
            tenant: TenantId(Uuid::nil()),
            user: USER.parse::<UserId>().expect("id"),
            device: None,
            client_id: ClientId::parse(client_id).expect("client id"),
            topics: TopicPolicy::Membership,
        };
        AclFilter::parse(filter).expect("filter").reach(&principal, reached)
    }

    #[test]
    fn placeholders_stand_for_a_level_or_a_part_of_one() {
        let topic = format!("by/{USER}/x");
        assert_eq!(reach("by/%u/x", "a/b", &topic), Reach::Covers);
        assert_eq!(reach("by/%u/x", "a/b", "by/someone/x"), Reach::Misses);
        assert_eq!(reach("by/%u", "a/b", &topic), Reach::Misses);
        assert_eq!(reach("from-%c-on/x", "pump", "from-pump-on/x"), Reach::Covers);
        assert_eq!(reach("%c%u", "pump", &format!("pump{USER}")), Reach::Covers);
        assert_eq!(reach("a/%%u", "pump", "a/%u"), Reach::Covers);
        assert_eq!(reach("a/%%u", "pump", &format!("a/{USER}")), Reach::Misses);
    }

    #[test]
    fn a_client_identifier_may_stand_for_several_levels() {
        assert_eq!(reach("d/%c/+", "alice/phone", "d/alice/phone/x"), Reach::Covers);
        assert_eq!(reach("d/%c/+", "alice/phone", "d/alice/x"), Reach::Misses);
        assert_eq!(reach("d/%c/#", "alice/phone", "d/alice/phone"), Reach::Covers);
        assert_eq!(reach("d/%c/#", "alice/phone", "d/alice/phones"), Reach::Misses);
    }

    #[test]
    fn a_wildcard_in_a_client_identifier_is_never_one_of_the_rule() {
        for client_id in ["+", "#", "a/+", "a/#", "a+b"] {
            for reached in ["d/x", "d/a/x", "d/a+b", "d/+", "d/#"] {
                assert_eq!(reach("d/%c", client_id, reached), Reach::Unclear, "{client_id} {reached}");
            }
            assert_eq!(reach("d/%c", client_id, "e/x"), Reach::Misses);
            assert_eq!(reach("d/%u", client_id, &format!("d/{USER}")), Reach::Covers);
        }
    }

    #[test]
    fn a_filter_covers_what_is_narrower_or_equal() {
        for (filter, reached) in [
            ("#", "#"),
            ("#", "a/+/b"),
            ("+/#", "#"),
            ("#", "+/#"),
            ("a/#", "a"),
            ("a/#", "a/#"),
            ("a/#", "a/+/#"),
            ("a/+", "a/+"),
            ("a/+/c", "a/b/c"),
            ("/#", "/"),
            ("/#", "/#"),
            ("/+/#", "/#"),
            ("+/+/#", "/#"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert_eq!(reach(filter, "x", reached), Reach::Covers, "{filter} {reached}");
        }
        for (filter, reached) in [
            ("a/+", "a/#"),
            ("a/+/#", "a/#"),
            ("//#", "/#"),
            ("a/+/#", "a/#"),
            ("+/+/#", "#"),
            ("+", "#"),
            ("a/b", "a/+"),
            ("a", "a/#"),
            ("#", "$SYS/#"),
            ("+/x", "$SYS/x"),
            ("a/b", "a/bc"),
            ("/#", "+"),
        ] {
            assert_eq!(reach(filter, "x", reached), Reach::Misses, "{filter} {reached}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        let deep = "/".repeat(TOPIC_LEVELS_MAX);
        for (raw, error) in [
            ("", AclFilterError::Empty),
            (long.as_str(), AclFilterError::TooLong),
            (deep.as_str(), AclFilterError::TooDeep),
            ("a/\0", AclFilterError::Nul),
            ("a/#/b", AclFilterError::MisplacedWildcard),
            ("a+/b", AclFilterError::MisplacedWildcard),
            ("%u+/b", AclFilterError::MisplacedWildcard),
            ("a/%x", AclFilterError::UnknownPlaceholder),
            ("a/%", AclFilterError::UnknownPlaceholder),
            ("$share/g/a", AclFilterError::Shared),
        ] {
            assert_eq!(AclFilter::parse(raw).err(), Some(error), "{raw}");
        }
    }
}
