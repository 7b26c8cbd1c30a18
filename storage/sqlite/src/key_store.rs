//! Wrapped keys. The first writer wins, so what is returned is what stands.

use async_trait::async_trait;
use bytes::Bytes;
use sotto_keyring::{Epoch, KeyId, KeyScope, KeyStore, KeyStoreError, WrappedDataKey, WrappedEpochKey};
use sotto_model::TenantId;
use sotto_storage::StoreError;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::store::SqliteStore;

type EpochKeyRow = (i64, Vec<u8>, Vec<u8>);
type DataKeyRow = (Uuid, Uuid, i64, Uuid, i64, Vec<u8>, Vec<u8>);

#[async_trait]
impl KeyStore for SqliteStore {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let row: Option<EpochKeyRow> = sqlx::query_as(
            "SELECT epoch, wrapped, commitment FROM epoch_keys WHERE tenant_id = ? AND epoch = ?",
        )
        .bind(tenant.0)
        .bind(epoch.0)
        .fetch_optional(&self.readers)
        .await
        .during("read epoch key")
        .map_err(unavailable)?;
        row.map(|row| epoch_key(tenant, row)).transpose()
    }

    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let row: Option<EpochKeyRow> = sqlx::query_as(
            "SELECT epoch, wrapped, commitment FROM epoch_keys WHERE tenant_id = ?
             ORDER BY epoch DESC LIMIT 1",
        )
        .bind(tenant.0)
        .fetch_optional(&self.readers)
        .await
        .during("read epoch key")
        .map_err(unavailable)?;
        row.map(|row| epoch_key(tenant, row)).transpose()
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        let mut transaction = self.writer.begin("insert epoch key").await.map_err(unavailable)?;
        let result = insert_epoch_key(transaction.connection(), &key).await;
        let row = transaction.finish(result).await.map_err(unavailable)?;
        epoch_key(key.tenant, row)
    }

    async fn rewrap_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        from: &[u8],
        to: Bytes,
    ) -> Result<bool, KeyStoreError> {
        const OPERATION: &str = "rewrap epoch key";
        let mut transaction = self.writer.begin(OPERATION).await.map_err(unavailable)?;
        let result = sqlx::query(
            "UPDATE epoch_keys SET wrapped = ? WHERE tenant_id = ? AND epoch = ? AND wrapped = ?",
        )
        .bind(to.as_ref())
        .bind(tenant.0)
        .bind(epoch.0)
        .bind(from)
        .execute(transaction.connection())
        .await
        .during(OPERATION);
        let done = transaction.finish(result).await.map_err(unavailable)?;
        Ok(done.rows_affected() == 1)
    }

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let row: Option<DataKeyRow> = sqlx::query_as(
            "SELECT key_id, tenant_id, scope_kind, scope_id, epoch, wrapped, commitment FROM data_keys
             WHERE key_id = ?",
        )
        .bind(id.0)
        .fetch_optional(&self.readers)
        .await
        .during("read data key")
        .map_err(unavailable)?;
        row.map(data_key).transpose()
    }

    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let row: Option<DataKeyRow> = sqlx::query_as(
            "SELECT key_id, tenant_id, scope_kind, scope_id, epoch, wrapped, commitment FROM data_keys
             WHERE tenant_id = ? AND scope_kind = ? AND scope_id = ? ORDER BY epoch DESC LIMIT 1",
        )
        .bind(tenant.0)
        .bind(scope.kind())
        .bind(scope.subject())
        .fetch_optional(&self.readers)
        .await
        .during("read data key")
        .map_err(unavailable)?;
        row.map(data_key).transpose()
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        let mut transaction = self.writer.begin("insert data key").await.map_err(unavailable)?;
        let result = insert_data_key(transaction.connection(), &key).await;
        data_key(transaction.finish(result).await.map_err(unavailable)?)
    }
}

async fn insert_epoch_key(
    connection: &mut SqliteConnection,
    key: &WrappedEpochKey,
) -> Result<EpochKeyRow, StoreError> {
    const OPERATION: &str = "insert epoch key";
    sqlx::query(
        "INSERT INTO epoch_keys (tenant_id, epoch, wrapped, commitment) VALUES (?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(key.tenant.0)
    .bind(key.epoch.0)
    .bind(key.wrapped.as_ref())
    .bind(key.commitment.as_slice())
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    sqlx::query_as("SELECT epoch, wrapped, commitment FROM epoch_keys WHERE tenant_id = ? AND epoch = ?")
        .bind(key.tenant.0)
        .bind(key.epoch.0)
        .fetch_one(connection)
        .await
        .during(OPERATION)
}

async fn insert_data_key(
    connection: &mut SqliteConnection,
    key: &WrappedDataKey,
) -> Result<DataKeyRow, StoreError> {
    const OPERATION: &str = "insert data key";
    sqlx::query(
        "INSERT INTO data_keys (key_id, tenant_id, scope_kind, scope_id, epoch, wrapped, commitment)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(key.id.0)
    .bind(key.tenant.0)
    .bind(key.scope.kind())
    .bind(key.scope.subject())
    .bind(key.epoch.0)
    .bind(key.wrapped.as_ref())
    .bind(key.commitment.as_slice())
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    sqlx::query_as(
        "SELECT key_id, tenant_id, scope_kind, scope_id, epoch, wrapped, commitment FROM data_keys
         WHERE tenant_id = ? AND scope_kind = ? AND scope_id = ? AND epoch = ?",
    )
    .bind(key.tenant.0)
    .bind(key.scope.kind())
    .bind(key.scope.subject())
    .bind(key.epoch.0)
    .fetch_one(connection)
    .await
    .during(OPERATION)
}

fn epoch_key(
    tenant: TenantId,
    (epoch, wrapped, commitment): EpochKeyRow,
) -> Result<WrappedEpochKey, KeyStoreError> {
    Ok(WrappedEpochKey {
        tenant,
        epoch: epoch_number(epoch)?,
        wrapped: wrapped.into(),
        commitment: commitment_bytes(commitment)?,
    })
}

fn data_key(
    (id, tenant, kind, subject, epoch, wrapped, commitment): DataKeyRow,
) -> Result<WrappedDataKey, KeyStoreError> {
    let scope = u8::try_from(kind).ok().and_then(|kind| KeyScope::from_row(kind, subject));
    Ok(WrappedDataKey {
        id: KeyId(id),
        tenant: TenantId(tenant),
        scope: scope.ok_or(KeyStoreError::Inconsistent("scope_kind"))?,
        epoch: epoch_number(epoch)?,
        wrapped: wrapped.into(),
        commitment: commitment_bytes(commitment)?,
    })
}

fn epoch_number(epoch: i64) -> Result<Epoch, KeyStoreError> {
    u32::try_from(epoch).map(Epoch).map_err(|_| KeyStoreError::Inconsistent("epoch"))
}

fn commitment_bytes(bytes: Vec<u8>) -> Result<[u8; 32], KeyStoreError> {
    bytes.try_into().map_err(|_| KeyStoreError::Inconsistent("commitment"))
}

fn unavailable(error: StoreError) -> KeyStoreError {
    match error {
        StoreError::Inconsistent(column) => KeyStoreError::Inconsistent(column),
        error => KeyStoreError::Unavailable(Box::new(error)),
    }
}
