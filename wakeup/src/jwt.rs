//! Signed statements of who this server is. [RFC 7515, RFC 7519]
//!
//! ```text
//! base64url(header) "." base64url(claims) "." base64url(signature over what is before it)
//! ```

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use zeroize::Zeroizing;

/// Something in the library that signs refused to. What it was about stays inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be signed")]
pub(crate) struct SignError;

/// A key of the curve P-256, which signs with SHA-256. It cannot be shown.
pub(crate) struct Es256Key(EcdsaKeyPair);

/// An RSA key, which signs with SHA-256 and PKCS #1 padding. It cannot be shown.
pub(crate) struct Rs256Key(RsaKeyPair);

impl Es256Key {
    /// Errors are in our words: a parser's own may quote the key.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM")?;
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der())
            .map(Self)
            .map_err(|_| "the private key is not one of the curve P-256")
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> Result<Zeroizing<String>, SignError> {
        assert_eq!(header["alg"], "ES256");
        let mut token = statement(header, claims);
        let signature = self.0.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| SignError)?;
        append(&mut token, signature.as_ref());
        Ok(token)
    }

    /// The point, uncompressed.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

impl Rs256Key {
    /// From PKCS #8.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM")?;
        RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
            .map(Self)
            .map_err(|_| "the private key is not an RSA key of 2048 bits or more")
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> Result<Zeroizing<String>, SignError> {
        assert_eq!(header["alg"], "RS256");
        let mut token = statement(header, claims);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| SignError)?;
        append(&mut token, &signature);
        Ok(token)
    }
}

fn statement(header: &Value, claims: &Value) -> Zeroizing<String> {
    let mut token = Zeroizing::new(BASE64URL_NOPAD.encode(header.to_string().as_bytes()));
    append(&mut token, claims.to_string().as_bytes());
    token
}

fn append(token: &mut String, part: &[u8]) {
    token.push('.');
    BASE64URL_NOPAD.encode_append(part, token);
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use rcgen::{KeyPair as NewKey, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
    use serde_json::json;

    use super::*;

    fn parts(token: &str) -> (String, Value, Value, Vec<u8>) {
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url");
        let (statement, signature) = token.rsplit_once('.').expect("three parts");
        let (header, claims) = statement.split_once('.').expect("three parts");
        let json = |part: &str| serde_json::from_slice(&decode(part)).expect("JSON");
        (statement.to_owned(), json(header), json(claims), decode(signature))
    }

    #[test]
    fn a_statement_is_verified_by_the_public_key() {
        let made = NewKey::generate().expect("a key");
        let key = Es256Key::from_pem(made.serialize_pem().as_bytes()).expect("a key");
        assert_eq!(key.public_key(), made.public_key_raw());
        let (header, claims) = (json!({"alg": "ES256", "kid": "K"}), json!({"iss": "T", "iat": 1}));
        let token = key.sign(&header, &claims).expect("signed");
        let (statement, got_header, got_claims, signature) = parts(&token);
        assert_eq!((got_header, got_claims), (header, claims));
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key());
        assert!(public.verify(statement.as_bytes(), &signature).is_ok());
        assert!(public.verify(b"another", &signature).is_err());
    }

    #[test]
    fn an_rsa_key_signs_too() {
        let made = NewKey::generate_for(&PKCS_RSA_SHA256).expect("a key");
        let key = Rs256Key::from_pem(made.serialize_pem().as_bytes()).expect("a key");
        let token = key.sign(&json!({"alg": "RS256"}), &json!({"iss": "a@b"})).expect("signed");
        let (statement, _, _, signature) = parts(&token);
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, made.public_key_raw());
        assert!(public.verify(statement.as_bytes(), &signature).is_ok());
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        let rsa = NewKey::generate_for(&PKCS_RSA_SHA256).expect("a key").serialize_pem();
        let p256 = NewKey::generate().expect("a key").serialize_pem();
        let p384 = NewKey::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key").serialize_pem();
        for bad in
            ["", "rubbish", &rsa, &p384, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            assert!(Es256Key::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "rubbish", &p256] {
            assert!(Rs256Key::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
