//! Which number a tenant has in this database.

use std::collections::HashMap;

use parking_lot::RwLock;
use sotto_model::TenantId;
use sotto_storage::StoreError;
use sqlx::SqliteConnection;

use crate::error::During;
use crate::log_id::TenantNo;

/// The numbers asked for so far. Tenants are never removed and never renumbered, so an entry holds for
/// good, and there are at most as many as tenants.
#[derive(Default)]
pub(crate) struct TenantNumbers {
    known: RwLock<HashMap<TenantId, TenantNo>>,
}

impl TenantNumbers {
    /// `None`: there is no such tenant. Not to be asked in the transaction that makes it, which may yet be
    /// rolled back.
    pub(crate) async fn number(
        &self,
        connection: &mut SqliteConnection,
        tenant: TenantId,
    ) -> Result<Option<TenantNo>, StoreError> {
        if let Some(&number) = self.known.read().get(&tenant) {
            return Ok(Some(number));
        }
        let row: Option<(i64,)> = sqlx::query_as("SELECT tenant_no FROM tenants WHERE tenant_id = ?")
            .bind(tenant.0)
            .fetch_optional(connection)
            .await
            .during("find tenant")?;
        let Some((number,)) = row else { return Ok(None) };
        let number = TenantNo::from_row(number)?;
        self.known.write().insert(tenant, number);
        Ok(Some(number))
    }
}
