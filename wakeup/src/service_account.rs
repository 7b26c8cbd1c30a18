//! The file by which Google knows this server, and the assertion made from it. [RFC 7523]

use serde::Deserialize;
use serde_json::json;
use sotto_model::UnixMillis;
use zeroize::Zeroizing;

use crate::endpoint::Endpoint;
use crate::jwt::{Rs256Key, SignError};
use crate::limits::ASSERTION_AGE_MAX;

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// It cannot be shown.
pub(crate) struct ServiceAccount {
    key: Rs256Key,
    key_id: String,
    client_email: String,
    token_uri: Endpoint,
}

/// The fields of the file that are used.
#[derive(Deserialize)]
struct Fields {
    private_key: String,
    private_key_id: String,
    client_email: String,
    token_uri: String,
}

impl ServiceAccount {
    /// From the JSON file as Google gives it. Errors are in our words: a parser's own may quote the key.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let fields: Fields =
            serde_json::from_slice(json).map_err(|_| "is not the JSON of a service account's key")?;
        let private_key = Zeroizing::new(fields.private_key);
        let token_uri = Endpoint::parse(&fields.token_uri).map_err(|_| "token_uri is not an https URL")?;
        Ok(Self {
            key: Rs256Key::from_pem(private_key.as_bytes())?,
            key_id: fields.private_key_id,
            client_email: fields.client_email,
            token_uri,
        })
    }

    pub(crate) fn token_uri(&self) -> &Endpoint {
        &self.token_uri
    }

    pub(crate) fn assertion(&self, now: UnixMillis) -> Result<Zeroizing<String>, SignError> {
        let issued = now.0 / 1000;
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri.reveal(),
            "iat": issued,
            "exp": issued + ASSERTION_AGE_MAX.as_secs(),
        });
        self.key.sign(&header, &claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(private_key: &str, token_uri: &str) -> String {
        json!({
            "private_key": private_key,
            "private_key_id": "1",
            "client_email": "a@b",
            "token_uri": token_uri,
            "type": "service_account",
        })
        .to_string()
    }

    #[test]
    fn an_error_says_what_is_wrong_and_nothing_of_the_key() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key").serialize_pem();
        let error = |json: &str| ServiceAccount::parse(json.as_bytes()).err();
        assert_eq!(error(&fields(&key, "https://oauth2.googleapis.com/token")), None);
        let no_json = Some("is not the JSON of a service account's key");
        assert_eq!(error("{\"private_key\":\"secret\"}"), no_json);
        assert_eq!(error("secret"), no_json);
        assert_eq!(error(&fields("secret", "https://a/")), Some("holds no private key in PEM"));
        assert_eq!(error(&fields(&key, "http://a/")), Some("token_uri is not an https URL"));
    }
}
