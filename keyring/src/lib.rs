//! Envelope encryption at rest.
//!
//! A key service ([`Kms`]) wraps one epoch key per tenant and rotation. The epoch key wraps random data
//! keys, one per conversation and a few per tenant, and those seal. [`KeyStore`] keeps the wrapped keys.

pub mod key_scope;
pub mod key_store;
pub mod kms;
pub mod sealed;

pub use key_scope::{Epoch, KeyId, KeyScope};
pub use key_store::{KeyStore, KeyStoreError, WrappedDataKey, WrappedEpochKey};
pub use kms::{GeneratedKey, KeyContext, KeyPurpose, Kms, KmsError, PlainKey};
pub use sealed::{Place, Sealed};
