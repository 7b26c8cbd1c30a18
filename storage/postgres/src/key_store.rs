//! Wrapped keys. Of several nodes that insert the same key, the first wins.

use async_trait::async_trait;
use bytes::Bytes;
use sotto_keyring::{Epoch, KeyId, KeyScope, KeyStore, KeyStoreError, WrappedDataKey, WrappedEpochKey};
use sotto_model::TenantId;
use sotto_storage::StoreError;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;

#[async_trait]
impl KeyStore for PostgresStore {
    async fn epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
    ) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let mut held = self.control.hold("read epoch key").await.map_err(key_store_error)?;
        let result = within(async {
            let row = sqlx::query_as(&format!("{EPOCH_KEY} WHERE tenant_id = $1 AND epoch = $2"))
                .bind(tenant.0)
                .bind(i64::from(epoch.0))
                .fetch_optional(held.connection())
                .await?;
            row.map(epoch_key).transpose()
        })
        .await;
        held.settle(result).map_err(key_store_error)
    }

    async fn current_epoch_key(&self, tenant: TenantId) -> Result<Option<WrappedEpochKey>, KeyStoreError> {
        let mut held = self.control.hold("read current epoch key").await.map_err(key_store_error)?;
        let result = within(async {
            let row =
                sqlx::query_as(&format!("{EPOCH_KEY} WHERE tenant_id = $1 ORDER BY epoch DESC LIMIT 1"))
                    .bind(tenant.0)
                    .fetch_optional(held.connection())
                    .await?;
            row.map(epoch_key).transpose()
        })
        .await;
        held.settle(result).map_err(key_store_error)
    }

    async fn insert_epoch_key(&self, key: WrappedEpochKey) -> Result<WrappedEpochKey, KeyStoreError> {
        let mut held = self.control.hold("insert epoch key").await.map_err(key_store_error)?;
        let result = within(insert_epoch_key(held.connection(), &key)).await;
        held.settle(result).map_err(key_store_error)
    }

    async fn rewrap_epoch_key(
        &self,
        tenant: TenantId,
        epoch: Epoch,
        from: &[u8],
        to: Bytes,
    ) -> Result<bool, KeyStoreError> {
        let mut held = self.control.hold("rewrap epoch key").await.map_err(key_store_error)?;
        let result = within(async {
            let done = sqlx::query(
                "UPDATE epoch_keys SET wrapped = $4 WHERE tenant_id = $1 AND epoch = $2 AND wrapped = $3",
            )
            .bind(tenant.0)
            .bind(i64::from(epoch.0))
            .bind(from)
            .bind(&to[..])
            .execute(held.connection())
            .await?;
            Ok(done.rows_affected() == 1)
        })
        .await;
        held.settle(result).map_err(key_store_error)
    }

    async fn data_key(&self, id: KeyId) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let mut held = self.control.hold("read data key").await.map_err(key_store_error)?;
        let result = within(async {
            let row = sqlx::query_as(&format!("{DATA_KEY} WHERE key_id = $1"))
                .bind(id.0)
                .fetch_optional(held.connection())
                .await?;
            row.map(data_key).transpose()
        })
        .await;
        held.settle(result).map_err(key_store_error)
    }

    async fn current_data_key(
        &self,
        tenant: TenantId,
        scope: KeyScope,
    ) -> Result<Option<WrappedDataKey>, KeyStoreError> {
        let mut held = self.control.hold("read current data key").await.map_err(key_store_error)?;
        let result = within(async {
            let row = sqlx::query_as(&format!(
                "{DATA_KEY} WHERE tenant_id = $1 AND scope_kind = $2 AND scope_id = $3 ORDER BY epoch DESC LIMIT 1"
            ))
            .bind(tenant.0)
            .bind(i16::from(scope.kind()))
            .bind(scope.subject())
            .fetch_optional(held.connection())
            .await?;
            row.map(data_key).transpose()
        })
        .await;
        held.settle(result).map_err(key_store_error)
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<WrappedDataKey, KeyStoreError> {
        let mut held = self.control.hold("insert data key").await.map_err(key_store_error)?;
        let result = within(insert_data_key(held.connection(), &key)).await;
        held.settle(result).map_err(key_store_error)
    }
}

