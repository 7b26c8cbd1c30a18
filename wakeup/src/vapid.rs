//! The statement by which a push service of the Web knows this server: one for each origin. [RFC 8292]

use std::collections::HashMap;
use std::time::Instant;

use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use serde_json::json;
use sotto_model::UnixMillis;
use zeroize::Zeroizing;

use crate::jwt::{Es256Key, SignError};
use crate::limits::{ORIGINS_MAX, VAPID_AGE_MAX, VAPID_RENEW_BEFORE};

/// One key's statements. Made anew with another key.
pub(crate) struct Vapid {
    key: Es256Key,
    /// Whom the push service may turn to.
    subject: String,
    /// By origin. Locked by whoever pushes, while signing too: so nobody signs the same meanwhile.
    statements: Mutex<HashMap<String, Statement>>,
}

struct Statement {
    /// Marked as sensitive, so that it is neither shown nor kept in a header table.
    authorization: HeaderValue,
    renew_at: Instant,
}

impl Vapid {
    pub(crate) fn new(key: Es256Key, subject: &str) -> Self {
        Self { key, subject: subject.to_owned(), statements: Mutex::default() }
    }

    /// What browsers call `applicationServerKey`, in base64url.
    pub(crate) fn public_key(&self) -> String {
        BASE64URL_NOPAD.encode(self.key.public_key())
    }

    /// The value of `authorization` for requests to `origin`.
    pub(crate) fn authorization(
        &self,
        origin: &str,
        now: Instant,
        unix_now: UnixMillis,
    ) -> Result<HeaderValue, SignError> {
        let mut statements = self.statements.lock();
        if let Some(statement) = statements.get(origin)
            && now < statement.renew_at
        {
            return Ok(statement.authorization.clone());
        }
        let authorization = self.sign(origin, unix_now)?;
        if statements.len() >= ORIGINS_MAX && !statements.contains_key(origin) {
            let oldest = statements.iter().min_by_key(|(_, statement)| statement.renew_at);
            let oldest = oldest.map(|(origin, _)| origin.clone()).expect("there are some");
            statements.remove(&oldest);
        }
        let renew_at = now + VAPID_AGE_MAX.saturating_sub(VAPID_RENEW_BEFORE);
        statements.insert(origin.to_owned(), Statement { authorization: authorization.clone(), renew_at });
        Ok(authorization)
    }

    /// The service does not take it: the next request gets another one.
    pub(crate) fn forget(&self, origin: &str) {
        self.statements.lock().remove(origin);
    }

    fn sign(&self, origin: &str, unix_now: UnixMillis) -> Result<HeaderValue, SignError> {
        let header = json!({ "typ": "JWT", "alg": "ES256" });
        let ends = unix_now.saturating_add(VAPID_AGE_MAX).0 / 1000;
        let claims = json!({ "aud": origin, "exp": ends, "sub": self.subject });
        let token = self.key.sign(&header, &claims)?;
        let value = Zeroizing::new(format!("vapid t={}, k={}", token.as_str(), self.public_key()));
        let mut value = HeaderValue::from_str(&value).expect("base64url is visible ASCII");
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use sotto_model::Clock;

    use super::*;
    use crate::testing::ManualClock;

    fn vapid() -> Vapid {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        Vapid::new(Es256Key::from_pem(pem.as_bytes()).expect("a key"), "mailto:push@example.org")
    }

    fn authorization(vapid: &Vapid, clock: &ManualClock, origin: &str) -> HeaderValue {
        vapid.authorization(origin, clock.now(), clock.unix_now()).expect("signed")
    }

    #[test]
    fn an_origin_has_one_statement_until_it_is_renewed_or_refused() {
        let (vapid, clock) = (vapid(), ManualClock::new());
        let first = authorization(&vapid, &clock, "https://a");
        assert_ne!(authorization(&vapid, &clock, "https://b"), first);
        clock.advance(std::time::Duration::from_hours(10));
        assert_eq!(authorization(&vapid, &clock, "https://a"), first);
        clock.advance(std::time::Duration::from_hours(1));
        let second = authorization(&vapid, &clock, "https://a");
        assert_ne!(second, first);
        vapid.forget("https://a");
        assert_ne!(authorization(&vapid, &clock, "https://a"), second);
        assert_eq!(format!("{second:?}"), "Sensitive");
    }

    #[test]
    fn no_more_statements_are_kept_than_the_bound() {
        let (vapid, clock) = (vapid(), ManualClock::new());
        for n in 0..ORIGINS_MAX + 50 {
            authorization(&vapid, &clock, &format!("https://{n}"));
        }
        assert_eq!(vapid.statements.lock().len(), ORIGINS_MAX);
    }

    #[test]
    fn the_public_key_is_an_uncompressed_point_in_base64url() {
        let key = BASE64URL_NOPAD.decode(vapid().public_key().as_bytes()).expect("base64url");
        assert_eq!((key.len(), key[0]), (65, 4));
    }
}
