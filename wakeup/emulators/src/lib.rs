//! Push services for tests, of this machine alone: real TLS, real HTTP/2, and the checks that the real
//! services say they make. They record every request, and fail when they are told to.
//!
//! ```text
//! Server: TLS ─▶ wire (freezes, says GOAWAY) ─▶ HTTP/2 ─▶ script (faults) ─▶ Service: the answer
//! ```

pub mod apns;
pub mod authority;
pub mod fcm;
pub mod request;
pub mod script;
pub mod server;
mod statement;
pub mod wall_clock;
pub mod web_push;
mod wire;

pub use apns::ApnsEmulator;
pub use authority::Authority;
pub use fcm::FcmEmulator;
pub use request::{Answer, Request};
pub use script::{Fault, Script};
pub use server::{Server, Service};
pub use wall_clock::WallClock;
pub use web_push::WebPushEmulator;
