//! The push services that the configuration names, each with its credential.

use std::sync::Arc;

use anyhow::{Context, Result};
use sotto_model::Clock;
use sotto_storage::push_registry::{Lane, Platform};
use sotto_storage::wakeup_quota::WakeupQuota;
use sotto_wakeup::{
    Apns, ApnsConfig, Fcm, FcmConfig, HttpTimings, PushService, Pusher, UnifiedPush, WebPush, WebPushConfig,
};

#[cfg(test)]
use sotto_wakeup::AddressGuard;

use crate::clock::SystemClock;
use crate::push_config::{ApnsApp, FcmApp, Push};
use crate::registrar::PushReach;

pub(crate) struct PushServices {
    pub(crate) services: Vec<PushService>,
    pub(crate) reach: PushReach,
    /// Of each tenant.
    pub(crate) quota: WakeupQuota,
}

impl PushServices {
    /// UnifiedPush alone, over a pusher of a test's.
    #[cfg(test)]
    pub(crate) fn through(pusher: Arc<dyn Pusher>) -> Self {
        let lane = Lane::without_app(Platform::UnifiedPush);
        let reach = PushReach { lanes: [lane.clone()].into(), guard: AddressGuard::new([]) };
        let services = vec![PushService { lane, pusher }];
        Self { services, reach, quota: WakeupQuota::default() }
    }

    /// Reads the credentials; connects to nobody yet.
    pub(crate) fn open(push: &Push, clock: &Arc<SystemClock>) -> Result<Self> {
        let reach = push.reach();
        let clock: Arc<dyn Clock> = clock.clone();
        let roots = push.extra_ca.as_deref();
        let mut services = Vec::new();
        let mut add = |lane: Lane, pusher: Arc<dyn Pusher>| services.push(PushService { lane, pusher });
        let guard = || push.allow_networks.iter().copied();
        let unified_push = UnifiedPush::new(clock.clone(), guard(), roots).context("push.extra_ca_file")?;
        add(Lane::without_app(Platform::UnifiedPush), Arc::new(unified_push));
        for app in &push.apns {
            add(app.lane(), Arc::new(apns(app, roots, clock.clone()).context("[[push.apns]]")?));
        }
        for app in &push.fcm {
            add(app.lane(), Arc::new(fcm(app, roots, clock.clone()).context("[[push.fcm]]")?));
        }
        if let Some(identity) = &push.browsers {
            let config = WebPushConfig {
                key_file: identity.key_file.clone(),
                subject: identity.contact.clone(),
                allow_networks: push.allow_networks.clone(),
                extra_roots: roots.map(<[u8]>::to_vec),
                timings: HttpTimings::default(),
            };
            let web_push = WebPush::new(config, clock).context("[push.web_push]")?;
            add(Lane::without_app(Platform::WebPush), Arc::new(web_push));
        }
        Ok(Self { services, reach, quota: push.quota })
    }
}

fn fcm(app: &FcmApp, roots: Option<&[u8]>, clock: Arc<dyn Clock>) -> Result<Fcm> {
    let config = FcmConfig {
        project: app.project.clone(),
        service_account_file: app.service_account_file.clone(),
        base_url: app.url().parse().with_context(|| format!("url {}", app.url()))?,
        extra_roots: roots.map(<[u8]>::to_vec),
        timings: HttpTimings::default(),
    };
    Ok(Fcm::new(config, clock)?)
}

fn apns(app: &ApnsApp, roots: Option<&[u8]>, clock: Arc<dyn Clock>) -> Result<Apns> {
    let config = ApnsConfig {
        topic: app.topic.clone(),
        team_id: app.team_id.clone(),
        key_id: app.key_id.clone(),
        key_file: app.key_file.clone(),
        base_url: app.url().parse().with_context(|| format!("url {}", app.url()))?,
        extra_roots: roots.map(<[u8]>::to_vec),
        timings: HttpTimings::default(),
    };
    Ok(Apns::new(config, clock)?)
}
