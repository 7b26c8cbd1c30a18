//! The part of the configuration that says how sleeping devices are woken.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use sotto_storage::outbox::LANES_MAX;
use sotto_storage::push_registry::{Lane, Platform};
use sotto_storage::wakeup_quota::WakeupQuota;
use sotto_wakeup::AddressGuard;

use crate::registrar::PushReach;

const PUSH_APP_BYTES_MAX: usize = 128;
/// Of one tenant.
const WAKEUPS_PER_SECOND_DEFAULT: u32 = 1000;
const WAKEUPS_BURST_DEFAULT: u32 = 5000;

#[derive(Default)]
pub(crate) struct Push {
    /// Networks that endpoints may lead to although they are not public.
    pub(crate) allow_networks: Vec<IpNet>,
    /// PEM.
    pub(crate) extra_ca: Option<Vec<u8>>,
    pub(crate) quota: WakeupQuota,
    pub(crate) apns: Vec<ApnsApp>,
    pub(crate) fcm: Vec<FcmApp>,
    pub(crate) browsers: Option<WebPushIdentity>,
}

impl Push {
    /// What devices may be registered for.
    pub(crate) fn reach(&self) -> PushReach {
        let mut lanes = vec![Lane::without_app(Platform::UnifiedPush)];
        if self.browsers.is_some() {
            lanes.push(Lane::without_app(Platform::WebPush));
        }
        lanes.extend(self.apns.iter().map(ApnsApp::lane));
        lanes.extend(self.fcm.iter().map(FcmApp::lane));
        PushReach { lanes: lanes.into(), guard: AddressGuard::new(self.allow_networks.iter().copied()) }
    }

    /// Names what is wrong.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let lanes = self.reach().lanes;
        for (at, lane) in lanes.iter().enumerate() {
            if lane.app.len() > PUSH_APP_BYTES_MAX || lane.app.chars().any(char::is_control) {
                return Err("push: app, topic and project are at most 128 printable bytes");
            }
            if lanes[..at].contains(lane) {
                return Err("push: two entries have the same app or project; name them by app");
            }
        }
        if lanes.len() > LANES_MAX {
            return Err("push: more than 64 apps and projects");
        }
        Ok(())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushFile {
    #[serde(default)]
    allow_networks: Vec<IpNet>,
    pub(crate) extra_ca_file: Option<PathBuf>,
    wakeups_per_second: Option<u32>,
    wakeups_burst: Option<u32>,
    #[serde(default)]
    apns: Vec<ApnsApp>,
    #[serde(default)]
    fcm: Vec<FcmApp>,
    web_push: Option<WebPushIdentity>,
}

impl PushFile {
    /// `extra_ca`: what `extra_ca_file` holds.
    pub(crate) fn read(self, extra_ca: Option<Vec<u8>>) -> Push {
        Push {
            allow_networks: self.allow_networks,
            extra_ca,
            quota: WakeupQuota {
                per_second: self.wakeups_per_second.unwrap_or(WAKEUPS_PER_SECOND_DEFAULT),
                burst: self.wakeups_burst.unwrap_or(WAKEUPS_BURST_DEFAULT),
            },
            apns: self.apns,
            fcm: self.fcm,
            browsers: self.web_push,
        }
    }
}

/// An app for which Apple has given out a key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApnsApp {
    /// What devices name it by; the topic where absent.
    pub(crate) app: Option<String>,
    /// The bundle identifier.
    pub(crate) topic: String,
    pub(crate) team_id: String,
    pub(crate) key_id: String,
    /// PEM (.p8).
    pub(crate) key_file: PathBuf,
    #[serde(default)]
    pub(crate) environment: ApnsEnvironment,
    /// In the place of Apple's.
    pub(crate) url: Option<String>,
}

impl ApnsApp {
    pub(crate) fn lane(&self) -> Lane {
        Lane { platform: Platform::Apns, app: self.app.as_deref().unwrap_or(&self.topic).into() }
    }

    pub(crate) fn url(&self) -> &str {
        let apple = match self.environment {
            ApnsEnvironment::Production => "https://api.push.apple.com",
            ApnsEnvironment::Sandbox => "https://api.sandbox.push.apple.com",
        };
        self.url.as_deref().unwrap_or(apple)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ApnsEnvironment {
    #[default]
    Production,
    Sandbox,
}

/// A project for which Google has given out a service account.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FcmApp {
    /// What devices name it by.
    pub(crate) project: String,
    /// JSON.
    pub(crate) service_account_file: PathBuf,
    /// In the place of Google's.
    pub(crate) url: Option<String>,
}

impl FcmApp {
    pub(crate) fn lane(&self) -> Lane {
        Lane { platform: Platform::Fcm, app: self.project.as_str().into() }
    }

    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or("https://fcm.googleapis.com")
    }
}

/// Who we are to the push services of browsers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebPushIdentity {
    /// PEM: an EC key on P-256.
    pub(crate) key_file: PathBuf,
    /// `mailto:` or `https:`.
    pub(crate) contact: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str) -> Push {
        toml::from_str::<PushFile>(text).expect("a configuration").read(None)
    }

    fn apns(topic: &str, app: &str) -> String {
        let app = if app.is_empty() { String::new() } else { format!("app = \"{app}\"\n") };
        format!("[[apns]]\ntopic = \"{topic}\"\nteam_id = \"T\"\nkey_id = \"K\"\nkey_file = \"k\"\n{app}")
    }

    #[test]
    fn every_app_is_a_lane() {
        let text = format!(
            "{}[[fcm]]\nproject = \"p\"\nservice_account_file = \"s\"\n\
             [web_push]\nkey_file = \"v\"\ncontact = \"mailto:a@b\"\n",
            apns("org.example.app", "")
        );
        let lanes: Vec<String> = push(&text).reach().lanes.iter().map(Lane::to_string).collect();
        assert_eq!(lanes, ["unified_push", "web_push", "apns:org.example.app", "fcm:p"]);
        assert_eq!(push("").reach().lanes.len(), 1);
    }

    #[test]
    fn two_entries_for_one_app_are_told_apart_by_name() {
        let both = |name| apns("org.example.app", "") + &apns("org.example.app", name);
        assert!(push(&both("")).check().is_err());
        assert_eq!(push(&both("beta")).check(), Ok(()));
        assert!(push(&apns(&"x".repeat(PUSH_APP_BYTES_MAX + 1), "")).check().is_err());
    }

    #[test]
    fn apple_s_two_services_and_another_are_chosen_between() {
        let url = |line: &str| {
            let app =
                toml::from_str::<PushFile>(&format!("{}{line}", apns("a", ""))).expect("read").apns.remove(0);
            app.url().to_owned()
        };
        assert_eq!(url(""), "https://api.push.apple.com");
        assert_eq!(url("environment = \"sandbox\""), "https://api.sandbox.push.apple.com");
        assert_eq!(url("url = \"https://inside\""), "https://inside");
    }
}
