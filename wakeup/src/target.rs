//! Where a device says that it is to be woken, checked.

use std::fmt;

use sotto_storage::push_registry::{Lane, Platform};

use crate::address_guard::{AddressGuard, AddressRefused};
use crate::device_token::{DeviceToken, DeviceTokenError};
use crate::endpoint::Endpoint;

/// A token and the lane that leads to it. It cannot be shown.
#[derive(Clone)]
pub struct Target {
    lane: Lane,
    token: DeviceToken,
}

/// As a device or an operator writes it.
#[derive(Clone, Copy)]
pub struct TargetRequest<'a> {
    pub platform: &'a str,
    pub app: Option<&'a str>,
    pub token: Option<&'a str>,
    pub endpoint: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("platform is none of apns, fcm, web_push, unified_push")]
    Platform,
    #[error("push by {} is not configured here", .0.as_str())]
    NotConfigured(Platform),
    #[error("app is none that {} is configured for", .0.as_str())]
    App(Platform),
    #[error("app is needed: {} is configured for several", .0.as_str())]
    AppNeeded(Platform),
    #[error("{} takes a token, and no endpoint", .0.as_str())]
    TokenNeeded(Platform),
    #[error("{} takes an endpoint, and no token or app", .0.as_str())]
    EndpointNeeded(Platform),
    #[error(transparent)]
    Token(#[from] DeviceTokenError),
    #[error(transparent)]
    Address(#[from] AddressRefused),
}

impl Target {
    /// `lanes`: those for which there is a credential.
    pub fn parse(
        request: TargetRequest<'_>,
        lanes: &[Lane],
        guard: &AddressGuard,
    ) -> Result<Self, TargetError> {
        let platform = Platform::ALL.into_iter().find(|platform| platform.as_str() == request.platform);
        let platform = platform.ok_or(TargetError::Platform)?;
        let lane = lane(platform, request.app, lanes)?;
        let raw = match (platform, request.token, request.endpoint) {
            (Platform::Apns | Platform::Fcm, Some(token), None) => token,
            (Platform::WebPush | Platform::UnifiedPush, None, Some(endpoint)) => {
                guard.check_literal(&Endpoint::parse(endpoint).map_err(DeviceTokenError::from)?)?;
                endpoint
            }
            (Platform::Apns | Platform::Fcm, ..) => return Err(TargetError::TokenNeeded(platform)),
            (Platform::WebPush | Platform::UnifiedPush, ..) => {
                return Err(TargetError::EndpointNeeded(platform));
            }
        };
        Ok(Self { lane, token: DeviceToken::parse(platform, raw)? })
    }

    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(crate) fn reveal(&self) -> &str {
        self.token.reveal()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}, ..)", self.lane)
    }
}

/// Where one app alone is configured it need not be named.
fn lane(platform: Platform, app: Option<&str>, lanes: &[Lane]) -> Result<Lane, TargetError> {
    let mut of_platform = lanes.iter().filter(|lane| lane.platform == platform);
    let found = match (app, platform) {
        (Some(_), Platform::WebPush | Platform::UnifiedPush) => {
            return Err(TargetError::EndpointNeeded(platform));
        }
        (Some(app), _) => {
            let mut of_platform = of_platform.peekable();
            of_platform.peek().ok_or(TargetError::NotConfigured(platform))?;
            of_platform.find(|lane| *lane.app == *app).ok_or(TargetError::App(platform))?
        }
        (None, _) => {
            let first = of_platform.next().ok_or(TargetError::NotConfigured(platform))?;
            if of_platform.next().is_some() {
                return Err(TargetError::AppNeeded(platform));
            }
            first
        }
    };
    Ok(found.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00FC13ADFF785122B4AD28809A3420982341241421348097878E577C991DE8F0";

    fn lanes() -> Vec<Lane> {
        let lane = |platform, app: &str| Lane { platform, app: app.into() };
        vec![
            lane(Platform::UnifiedPush, ""),
            lane(Platform::Apns, "org.example.a"),
            lane(Platform::Apns, "org.example.b"),
            lane(Platform::Fcm, "project"),
        ]
    }

    fn parse(
        platform: &str,
        app: Option<&str>,
        token: Option<&str>,
        endpoint: Option<&str>,
    ) -> Result<(String, String), TargetError> {
        let request = TargetRequest { platform, app, token, endpoint };
        let target = Target::parse(request, &lanes(), &AddressGuard::new([]))?;
        assert_eq!(format!("{target:?}"), format!("Target({}, ..)", target.lane()));
        Ok((target.lane().to_string(), target.reveal().to_owned()))
    }

    #[test]
    fn a_token_is_kept_under_its_lane_in_one_spelling() {
        let lower = TOKEN.to_lowercase();
        let apns = parse("apns", Some("org.example.b"), Some(TOKEN), None);
        assert_eq!(apns, Ok(("apns:org.example.b".to_owned(), lower)));
        let fcm = parse("fcm", None, Some("dQw4:APA91b-x_y"), None);
        assert_eq!(fcm, Ok(("fcm:project".to_owned(), "dQw4:APA91b-x_y".to_owned())));
        let endpoint = "https://push.example/UP?id=1";
        let unified = parse("unified_push", None, None, Some(endpoint));
        assert_eq!(unified, Ok(("unified_push".to_owned(), endpoint.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        use Platform::{Apns, Fcm, UnifiedPush, WebPush};
        let (token, endpoint) = (Some(TOKEN), Some("https://push.example/x"));
        let apns = |token| parse("apns", Some("org.example.a"), Some(token), None);
        assert_eq!(apns("../x"), Err(TargetError::Token(DeviceTokenError::Apns)));
        assert_eq!(parse("pager", None, token, None), Err(TargetError::Platform));
        assert_eq!(parse("apns", None, token, None), Err(TargetError::AppNeeded(Apns)));
        assert_eq!(parse("apns", Some("org.other"), token, None), Err(TargetError::App(Apns)));
        assert_eq!(parse("web_push", None, None, endpoint), Err(TargetError::NotConfigured(WebPush)));
        assert_eq!(parse("fcm", None, None, endpoint), Err(TargetError::TokenNeeded(Fcm)));
        assert_eq!(parse("fcm", None, token, endpoint), Err(TargetError::TokenNeeded(Fcm)));
        let unified = |app, token, endpoint| parse("unified_push", app, token, endpoint);
        assert_eq!(unified(None, token, None), Err(TargetError::EndpointNeeded(UnifiedPush)));
        assert_eq!(unified(Some("x"), None, endpoint), Err(TargetError::EndpointNeeded(UnifiedPush)));
        assert!(matches!(
            unified(None, None, Some("http://push.example/")),
            Err(TargetError::Token(DeviceTokenError::Endpoint(_)))
        ));
        let inside = unified(None, None, Some("https://127.0.0.1/"));
        assert!(matches!(inside, Err(TargetError::Address(_))));
    }
}
