//! The log: appended by the writer, read by the readers.

use async_trait::async_trait;
use sotto_model::{Offset, TenantId, TopicFilter, TopicName, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::message_log::{
    Batch, MessageLog, Page, PageLimit, Placed, RetainedPage, Selector, StoredMessage,
};
use uuid::Uuid;

use crate::append::append;
use crate::error::During;
use crate::number::{from_row, offset};
use crate::publications::forget;
use crate::read::{get, read};
use crate::retained::{expire_retained, retained, retained_topics};
use crate::store::SqliteStore;

#[async_trait]
impl MessageLog for SqliteStore {
    /// The lock that the process holds on the data folder is the claim; here the number is read back.
    async fn claim_writer(&self) -> Result<u64, StoreError> {
        let (number,): (i64,) = sqlx::query_as("SELECT batch_number FROM log_writer")
            .fetch_one(&self.readers)
            .await
            .during("claim writer")?;
        from_row(number, "batch_number")
    }

    async fn append(&self, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
        let mut transaction = self.writer.begin("append").await?;
        let result = append(transaction.connection(), &self.tenants, &self.topics, batch).await;
        let appended = transaction.finish(result).await?;
        for (key, id) in appended.topics {
            self.topics.insert(key, id);
        }
        Ok(appended.placed)
    }

    async fn heads(&self) -> Result<Vec<(TenantId, Offset)>, StoreError> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT tenants.tenant_id, counters.head FROM counters JOIN tenants USING (tenant_no)",
        )
        .fetch_all(&self.readers)
        .await
        .during("read heads")?;
        rows.into_iter().map(|(tenant, head)| Ok((TenantId(tenant), offset(head)?))).collect()
    }

    async fn read(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        after: Offset,
        up_to: Offset,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let mut reader = self.readers.acquire().await.during("read log")?;
        read(&mut reader, &self.tenants, &self.topics, tenant, selectors, after, up_to, limit).await
    }

    async fn get(&self, tenant: TenantId, offsets: &[Offset]) -> Result<Vec<StoredMessage>, StoreError> {
        let mut reader = self.readers.acquire().await.during("get messages")?;
        get(&mut reader, &self.tenants, tenant, offsets).await
    }

    async fn retained(
        &self,
        tenant: TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        now: UnixMillis,
        limit: PageLimit,
    ) -> Result<RetainedPage, StoreError> {
        let mut reader = self.readers.acquire().await.during("read retained")?;
        retained(&mut reader, &self.tenants, tenant, filter, after, now, limit).await
    }

    async fn retained_topics(&self, limit: usize) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError> {
        let mut reader = self.readers.acquire().await.during("read retained topics")?;
        retained_topics(&mut reader, limit).await
    }

    async fn expire_retained(&self, now: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let mut transaction = self.writer.begin("expire retained").await?;
        let result = expire_retained(transaction.connection(), now, limit).await;
        transaction.finish(result).await
    }

    async fn forget_publications(&self, before: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let mut transaction = self.writer.begin("forget publications").await?;
        let result = forget(transaction.connection(), before, limit).await;
        transaction.finish(result).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM log_writer").fetch_one(&self.readers).await.during("ping")?;
        Ok(())
    }
}
