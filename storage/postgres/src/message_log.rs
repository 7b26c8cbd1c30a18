//! The log and what is retained of it.

use async_trait::async_trait;
use sotto_model::{Offset, TenantId, TopicFilter, TopicName, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::message_log::{
    Batch, MessageLog, Page, PageLimit, Placed, RetainedPage, Selector, StoredMessage,
};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::column::{self, MESSAGE_COLUMNS, MessageRow, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::limits::{RETAINED_NAMES_MAX, TOPICS_PER_PAGE};
use crate::log_read::ReadRequest;
use crate::store::PostgresStore;
use crate::topics::NameRange;
use crate::weeks::week_since;

#[async_trait]
impl MessageLog for PostgresStore {
    async fn claim_writer(&self) -> Result<u64, StoreError> {
        self.writer.claim().await
    }

    async fn append(&self, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
        self.writer.append(batch, &self.topic_ids).await
    }

    async fn heads(&self) -> Result<Vec<(TenantId, Offset)>, StoreError> {
        let mut held = self.readers.hold("read heads").await?;
        let result = within(heads(held.connection())).await;
        held.settle(result)
    }

    async fn read(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        after: Offset,
        up_to: Offset,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let request = ReadRequest { tenant, selectors: selectors.to_vec(), after, up_to, limit };
        self.read_queue.read(&self.readers, &self.topic_ids, request).await
    }

    async fn get(&self, tenant: TenantId, offsets: &[Offset]) -> Result<Vec<StoredMessage>, StoreError> {
        let mut held = self.readers.hold("get messages").await?;
        let result = within(get(held.connection(), tenant, offsets)).await;
        held.settle(result)
    }

    async fn retained(
        &self,
        tenant: TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        now: UnixMillis,
        limit: PageLimit,
    ) -> Result<RetainedPage, StoreError> {
        let mut held = self.readers.hold("read retained").await?;
        let result = within(retained(held.connection(), tenant, filter, after, now, limit)).await;
        held.settle(result)
    }

    async fn retained_topics(&self, limit: usize) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError> {
        let mut held = self.readers.hold("read retained topics").await?;
        let result = within(retained_topics(held.connection(), limit)).await;
        held.settle(result)
    }

    async fn expire_retained(&self, now: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let mut held = self.sessions.hold("expire retained").await?;
        let result = within(expire_retained(held.connection(), now, limit)).await;
        held.settle(result)
    }

    async fn forget_publications(&self, before: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let mut held = self.sessions.hold("forget publications").await?;
        let result = within(forget_publications(held.connection(), before, limit)).await;
        held.settle(result)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "ping";
        let mut held = self.readers.hold(OPERATION).await?;
        let result = within(async {
            let read_only: bool =
                sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean")
                    .fetch_one(held.connection())
                    .await?;
            Ok(read_only)
        })
        .await;
        // After a failover the old primary may go on answering, and take nothing.
        if held.settle(result)? {
            return Err(StoreError::Unavailable { operation: OPERATION, code: "read-only".into() });
        }
        Ok(())
    }
}

async fn heads(connection: &mut PgConnection) -> Result<Vec<(TenantId, Offset)>, Fault> {
    let rows: Vec<(Uuid, i64)> =
        sqlx::query_as("SELECT tenant_id, head FROM counters").fetch_all(connection).await?;
    rows.into_iter().map(|(tenant, head)| Ok((TenantId(tenant), column::offset(head)?))).collect()
}

struct NamedRow {
    message: MessageRow,
    name: String,
}

impl FromRow<'_, PgRow> for NamedRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { message: MessageRow::from_row(row)?, name: row.try_get("name")? })
    }
}

impl NamedRow {
    fn into_message(self) -> Result<StoredMessage, Fault> {
        self.message.into_message(column::topic(&self.name)?)
    }
}

async fn get(
    connection: &mut PgConnection,
    tenant: TenantId,
    offsets: &[Offset],
) -> Result<Vec<StoredMessage>, Fault> {
    let offsets: Vec<i64> = offsets.iter().map(|offset| bigint(offset.0)).collect();
    let rows: Vec<NamedRow> = sqlx::query_as(&format!(
        "SELECT {MESSAGE_COLUMNS}, name FROM messages m JOIN topics t USING (topic_id) \
         WHERE m.tenant_id = $1 AND m.log_offset = ANY($2) AND m.committed_at_ms >= {week_since} \
         ORDER BY m.log_offset",
        week_since = week_since!("$1", "$3 - 1"),
    ))
    .bind(tenant.0)
    .bind(&offsets)
    .bind(offsets.iter().copied().min().unwrap_or_default())
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(NamedRow::into_message).collect()
}

