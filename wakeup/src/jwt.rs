//! Signed statements of who this server is. [RFC 7515, RFC 7519]
//!
//! ```text
//! base64url(header) "." base64url(claims) "." base64url(signature over what is before it)
//! ```

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use zeroize::Zeroizing;

/// Something in the library that signs refused to. What it was about stays inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be signed")]
pub(crate) struct SignError;

/// A key of the curve P-256, which signs with SHA-256. It cannot be shown.
pub(crate) struct Es256Key(EcdsaKeyPair);

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
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
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
        let (header, claims) = (json!({"alg": "ES256", "kid": "K"}), json!({"iss": "T", "iat": 1}));
        let token = key.sign(&header, &claims).expect("signed");
        let (statement, got_header, got_claims, signature) = parts(&token);
        assert_eq!((got_header, got_claims), (header, claims));
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, made.public_key_raw());
        assert!(public.verify(statement.as_bytes(), &signature).is_ok());
        assert!(public.verify(b"another", &signature).is_err());
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        let rsa = NewKey::generate_for(&PKCS_RSA_SHA256).expect("a key").serialize_pem();
        let p384 = NewKey::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key").serialize_pem();
        for bad in
            ["", "rubbish", &rsa, &p384, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            assert!(Es256Key::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
