//! Wakes sleeping phones with a push that carries no content.
//!
//! ```text
//! committer ─ring─▶ relay: outbox row → one due wakeup a sleeping device
//!                     └─ring─▶ dispatcher: claim under a lease → open the token → still asleep?
//!                                          → Pusher::push → settle
//! ```

pub mod address_guard;
pub mod breaker;
mod delivery;
mod dispatcher;
pub mod endpoint;
mod housekeeping;
pub mod limits;
pub mod pusher;
mod relay;
mod retry_after;
pub mod service;
mod settlement;
pub mod signal;
pub mod token_vault;
pub mod unified_push;

pub use address_guard::{AddressGuard, AddressRefused};
pub use breaker::{Breaker, BreakerState, Permit};
pub use endpoint::{Endpoint, EndpointError};
pub use pusher::{CredentialState, PushOutcome, PushToken, Pusher, Wakeup};
pub use service::WakeupService;
pub use signal::Signal;
pub use token_vault::TokenVault;
pub use unified_push::{UnifiedPush, UnifiedPushError};
