//! Where each device is to be woken.

use async_trait::async_trait;
use bytes::Bytes;
use sotto_model::{DeviceId, TenantId, UnixMillis};

use crate::directory::DirectoryError;
use crate::error::StoreError;

/// The push service of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Platform {
    UnifiedPush = 1,
}

impl Platform {
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::UnifiedPush),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnifiedPush => "unified_push",
        }
    }
}

/// A device's push registration; its token or endpoint is sealed.
#[derive(Clone)]
pub struct PushRegistration {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub platform: Platform,
    pub sealed_token: Bytes,
    /// Keyed hash of the token, to find it without opening it.
    pub lookup: [u8; 32],
    pub registered_at: UnixMillis,
}

/// Every change writes an audit row in its own transaction.
#[async_trait]
pub trait PushRegistry: Send + Sync {
    /// Replaces what the device had.
    async fn register(&self, registration: &PushRegistration) -> Result<(), DirectoryError>;
    /// Takes the registration away, its outstanding wakeup too. Done already is no error.
    async fn unregister(&self, tenant: TenantId, device: DeviceId, now: UnixMillis)
    -> Result<(), StoreError>;
    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError>;
}
