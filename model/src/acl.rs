//! Access rules: which topics, beside conversations and inboxes, a tenant's clients may use.
//!
//! A tenant's rules are an ordered list. The first one whose action and filter match decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::acl_filter::AclFilter;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclRule {
    pub effect: AclEffect,
    pub action: AclAction,
    pub filter: AclFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AclEffect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AclAction {
    /// Messages and wills.
    Publish,
    /// SUBSCRIBE, and every delivery.
    Subscribe,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is expected")]
pub struct UnknownWord(&'static str);

impl AclEffect {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl FromStr for AclEffect {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(UnknownWord("allow or deny")),
        }
    }
}

impl AclAction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::All => "all",
        }
    }

    /// Does a rule of this action speak of publishing?
    pub fn is_of_publish(self) -> bool {
        matches!(self, Self::Publish | Self::All)
    }

    /// Does a rule of this action speak of subscribing and receiving?
    pub fn is_of_subscribe(self) -> bool {
        matches!(self, Self::Subscribe | Self::All)
    }
}

impl FromStr for AclAction {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "publish" => Ok(Self::Publish),
            "subscribe" => Ok(Self::Subscribe),
            "all" => Ok(Self::All),
            _ => Err(UnknownWord("publish, subscribe or all")),
        }
    }
}

impl fmt::Display for AclEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AclAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for effect in [AclEffect::Allow, AclEffect::Deny] {
            assert_eq!(effect.as_str().parse(), Ok(effect));
        }
        for action in [AclAction::Publish, AclAction::Subscribe, AclAction::All] {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert!("Allow".parse::<AclEffect>().is_err() && "read".parse::<AclAction>().is_err());
    }
}
