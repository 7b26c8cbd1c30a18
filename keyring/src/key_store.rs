//! Where wrapped keys are kept: a trait for the storage backends, its rows, its error.

use async_trait::async_trait;
use bytes::Bytes;
use sotto_model::TenantId;

use crate::key_scope::{Epoch, KeyId, KeyScope};

/// The row of one tenant epoch key. Table `epoch_keys`, primary key `(tenant_id, epoch)`.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedEpochKey {
    /// `tenant_id`, UUID.
    pub tenant: TenantId,
    /// `epoch`, 32-bit unsigned, from 1.
    pub epoch: Epoch,
    /// `wrapped`, at most [`WRAPPED_BYTES_MAX`] bytes: as the key service returned it.
    pub wrapped: Bytes,
    /// `commitment`, 32 bytes.
    pub commitment: [u8; 32],
}

/// The row of one data key. Table `data_keys`, primary key `key_id`, unique
/// `(tenant_id, scope_kind, scope_id, epoch)`.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// `key_id`, UUID.
    pub id: KeyId,
    /// `tenant_id`, UUID.
    pub tenant: TenantId,
    /// `scope_kind` ([`KeyScope::kind`], small integer) and `scope_id` ([`KeyScope::subject`], UUID, not
    /// null; nil where the scope is the whole tenant).
    pub scope: KeyScope,
    /// `epoch`, 32-bit unsigned: which epoch key wraps it.
    pub epoch: Epoch,
    /// `wrapped`, at most [`WRAPPED_BYTES_MAX`] bytes.
    pub wrapped: Bytes,
    /// `commitment`, 32 bytes.
    pub commitment: [u8; 32],
}

/// Longest wrapped key in a row, bytes; a cloud key service returns some hundreds.
pub const WRAPPED_BYTES_MAX: usize = 4096;

/// Keeps wrapped keys; reads always see what an insert that has returned wrote.
///
/// Inserts are raced by several nodes, so the first writer wins (`ON CONFLICT DO NOTHING`, then a read
/// in the same transaction): they return the row that stands, whoever wrote it.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError>;

    /// The tenant's epoch key with the highest epoch.
    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError>;

    /// Returns the row that stands for `(tenant, epoch)`.
    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError>;

    /// Replaces `wrapped` of `(tenant, epoch)` where it still equals `from`; false where it does not.
    async fn rewrap_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        from: &[u8],
        to: Bytes,
    ) -> Result<bool, KeyStoreError>;

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError>;

    /// The data key of `(tenant, scope)` with the highest epoch.
    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError>;

    /// Returns the row that stands for `(tenant, scope, epoch)`.
    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError>;
}

#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The store could not be asked; asking again may help.
    #[error("key store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row cannot be what this program wrote; `0` names the column.
    #[error("key store row is inconsistent: {0}")]
    Inconsistent(&'static str),
}
