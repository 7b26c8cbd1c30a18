//! What a push service is told, and what it answers.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sotto_model::{UnixMillis, Urgency};
use sotto_storage::push_registry::Platform;
use zeroize::Zeroizing;

/// Everything that is known of a wakeup where it leaves: which device to wake, and how. There is no
/// payload, topic, sender or count here that could leak.
#[derive(Debug)]
pub struct Wakeup {
    pub token: PushToken,
    pub platform: Platform,
    pub urgency: Urgency,
}

/// What the push service knows a device by. It cannot be shown.
pub struct PushToken(Zeroizing<String>);

/// What became of one push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    Delivered,
    /// This device's push not now. The service may have said how long to wait.
    RetryAfter(Option<Duration>),
    /// The service takes nobody's push: it cannot be reached, is overloaded, or a quota of all is used up.
    Unavailable(Option<Duration>),
    /// Our credential is refused, or cannot be had: nobody's push is taken until it has changed. Names why,
    /// in our words.
    CredentialRefused(&'static str),
    /// Not tried: the service is being left alone for so long.
    Deferred(Duration),
    /// The service does not know the token any more, or has not since the moment that it names.
    TokenInvalid {
        since: Option<UnixMillis>,
    },
    /// Trying again would not help. Names why, in our words.
    Rejected(&'static str),
}

/// Hands wakeups to a push service.
#[async_trait]
pub trait Pusher: Send + Sync + 'static {
    /// Returns within a bounded time. What the service said beyond the outcome stays inside.
    async fn push(&self, wakeup: Wakeup) -> PushOutcome;

    /// The credential in use; asking looks now and then whether its file has changed. What has opened a
    /// breaker may be mended by a new one, so whoever keeps a breaker asks.
    fn credential(&self) -> CredentialState {
        CredentialState::default()
    }

    /// Why a service could not be asked the last time that one could not, in our words.
    fn last_trouble(&self) -> Option<(&'static str, UnixMillis)> {
        None
    }

    /// What those who are to be pushed to have to know: the public half of the credential.
    fn public_key(&self) -> Option<String> {
        None
    }
}

/// Which credential a pusher uses, without showing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialState {
    /// Rises with every file taken into use.
    pub generation: u64,
    /// Since when it is in use; `None` where there is no credential.
    pub since: Option<UnixMillis>,
}

impl PushOutcome {
    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::RetryAfter(_) => "retry_after",
            Self::Unavailable(_) => "unavailable",
            Self::CredentialRefused(_) => "credential_refused",
            Self::Deferred(_) => "deferred",
            Self::TokenInvalid { .. } => "token_invalid",
            Self::Rejected(_) => "rejected",
        }
    }
}

impl PushToken {
    pub fn new(token: String) -> Self {
        Self(Zeroizing::new(token))
    }

    /// For the request to the push service alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wakeup_does_not_show_its_token() {
        let token = PushToken::new("secret".to_owned());
        let wakeup = Wakeup { token, platform: Platform::Apns, urgency: Urgency::High };
        assert!(!format!("{wakeup:?}").contains("secret"));
    }
}