fn key_store_error(error: StoreError) -> KeyStoreError {
    match error {
        StoreError::Inconsistent(column) => KeyStoreError::Inconsistent(column),
        error => KeyStoreError::Unavailable(Box::new(error)),
    }
}

const EPOCH_KEY: &str = "SELECT tenant_id, epoch, wrapped, commitment FROM epoch_keys";
const DATA_KEY: &str =
    "SELECT key_id, tenant_id, scope_kind, scope_id, epoch, wrapped, commitment FROM data_keys";

/// Two statements: the second sees the row that made the first do nothing, as it was committed meanwhile.
async fn insert_epoch_key(
    connection: &mut PgConnection,
    key: &WrappedEpochKey,
) -> Result<WrappedEpochKey, Fault> {
    sqlx::query(
        "INSERT INTO epoch_keys (tenant_id, epoch, wrapped, commitment) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(key.tenant.0)
    .bind(i64::from(key.epoch.0))
    .bind(&key.wrapped[..])
    .bind(&key.commitment[..])
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query_as(&format!("{EPOCH_KEY} WHERE tenant_id = $1 AND epoch = $2"))
        .bind(key.tenant.0)
        .bind(i64::from(key.epoch.0))
        .fetch_one(connection)
        .await?;
    epoch_key(row)
}

async fn insert_data_key(
    connection: &mut PgConnection,
    key: &WrappedDataKey,
) -> Result<WrappedDataKey, Fault> {
    sqlx::query(
        "INSERT INTO data_keys (key_id, tenant_id, scope_kind, scope_id, epoch, wrapped, commitment) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(key.id.0)
    .bind(key.tenant.0)
    .bind(i16::from(key.scope.kind()))
    .bind(key.scope.subject())
    .bind(i64::from(key.epoch.0))
    .bind(&key.wrapped[..])
    .bind(&key.commitment[..])
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query_as(&format!(
        "{DATA_KEY} WHERE tenant_id = $1 AND scope_kind = $2 AND scope_id = $3 AND epoch = $4"
    ))
    .bind(key.tenant.0)
    .bind(i16::from(key.scope.kind()))
    .bind(key.scope.subject())
    .bind(i64::from(key.epoch.0))
    .fetch_one(connection)
    .await?;
    data_key(row)
}

type EpochKeyRow = (Uuid, i64, Vec<u8>, Vec<u8>);

fn epoch_key(row: EpochKeyRow) -> Result<WrappedEpochKey, Fault> {
    let (tenant, number, wrapped, hmac) = row;
    Ok(WrappedEpochKey {
        tenant: TenantId(tenant),
        epoch: epoch(number)?,
        wrapped: wrapped.into(),
        commitment: commitment(&hmac)?,
    })
}

type DataKeyRow = (Uuid, Uuid, i16, Uuid, i64, Vec<u8>, Vec<u8>);

fn data_key(row: DataKeyRow) -> Result<WrappedDataKey, Fault> {
    let (id, tenant, kind, subject, number, wrapped, hmac) = row;
    let scope = u8::try_from(kind).ok().and_then(|kind| KeyScope::from_row(kind, subject));
    Ok(WrappedDataKey {
        id: KeyId(id),
        tenant: TenantId(tenant),
        scope: scope.ok_or(Fault::Inconsistent("scope_kind"))?,
        epoch: epoch(number)?,
        wrapped: wrapped.into(),
        commitment: commitment(&hmac)?,
    })
}

fn epoch(column: i64) -> Result<Epoch, Fault> {
    u32::try_from(column).map(Epoch).map_err(|_| Fault::Inconsistent("epoch"))
}

fn commitment(column: &[u8]) -> Result<[u8; 32], Fault> {
    column.try_into().map_err(|_| Fault::Inconsistent("commitment"))
}
