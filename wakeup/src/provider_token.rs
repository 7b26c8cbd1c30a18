//! The statement that a request to APNs comes from the app's owner: minted seldom, shared by all requests.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use serde_json::json;
use sotto_model::UnixMillis;
use zeroize::Zeroizing;

use crate::jwt::{Es256Key, SignError};
use crate::limits::{PROVIDER_TOKEN_AGE_MAX, PROVIDER_TOKEN_AGE_MIN, PROVIDER_TOKEN_RENEW};

/// One key's tokens. Made anew with another key.
pub(crate) struct ProviderTokens {
    key: Es256Key,
    key_id: String,
    team_id: String,
    /// Locked by whoever pushes, while minting too: so nobody mints a second one meanwhile.
    minted: Mutex<Minted>,
}

#[derive(Default)]
struct Minted {
    current: Option<Token>,
    /// The one beside it: what to go back to when the service finds that there are too many, and what was
    /// gone back from.
    other: Option<Token>,
    /// None is minted before.
    not_before: Option<Instant>,
}

#[derive(Clone)]
struct Token {
    /// Marked as sensitive, so that it is neither shown nor kept in a header table.
    bearer: HeaderValue,
    at: Instant,
}

impl ProviderTokens {
    pub(crate) fn new(key: Es256Key, key_id: &str, team_id: &str) -> Self {
        Self { key, key_id: key_id.to_owned(), team_id: team_id.to_owned(), minted: Mutex::default() }
    }

    /// The value of `authorization`.
    pub(crate) fn bearer(&self, now: Instant, unix_now: UnixMillis) -> Result<HeaderValue, SignError> {
        let mut minted = self.minted.lock();
        if !minted.may_mint(now) && !minted.current_is_young(now) {
            minted.exchange(now);
        }
        if let Some(token) = &minted.current
            && (token.age(now) < PROVIDER_TOKEN_RENEW || !minted.may_mint(now) && token.is_young(now))
        {
            return Ok(token.bearer.clone());
        }
        self.mint(&mut minted, now, unix_now)
    }

    /// The service found `refused` to be too old: another one, unless it is too soon for that.
    pub(crate) fn expired(
        &self,
        refused: &HeaderValue,
        now: Instant,
        unix_now: UnixMillis,
    ) -> Option<HeaderValue> {
        let mut minted = self.minted.lock();
        match &minted.current {
            Some(token) if token.bearer != *refused => Some(token.bearer.clone()),
            Some(token) if token.age(now) < PROVIDER_TOKEN_AGE_MIN || !minted.may_mint(now) => None,
            _ => self.mint(&mut minted, now, unix_now).ok(),
        }
    }

    /// The service found that there are too many tokens, `refused` being one: the one before it, where that
    /// is still good. None is minted for a while.
    pub(crate) fn too_many(&self, refused: &HeaderValue, now: Instant) -> Option<HeaderValue> {
        let mut minted = self.minted.lock();
        minted.not_before = Some(now + PROVIDER_TOKEN_AGE_MIN);
        let is_in_use = minted.current.as_ref().is_some_and(|token| token.bearer == *refused);
        if is_in_use && !minted.exchange(now) {
            return None;
        }
        minted.current.as_ref().map(|token| token.bearer.clone())
    }

    fn mint(
        &self,
        minted: &mut Minted,
        now: Instant,
        unix_now: UnixMillis,
    ) -> Result<HeaderValue, SignError> {
        let header = json!({ "alg": "ES256", "kid": self.key_id });
        let claims = json!({ "iss": self.team_id, "iat": unix_now.0 / 1000 });
        let token = self.key.sign(&header, &claims)?;
        let bearer = Zeroizing::new(format!("bearer {}", token.as_str()));
        let mut bearer = HeaderValue::from_str(&bearer).expect("base64url is visible ASCII");
        bearer.set_sensitive(true);
        minted.other = minted.current.replace(Token { bearer: bearer.clone(), at: now });
        minted.not_before = Some(now + PROVIDER_TOKEN_AGE_MIN);
        Ok(bearer)
    }
}

impl Minted {
    fn may_mint(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    fn current_is_young(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|token| token.is_young(now))
    }

    /// Uses the other one, where that is still good.
    fn exchange(&mut self, now: Instant) -> bool {
        let is_good = self.other.as_ref().is_some_and(|token| token.is_young(now));
        if is_good {
            std::mem::swap(&mut self.current, &mut self.other);
        }
        is_good
    }
}

