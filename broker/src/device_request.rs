//! What a device asks of the server by publishing under `$sotto/`.
//!
//! | topic | payload |
//! |---|---|
//! | `$sotto/push` | `{"platform":"apns","token":"…"}`, with `"app":"…"` where several are configured; `{"platform":"web_push","endpoint":"https://…"}`; nothing: it is not to be woken any more |
//! | `$sotto/mute` | `{"conversation":"…","muted":true}` |
//!
//! It is spoken of the publishing device, or its user, and of nobody else. The answer is the PUBACK or PUBREC.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use sotto_model::{Backoff, Clock, ConversationId, DeviceId, Principal, TopicPolicy};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::directory::DirectoryError;
use sotto_storage::error::StoreError;
use sotto_wakeup::{Target, TargetError, TargetRequest};
use zeroize::Zeroizing;

use crate::registrar::RegisterError;
use crate::services::Services;

const PREFIX: &str = "$sotto/";
const PUSH: &str = "$sotto/push";
const MUTE: &str = "$sotto/mute";
/// A web push subscription with its keys is the longest that there is.
const PAYLOAD_BYTES_MAX: usize = 8192;
/// How long a request waits for a store or a key that is away, in all.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

pub(crate) struct DeviceRequest {
    principal: Principal,
    device: DeviceId,
    asked: Asked,
}

enum Asked {
    Register(Target),
    Unregister,
    Mute { conversation: ConversationId, muted: bool },
}

/// A browser's subscription has more members: the keys with which others would have content encrypted for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushPayload {
    platform: String,
    app: Option<String>,
    token: Option<Zeroizing<String>>,
    endpoint: Option<Zeroizing<String>>,
    #[serde(rename = "keys")]
    _keys: Option<IgnoredAny>,
    #[serde(rename = "expirationTime")]
    _expiration_time: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MutePayload {
    conversation: ConversationId,
    muted: bool,
}

enum Failure {
    /// May get better.
    Away,
    Final(ReasonCode),
}

/// Is a PUBLISH to this topic a request to the server? Where topics are not guarded nobody has devices.
pub(crate) fn is_request(principal: &Principal, topic: &str) -> bool {
    principal.topics == TopicPolicy::Membership && topic.starts_with(PREFIX)
}

impl DeviceRequest {
    pub(crate) fn parse(
        services: &Services,
        principal: &Principal,
        topic: &str,
        payload: &[u8],
    ) -> Result<Self, ReasonCode> {
        let device = principal.device.ok_or(ReasonCode::NotAuthorized)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ReasonCode::PayloadFormatInvalid);
        }
        let asked = match topic {
            PUSH if payload.is_empty() => Asked::Unregister,
            PUSH => {
                let asked: PushPayload = json(payload)?;
                let target = services.registrar.target(TargetRequest {
                    platform: &asked.platform,
                    app: asked.app.as_deref(),
                    token: asked.token.as_ref().map(|token| token.as_str()),
                    endpoint: asked.endpoint.as_ref().map(|endpoint| endpoint.as_str()),
                });
                Asked::Register(target.map_err(|error| reason(&error))?)
            }
            MUTE => {
                let MutePayload { conversation, muted } = json(payload)?;
                Asked::Mute { conversation, muted }
            }
            _ => return Err(ReasonCode::NotAuthorized),
        };
        Ok(Self { principal: principal.clone(), device, asked })
    }

    /// Returns when it is committed or refused.
    pub(crate) async fn carry_out(self, services: Arc<Services>) -> ReasonCode {
        let carried_out = async {
            let mut failures = 0;
            loop {
                match self.try_once(&services).await {
                    Ok(()) => return ReasonCode::Success,
                    Err(Failure::Final(reason)) => return reason,
                    Err(Failure::Away) => {
                        failures += 1;
                        tokio::time::sleep(RETRY.delay(failures, services.clock.draw())).await;
                    }
                }
            }
        };
        let outcome = tokio::time::timeout(DEADLINE, carried_out).await;
        outcome.unwrap_or(ReasonCode::ImplementationSpecificError)
    }

    async fn try_once(&self, services: &Services) -> Result<(), Failure> {
        let (tenant, user) = (self.principal.tenant, self.principal.user);
        match &self.asked {
            Asked::Register(target) => {
                match services.registrar.register(tenant, self.device, target, Some(user)).await {
                    Ok(()) => Ok(()),
                    Err(RegisterError::Key) => Err(Failure::Away),
                    Err(RegisterError::Directory(error)) => Err(failure(error)),
                }
            }
            Asked::Unregister => {
                let done = services.registrar.unregister(tenant, self.device, Some(user)).await;
                done.map_err(|error| of_store(&error))
            }
            Asked::Mute { conversation, muted } => {
                let now = services.clock.unix_now();
                let done =
                    services.store.set_muted(tenant, *conversation, user, *muted, Some(user), now).await;
                done.map_err(failure)
            }
        }
    }
}

fn json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, ReasonCode> {
    serde_json::from_slice(payload).map_err(|_| ReasonCode::PayloadFormatInvalid)
}

fn reason(error: &TargetError) -> ReasonCode {
    match error {
        TargetError::NotConfigured(_) | TargetError::App(_) | TargetError::AppNeeded(_) => {
            ReasonCode::ImplementationSpecificError
        }
        TargetError::Platform
        | TargetError::TokenNeeded(_)
        | TargetError::EndpointNeeded(_)
        | TargetError::Token(_)
        | TargetError::Address(_) => ReasonCode::PayloadFormatInvalid,
    }
}

fn failure(error: DirectoryError) -> Failure {
    match error {
        // Neither a device nor a membership is known: it has been removed, or never was.
        DirectoryError::Missing(_) => Failure::Final(ReasonCode::NotAuthorized),
        DirectoryError::Store(error) => of_store(&error),
        _ => Failure::Final(ReasonCode::ImplementationSpecificError),
    }
}

fn of_store(error: &StoreError) -> Failure {
    if error.is_transient() {
        return Failure::Away;
    }
    tracing::error!(event = "device_request_failed", error = %error, "a device's request could not be stored");
    Failure::Final(ReasonCode::ImplementationSpecificError)
}
