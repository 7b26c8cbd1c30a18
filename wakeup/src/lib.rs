//! Wakes sleeping phones with a push that carries no content.
//!
//! ```text
//! committer ─ring─▶ relay: outbox row → one due wakeup a sleeping device
//!                     └─ring─▶ dispatcher: claim under a lease → open the token → still asleep?
//!                                          → Pusher::push → settle
//! ```

mod access_token;
pub mod address_guard;
pub mod apns;
mod apns_answer;
mod attempts;
mod base_url;
pub mod breaker;
pub mod credential_file;
mod delivery;
pub mod device_token;
mod dispatcher;
pub mod endpoint;
mod endpoint_client;
pub mod fcm;
mod fcm_answer;
mod housekeeping;
pub mod http_client;
mod jwt;
pub mod limits;
mod origin_gates;
mod provider_token;
mod push_service;
pub mod pusher;
mod relay;
mod retry_after;
pub mod service;
mod service_account;
mod settlement;
mod settler;
pub mod signal;
pub mod target;
#[cfg(test)]
mod testing;
mod timing;
pub mod token_vault;
mod trouble;
pub mod unified_push;
mod vapid;
pub mod web_push;

pub use address_guard::{AddressGuard, AddressRefused};
pub use apns::{Apns, ApnsConfig};
pub use base_url::BaseUrl;
pub use breaker::{Breaker, BreakerState, Permit};
pub use device_token::{DeviceToken, DeviceTokenError};
pub use endpoint::{Endpoint, EndpointError};
pub use fcm::{Fcm, FcmConfig};
pub use http_client::{HttpTimings, PusherError};
pub use push_service::{PushService, ServiceHealth};
pub use pusher::{CredentialState, PushOutcome, PushToken, Pusher, Wakeup};
pub use service::{TestPushError, WakeupService, Wakeups};
pub use signal::Signal;
pub use target::{Target, TargetError, TargetRequest};
pub use token_vault::TokenVault;
pub use unified_push::UnifiedPush;
pub use web_push::{WebPush, WebPushConfig};