impl Token {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// The service still takes it.
    fn is_young(&self, now: Instant) -> bool {
        self.age(now) < PROVIDER_TOKEN_AGE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use sotto_model::Clock;

    use super::*;
    use crate::testing::ManualClock;

    fn tokens() -> ProviderTokens {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        ProviderTokens::new(Es256Key::from_pem(pem.as_bytes()).expect("a key"), "KEY0000001", "TEAM000001")
    }

    fn bearer(tokens: &ProviderTokens, clock: &ManualClock) -> HeaderValue {
        tokens.bearer(clock.now(), clock.unix_now()).expect("signed")
    }

    #[test]
    fn one_token_serves_all_until_it_is_renewed() {
        let (tokens, clock) = (tokens(), ManualClock::new());
        let first = bearer(&tokens, &clock);
        clock.advance(PROVIDER_TOKEN_RENEW.saturating_sub(Duration::from_millis(1)));
        assert_eq!(bearer(&tokens, &clock), first);
        clock.advance(Duration::from_millis(1));
        let second = bearer(&tokens, &clock);
        assert_ne!(second, first);
        assert_eq!(bearer(&tokens, &clock), second);
        assert_eq!(format!("{second:?}"), "Sensitive");
    }

    #[test]
    fn one_that_the_service_finds_too_old_is_replaced_once_and_not_too_soon() {
        let (tokens, clock) = (tokens(), ManualClock::new());
        let first = bearer(&tokens, &clock);
        clock.advance(PROVIDER_TOKEN_AGE_MIN.saturating_sub(Duration::from_secs(1)));
        assert_eq!(tokens.expired(&first, clock.now(), clock.unix_now()), None);
        clock.advance(Duration::from_secs(1));
        let second = tokens.expired(&first, clock.now(), clock.unix_now()).expect("another");
        assert_ne!(second, first);
        // All others whose push was refused with it get the same.
        assert_eq!(tokens.expired(&first, clock.now(), clock.unix_now()), Some(second.clone()));
        assert_eq!(bearer(&tokens, &clock), second);
    }

    #[test]
    fn too_many_tokens_lead_back_to_the_one_before() {
        let (tokens, clock) = (tokens(), ManualClock::new());
        let first = bearer(&tokens, &clock);
        clock.advance(PROVIDER_TOKEN_RENEW);
        let second = bearer(&tokens, &clock);
        assert_eq!(tokens.too_many(&second, clock.now()), Some(first.clone()));
        clock.advance(PROVIDER_TOKEN_AGE_MIN.saturating_sub(Duration::from_secs(1)));
        assert_eq!(bearer(&tokens, &clock), first, "it is kept while it is good");
        clock.advance(Duration::from_secs(1));
        let third = bearer(&tokens, &clock);
        assert!(third != first && third != second);
    }

    #[test]
    fn the_only_token_is_kept_when_there_are_too_many() {
        let (tokens, clock) = (tokens(), ManualClock::new());
        let first = bearer(&tokens, &clock);
        assert_eq!(tokens.too_many(&first, clock.now()), None);
        assert_eq!(bearer(&tokens, &clock), first);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn none_is_minted_sooner_than_allowed_nor_used_longer(
            steps in proptest::collection::vec((0u64..1800, 0u8..4), 1..40),
        ) {
            let (tokens, clock) = (tokens(), ManualClock::new());
            let mut seen = HashSet::new();
            let mut minted_at: Vec<(Instant, HeaderValue)> = Vec::new();
            for (seconds, what) in steps {
                clock.advance(Duration::from_secs(seconds));
                let now = clock.now();
                let used = bearer(&tokens, &clock);
                let mut all = vec![used.clone()];
                match what {
                    0 => all.extend(tokens.expired(&used, now, clock.unix_now())),
                    1 => all.extend(tokens.too_many(&used, now)),
                    _ => {}
                }
                for bearer in all {
                    if seen.insert(bearer.as_bytes().to_vec()) {
                        if let Some((last, _)) = minted_at.last() {
                            prop_assert!(now - *last >= PROVIDER_TOKEN_AGE_MIN);
                        }
                        minted_at.push((now, bearer.clone()));
                    }
                    let (at, _) = minted_at.iter().find(|(_, minted)| *minted == bearer).expect("seen");
                    prop_assert!(now - *at < PROVIDER_TOKEN_AGE_MAX);
                }
            }
        }
    }
}
