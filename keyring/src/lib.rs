//! Envelope encryption at rest.
//!
//! A key service ([`Kms`]) wraps one epoch key per tenant and rotation. The epoch key wraps random data
//! keys, one per conversation and a few per tenant, and those seal. [`KeyStore`] keeps the wrapped keys;
//! unwrapped ones live in a cache for at most [`limits::KEY_AGE_MAX`].
//!
//! [`Keyring::seal`] and [`Keyring::open`] never wait. Where a key is not at hand they say so, with the
//! [`KeyRequest`] that [`Keyring::warm`] fetches it by.

mod cache;
mod commitment;
mod data_key;
mod frame;
pub mod key_request;
pub mod key_scope;
pub mod key_store;
pub mod keyring;
pub mod kms;
pub mod limits;
pub mod local;
mod nonce;
mod rotation;
pub mod sealed;
pub mod secret;
mod single_flight;
mod warming;
mod wrapping;

pub use key_request::{KeyRequest, KeyUnavailable};
pub use key_scope::{Epoch, KeyId, KeyScope};
pub use key_store::{KeyStore, KeyStoreError, WrappedDataKey, WrappedEpochKey};
pub use keyring::{Keyring, OpenError, SealError};
pub use kms::{GeneratedKey, KeyContext, KeyPurpose, Kms, KmsError, PlainKey};
pub use limits::KeyringLimits;
pub use local::{LocalKms, LocalKmsError};
pub use sealed::{Place, Sealed};
pub use secret::{SecretError, SecretPurpose};
