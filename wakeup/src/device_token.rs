//! What a device says that its push service knows it by: supplied by its user, and never trusted.

use std::fmt;

use sotto_storage::push_registry::Platform;
use zeroize::Zeroizing;

use crate::endpoint::{Endpoint, EndpointError};
use crate::limits::{APNS_TOKEN_DIGITS_MAX, APNS_TOKEN_DIGITS_MIN, FCM_TOKEN_BYTES_MAX};

/// Of the form that its platform gives tokens, safe in a URL's path and in JSON as it stands. It cannot be
/// shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceToken(Zeroizing<String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceTokenError {
    #[error("APNs token is not {APNS_TOKEN_DIGITS_MIN} to {APNS_TOKEN_DIGITS_MAX} hexadecimal digits")]
    Apns,
    #[error("FCM token is not 1 to {FCM_TOKEN_BYTES_MAX} letters, digits, or characters of -_:.")]
    Fcm,
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl DeviceToken {
    pub fn parse(platform: Platform, raw: &str) -> Result<Self, DeviceTokenError> {
        match platform {
            Platform::Apns => Self::apns(raw),
            Platform::Fcm => Self::fcm(raw),
            Platform::UnifiedPush | Platform::WebPush => {
                Ok(Self(Zeroizing::new(Endpoint::parse(raw)?.reveal().to_owned())))
            }
        }
    }

    /// As it is stored, sealed: parsing it gives the same token.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn apns(raw: &str) -> Result<Self, DeviceTokenError> {
        let is_token = (APNS_TOKEN_DIGITS_MIN..=APNS_TOKEN_DIGITS_MAX).contains(&raw.len())
            && raw.len().is_multiple_of(2)
            && raw.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_token {
            return Err(DeviceTokenError::Apns);
        }
        // Two spellings would be two tokens.
        Ok(Self(Zeroizing::new(raw.to_ascii_lowercase())))
    }

    pub(crate) fn fcm(raw: &str) -> Result<Self, DeviceTokenError> {
        let is_token = (1..=FCM_TOKEN_BYTES_MAX).contains(&raw.len())
            && raw.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte));
        if is_token { Ok(Self(Zeroizing::new(raw.to_owned()))) } else { Err(DeviceTokenError::Fcm) }
    }
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apns_token_is_hexadecimal_and_spelled_in_one_way() {
        let token = "0A".repeat(32);
        let parsed = DeviceToken::parse(Platform::Apns, &token).expect("a token");
        assert_eq!(parsed.reveal(), "0a".repeat(32));
        for bad in ["", "0a", &"0a".repeat(101), &"../".repeat(32), &"0g".repeat(32), &"a".repeat(65)] {
            assert_eq!(DeviceToken::parse(Platform::Apns, bad), Err(DeviceTokenError::Apns), "{bad}");
        }
    }

    #[test]
    fn an_fcm_token_needs_no_escaping() {
        let token = "dGVzdA-_:APA91b.x";
        assert_eq!(DeviceToken::parse(Platform::Fcm, token).expect("a token").reveal(), token);
        for bad in ["", "a\"b", "a b", "a\\", "ä", "a\n", &"a".repeat(FCM_TOKEN_BYTES_MAX + 1)] {
            assert_eq!(DeviceToken::parse(Platform::Fcm, bad), Err(DeviceTokenError::Fcm), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_a_token_too() {
        let error = DeviceToken::parse(Platform::WebPush, "http://push.example/");
        assert_eq!(error, Err(DeviceTokenError::Endpoint(EndpointError::NotHttps)));
        assert!(DeviceToken::parse(Platform::UnifiedPush, "https://push.example/x").is_ok());
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = DeviceToken::parse(Platform::Fcm, "secret").expect("a token");
        assert_eq!(format!("{token:?}"), "DeviceToken(..)");
    }
}
