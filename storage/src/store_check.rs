//! Is a store whole? Read, never changed, while a broker runs on it or on a copy of it.
//!
//! ```text
//! backend ── rows as they stand ──▶ Judge ── findings
//!    └────── sealed rows, by pages ─▶ verify ── opens each with its key ─▶ Judge
//! ```
//!
//! A backend says what its rows hold, a [`Judge`] what of that cannot be: so both backends are held to the
//! same, and what is judged is tested without either. Everything but sealed rows is read in one
//! short transaction. Sealed rows are many and never change: they are read by pages, each a statement of
//! its own, so that a long check keeps no version of the rest alive.

pub mod finding;
pub mod judge;
pub mod row;
pub mod verify;

use async_trait::async_trait;
use sotto_keyring::{Epoch, KeyId};
use sotto_model::TenantId;

use crate::Store;
use crate::error::StoreError;

pub use finding::{Finding, FindingKind, Findings, Subject};
pub use judge::Judge;
pub use row::{LogPlace, MessageRow, PushTokenRow, RetainedRow, WillRow};
pub use verify::{Extent, Progress, Report, VerifyError, verify};

/// How a backend is looked through. Nothing here writes.
#[async_trait]
pub trait StoreCheck: Store {
    /// Hands everything but sealed rows to the judge, as it stands at one moment. `thorough`: whatever else the
    /// database can say of its own files, however long that takes.
    async fn check_state(&self, judge: &mut Judge, thorough: bool) -> Result<(), StoreError>;

    /// By tenant and epoch, after `after`.
    async fn epoch_keys(
        &self,
        after: Option<(TenantId, Epoch)>,
        limit: usize,
    ) -> Result<Vec<(TenantId, Epoch)>, StoreError>;

    /// By id, after `after`.
    async fn data_keys(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, TenantId)>, StoreError>;

    /// The log of one tenant after `after`, by place.
    async fn messages(&self, after: LogPlace, limit: usize) -> Result<Vec<MessageRow>, StoreError>;

    /// By topic number, after `after`.
    async fn retained_copies(&self, after: Option<i64>, limit: usize)
    -> Result<Vec<RetainedRow>, StoreError>;

    /// By message id, after `after`.
    async fn kept_wills(&self, after: Option<uuid::Uuid>, limit: usize) -> Result<Vec<WillRow>, StoreError>;

    /// By device, after `after`.
    async fn push_tokens(
        &self,
        after: Option<uuid::Uuid>,
        limit: usize,
    ) -> Result<Vec<PushTokenRow>, StoreError>;
}
