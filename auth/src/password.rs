//! Passwords, hashed with argon2id.

use std::sync::Arc;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::limits::{
    PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN, PASSWORD_HASH_BYTES_MAX, PASSWORD_LANES, PASSWORD_LANES_MAX,
    PASSWORD_MEMORY_KIB, PASSWORD_MEMORY_KIB_MAX, PASSWORD_PASSES, PASSWORD_PASSES_MAX,
};

/// The stored form of a password: a PHC string of argon2id.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("password is shorter than {PASSWORD_BYTES_MIN} bytes")]
    TooShort,
    #[error("password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("password could not be hashed")]
    Hash,
    /// Not a PHC string of argon2id, or one whose cost is out of bounds.
    #[error("stored password hash is not acceptable")]
    Stored,
}

impl PasswordHash {
    /// Hashes a password under a salt of its own. Takes some tens of milliseconds and 19 MiB.
    pub fn hash_password(password: &[u8]) -> Result<Self, PasswordError> {
        if password.len() < PASSWORD_BYTES_MIN {
            return Err(PasswordError::TooShort);
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let hash = hasher().hash_password(password).map_err(|_| PasswordError::Hash)?;
        Ok(Self(hash.to_string().into()))
    }

    /// Reads what [`Self::as_phc`] gave. The cost that it asks for is bounded, so that a row cannot
    /// make a login take all memory.
    pub fn parse(stored: &str) -> Result<Self, PasswordError> {
        if stored.len() > PASSWORD_HASH_BYTES_MAX {
            return Err(PasswordError::Stored);
        }
        let hash = phc::PasswordHash::new(stored).map_err(|_| PasswordError::Stored)?;
        let params = Params::try_from(&hash).map_err(|_| PasswordError::Stored)?;
        let acceptable = hash.algorithm == Algorithm::Argon2id.ident()
            && hash.salt.is_some()
            && hash.hash.is_some()
            && params.m_cost() <= PASSWORD_MEMORY_KIB_MAX
            && params.t_cost() <= PASSWORD_PASSES_MAX
            && params.p_cost() <= PASSWORD_LANES_MAX;
        if acceptable { Ok(Self(stored.into())) } else { Err(PasswordError::Stored) }
    }

    /// For keeping in the store; never for a log.
    pub fn as_phc(&self) -> &str {
        &self.0
    }

    /// Whether this is the hash of that password. As slow as hashing it.
    pub fn matches(&self, password: &[u8]) -> bool {
        phc::PasswordHash::new(&self.0).is_ok_and(|hash| hasher().verify_password(password, &hash).is_ok())
    }

    /// Whether it was made with another cost than is asked for today.
    pub fn needs_rehash(&self) -> bool {
        let params = phc::PasswordHash::new(&self.0).ok().and_then(|hash| Params::try_from(&hash).ok());
        params.is_none_or(|params| {
            params.m_cost() != PASSWORD_MEMORY_KIB
                || params.t_cost() != PASSWORD_PASSES
                || params.p_cost() != PASSWORD_LANES
        })
    }

    /// A hash that no password is known for: checked in place of the one that an unknown user lacks.
    pub(crate) fn of_nobody() -> Self {
        Self::parse(NOBODY).expect("a constant that a test parses")
    }
}

const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$JvB7JxiyGVVjQ/pmlkynkg$+VjddByT7NP62s21lP3nXp3DdJKG04WD4Z1AyRXXNyQ";

fn hasher() -> Argon2<'static> {
    let params = Params::new(PASSWORD_MEMORY_KIB, PASSWORD_PASSES, PASSWORD_LANES, None)
        .expect("constants within argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let hash = PasswordHash::hash_password(b"correct horse").expect("hash");
        assert!(hash.matches(b"correct horse"));
        assert!(!hash.matches(b"correct horsf"));
        assert!(!hash.matches(b""));
        let read = PasswordHash::parse(hash.as_phc()).expect("PHC string");
        assert!(read == hash && !read.needs_rehash());
        assert!(hash.as_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn equal_passwords_have_unequal_hashes() {
        let hash = || PasswordHash::hash_password(b"correct horse").expect("hash");
        assert!(hash() != hash());
    }

    #[test]
    fn a_password_has_a_least_and_a_greatest_length() {
        let hash = |len: usize| PasswordHash::hash_password(&vec![b'x'; len]).map(|_| ());
        assert_eq!(hash(PASSWORD_BYTES_MIN - 1), Err(PasswordError::TooShort));
        assert_eq!(hash(PASSWORD_BYTES_MIN), Ok(()));
        assert_eq!(hash(PASSWORD_BYTES_MAX), Ok(()));
        assert_eq!(hash(PASSWORD_BYTES_MAX + 1), Err(PasswordError::TooLong));
    }

    #[test]
    fn a_stored_hash_of_another_kind_or_cost_is_refused() {
        let salt_and_hash = "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let parse = |head: &str| PasswordHash::parse(&format!("{head}{salt_and_hash}")).map(|_| ());
        assert_eq!(parse("$argon2id$v=19$m=19456,t=2,p=1"), Ok(()));
        for bad in [
            "$argon2i$v=19$m=19456,t=2,p=1",
            "$argon2id$v=19$m=4194304,t=2,p=1",
            "$argon2id$v=19$m=19456,t=9000,p=1",
            "$argon2id$v=19$m=19456,t=2,p=200",
            "$scrypt$ln=16,r=8,p=1",
            "",
        ] {
            assert_eq!(parse(bad), Err(PasswordError::Stored), "{bad}");
        }
        assert_eq!(
            PasswordHash::parse("$argon2id$v=19$m=19456,t=2,p=1").map(|_| ()),
            Err(PasswordError::Stored)
        );
        let cheap = PasswordHash::parse(&format!("$argon2id$v=19$m=4096,t=2,p=1{salt_and_hash}"));
        assert!(cheap.expect("acceptable").needs_rehash());
    }

    #[test]
    fn the_hash_of_nobody_costs_as_much_as_any() {
        assert!(!PasswordHash::of_nobody().needs_rehash());
    }
}
