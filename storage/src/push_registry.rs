//! Where each device is to be woken.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sotto_model::{DeviceId, TenantId, UnixMillis, UserId};

use crate::directory::DirectoryError;
use crate::error::StoreError;

/// The push service of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Platform {
    UnifiedPush = 1,
    Apns = 2,
    Fcm = 3,
    WebPush = 4,
}

impl Platform {
    pub const ALL: [Self; 4] = [Self::UnifiedPush, Self::Apns, Self::Fcm, Self::WebPush];

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| *platform as u8 == code)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnifiedPush => "unified_push",
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::WebPush => "web_push",
        }
    }
}

/// The way that a wakeup takes: a push service, and the app for whose credential it is. Wakeups are claimed
/// by lane, so that a service that stalls holds up no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    pub platform: Platform,
    /// An APNs topic or an FCM project; empty for services that any server may call.
    pub app: Box<str>,
}

impl Lane {
    /// Of a service that any server may call.
    pub fn without_app(platform: Platform) -> Self {
        Self { platform, app: "".into() }
    }
}

/// `apns:org.example.app`, or the platform alone.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.platform.as_str())?;
        if self.app.is_empty() { Ok(()) } else { write!(f, ":{}", self.app) }
    }
}

/// A device's push registration; its token or endpoint is sealed.
#[derive(Clone)]
pub struct PushRegistration {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub platform: Platform,
    /// See [`Lane::app`].
    pub app: Box<str>,
    pub sealed_token: Bytes,
    /// Keyed hash of the token, to find it without opening it.
    pub lookup: [u8; 32],
    pub registered_at: UnixMillis,
}

impl PushRegistration {
    pub fn lane(&self) -> Lane {
        Lane { platform: self.platform, app: self.app.clone() }
    }
}

/// Every change writes an audit row in its own transaction.
#[async_trait]
pub trait PushRegistry: Send + Sync {
    /// Replaces what the device had. Where the token or its lane is another, an outstanding wakeup goes on in the
    /// new lane: due at once, even when it was sent, without failed attempts and to no one's lease.
    ///
    /// A token is one device's: another of the tenant that was registered with it is unregistered, so that a phone
    /// that was handed on, or an app that was installed anew, is not woken for whom it was before.
    ///
    /// `actor`: the user whose device asked; `None` for an operator.
    async fn register(
        &self,
        registration: &PushRegistration,
        actor: Option<UserId>,
    ) -> Result<(), DirectoryError>;
    /// Takes the registration away, its outstanding wakeup too. Done already is no error.
    async fn unregister(
        &self,
        tenant: TenantId,
        device: DeviceId,
        actor: Option<UserId>,
        now: UnixMillis,
    ) -> Result<(), StoreError>;
    async fn registrations(&self, tenant: TenantId) -> Result<Vec<PushRegistration>, StoreError>;
}