/// Goes through the names, some at a time, and fetches the bodies of those that match.
async fn retained(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &TopicFilter,
    after: Option<&TopicName>,
    now: UnixMillis,
    limit: PageLimit,
) -> Result<RetainedPage, Fault> {
    let records = limit.records.max(1);
    let mut range = if filter.has_wildcard() { NameRange::of(filter) } else { NameRange::exactly(filter) };
    if let Some(after) = after {
        range.go_on_after(after.as_str());
    }
    let mut matching = Vec::new();
    let mut names_wanted = records + 1;
    let mut names_left = RETAINED_NAMES_MAX;
    let next_after = loop {
        let names = retained_names(connection, tenant, &range, now, names_wanted).await?;
        let ended = names.len() < names_wanted;
        for (id, name) in names {
            let topic = column::topic(&name)?;
            if filter.matches(&topic) {
                matching.push(id);
            }
            range.go_on_after(topic.as_str());
            if matching.len() == records {
                break;
            }
        }
        names_left = names_left.saturating_sub(names_wanted);
        if matching.len() == records || (names_left == 0 && !ended) {
            break Some(column::topic(&range.after)?);
        }
        if ended {
            break None;
        }
        // Few of these names match: the next look is a longer one.
        names_wanted = (names_wanted * 4).min(TOPICS_PER_PAGE).min(names_left);
    };
    retained_page(connection, &matching, limit.bytes, next_after).await
}

async fn retained_names(
    connection: &mut PgConnection,
    tenant: TenantId,
    range: &NameRange,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<(i64, String)>, Fault> {
    let names = sqlx::query_as(
        "SELECT topic_id, name FROM retained \
         WHERE tenant_id = $1 AND name >= $2 AND name > $3 AND ($4::text IS NULL OR name < $4) \
             AND (expires_at_ms IS NULL OR expires_at_ms > $5) \
         ORDER BY name LIMIT $6",
    )
    .bind(tenant.0)
    .bind(&range.first)
    .bind(&range.after)
    .bind(&range.end)
    .bind(bigint(now.0))
    .bind(column::limit(limit))
    .fetch_all(connection)
    .await?;
    Ok(names)
}

/// Bodies in order, and of them no more than the bytes take.
async fn retained_page(
    connection: &mut PgConnection,
    topics: &[i64],
    bytes_max: usize,
    next_after: Option<TopicName>,
) -> Result<RetainedPage, Fault> {
    let mut page = RetainedPage { messages: Vec::with_capacity(topics.len()), next_after };
    if topics.is_empty() {
        return Ok(page);
    }
    // One row more than the bytes take tells that there is more.
    let rows: Vec<NamedRow> = sqlx::query_as(&format!(
        "SELECT {MESSAGE_COLUMNS}, name FROM ( \
             SELECT *, true AS retain, first_value(octet_length(sealed)) OVER by_name AS first_bytes, \
                 sum(octet_length(sealed)) OVER by_name - octet_length(sealed) AS bytes_before \
             FROM retained WHERE topic_id = ANY($1) \
             WINDOW by_name AS (ORDER BY name) \
         ) page \
         WHERE bytes_before <= GREATEST($2, first_bytes) ORDER BY name"
    ))
    .bind(topics)
    .bind(column::limit(bytes_max))
    .fetch_all(connection)
    .await?;
    let mut bytes = 0_usize;
    for row in rows {
        let message = row.into_message()?;
        bytes = bytes.saturating_add(message.sealed.len());
        match page.messages.last() {
            Some(last) if bytes > bytes_max => {
                page.next_after = Some(last.topic.clone());
                break;
            }
            _ => page.messages.push(message),
        }
    }
    Ok(page)
}

async fn retained_topics(
    connection: &mut PgConnection,
    limit: usize,
) -> Result<Option<Vec<(TenantId, TopicName)>>, Fault> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT topics.tenant_id, topics.name FROM retained JOIN topics USING (topic_id) LIMIT $1",
    )
    .bind(column::limit(limit + 1))
    .fetch_all(connection)
    .await?;
    if rows.len() > limit {
        return Ok(None);
    }
    let topics = rows.into_iter().map(|(tenant, name)| Ok((TenantId(tenant), column::topic(&name)?)));
    topics.collect::<Result<_, Fault>>().map(Some)
}

async fn expire_retained(
    connection: &mut PgConnection,
    now: UnixMillis,
    limit: usize,
) -> Result<usize, Fault> {
    // Asked again of the row that is deleted: a newer message may have taken its place meanwhile.
    let deleted = sqlx::query(
        "DELETE FROM retained WHERE expires_at_ms <= $1 AND topic_id = ANY(ARRAY( \
             SELECT topic_id FROM retained WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2))",
    )
    .bind(bigint(now.0))
    .bind(column::limit(limit))
    .execute(connection)
    .await?;
    Ok(usize::try_from(deleted.rows_affected()).expect("at most the limit"))
}

async fn forget_publications(
    connection: &mut PgConnection,
    before: UnixMillis,
    limit: usize,
) -> Result<usize, Fault> {
    let forgotten = sqlx::query(
        "DELETE FROM publications WHERE publication_key = ANY(ARRAY( \
             SELECT publication_key FROM publications WHERE committed_at_ms < $1 ORDER BY committed_at_ms LIMIT $2))",
    )
    .bind(bigint(before.0))
    .bind(column::limit(limit))
    .execute(connection)
    .await?;
    Ok(usize::try_from(forgotten.rows_affected()).expect("at most the limit"))
}
