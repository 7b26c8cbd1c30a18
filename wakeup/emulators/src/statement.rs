//! Reads the signed statements of clients, by another library than the one that makes them.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

pub(crate) struct Statement {
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Map<String, Value>,
}

impl Statement {
    /// Of one whose signature is good. What it claims, its times too, is for the caller to judge: services
    /// have clocks of their own.
    pub(crate) fn verify(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Option<Self> {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let key_id = decode_header(token).ok()?.kid;
        let claims = decode::<Map<String, Value>>(token, key, &validation).ok()?.claims;
        Some(Self { key_id, claims })
    }

    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    pub(crate) fn seconds(&self, claim: &str) -> Option<u64> {
        self.claims.get(claim)?.as_u64()
    }
}
