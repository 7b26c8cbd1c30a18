//! Who may connect, publish, subscribe and receive.
//!
//! Everything here is decided in memory and at once: nothing awaits, does I/O or reads a clock. The
//! permits that it hands out are what later steps demand instead of asking again.

mod acl;
pub mod authenticator;
pub mod journal;
pub mod limits;
pub mod name;
pub mod password;
pub mod permit;
pub mod policy;
pub mod scram;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod verified;

pub use authenticator::{
    Authenticator, Check, Identity, PasswordCheck, Refusal, ScramLogin, UserCredentials,
};
pub use journal::{Load, LoadError};
pub use name::{DeviceName, NameError, TenantName, UserName};
pub use password::{PasswordError, PasswordHash};
pub use permit::{Denied, PublishPermit};
pub use policy::{Member, Membership, Policy, PolicySnapshot};
pub use scram::{SCRAM_SHA_256, ScramCredentials, ScramError, ServerNonce};
