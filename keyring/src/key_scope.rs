//! What a data key is for, and how it is named.

use std::fmt;

use sotto_model::ConversationId;
use uuid::Uuid;

/// One data key; random, and unique across tenants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub Uuid);

/// The number of a tenant's epoch key; the first is 1, every rotation adds 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// What a data key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyScope {
    /// The messages of one conversation; deleting its keys shreds it.
    Conversation(ConversationId),
    /// The messages of all other topics of the tenant.
    Topics,
    /// Small secrets at rest, such as push tokens.
    Secrets,
    /// Keyed hashes by which a secret is found unopened. Never rotated: a hash must stay comparable.
    Lookup,
}

impl Epoch {
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl KeyScope {
    /// The number that stands for the kind of scope in a row and in authenticated data.
    pub fn kind(self) -> u8 {
        match self {
            Self::Conversation(_) => 1,
            Self::Topics => 2,
            Self::Secrets => 3,
            Self::Lookup => 4,
        }
    }

    /// The conversation's id; nil for a scope that is the whole tenant.
    pub fn subject(self) -> Uuid {
        match self {
            Self::Conversation(conversation) => conversation.0,
            Self::Topics | Self::Secrets | Self::Lookup => Uuid::nil(),
        }
    }

    /// The inverse of [`Self::kind`] and [`Self::subject`], for a row read back.
    pub fn from_row(kind: u8, subject: Uuid) -> Option<Self> {
        match kind {
            1 => Some(Self::Conversation(ConversationId(subject))),
            2 if subject.is_nil() => Some(Self::Topics),
            3 if subject.is_nil() => Some(Self::Secrets),
            4 if subject.is_nil() => Some(Self::Lookup),
            _ => None,
        }
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_survives_its_row() {
        let conversation = ConversationId(Uuid::from_u128(7));
        for scope in
            [KeyScope::Conversation(conversation), KeyScope::Topics, KeyScope::Secrets, KeyScope::Lookup]
        {
            assert_eq!(KeyScope::from_row(scope.kind(), scope.subject()), Some(scope));
        }
        assert_eq!(KeyScope::from_row(2, conversation.0), None);
        assert_eq!(KeyScope::from_row(0, Uuid::nil()), None);
    }
}
