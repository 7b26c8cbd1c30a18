//! The retained message of each topic.

use futures::TryStreamExt;
use serde_json::json;
use sotto_model::{TenantId, TopicFilter, TopicName, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::message_log::{PageLimit, RetainedPage};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::limits::{RETAINED_NAMES_MAX, TOPIC_PAGE_NAMES};
use crate::log_id::{LogId, TenantNo};
use crate::message_row::MessageRow;
use crate::number::{count_to_row, to_row};
use crate::tenants::TenantNumbers;
use crate::topics::{TopicId, stored_topic};

const READ: &str = "read retained";

/// Makes a message of this transaction the retained one of its topic. [MQTT-3.3.1-5]
pub(crate) async fn set_retained(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    topic: &TopicName,
    log_id: LogId,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO retained (topic_id, tenant_no, topic, log_id, message_id, sender, qos,
                                          committed_at_ms, expires_at_ms, sealed)
         SELECT topic_id, ?, ?, log_id, message_id, sender, qos, committed_at_ms, expires_at_ms, sealed
         FROM messages WHERE log_id = ?",
    )
    .bind(tenant.to_row())
    .bind(topic.as_str())
    .bind(log_id.to_row())
    .execute(connection)
    .await
    .during("set retained")?;
    Ok(())
}

/// [MQTT-3.3.1-6]
pub(crate) async fn clear_retained(
    connection: &mut SqliteConnection,
    topic: TopicId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM retained WHERE topic_id = ?")
        .bind(topic.0)
        .execute(connection)
        .await
        .during("clear retained")?;
    Ok(())
}

/// Goes through the names, some at a time, and fetches the bodies of those that match.
pub(crate) async fn retained(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    filter: &TopicFilter,
    after: Option<&TopicName>,
    now: UnixMillis,
    limit: PageLimit,
) -> Result<RetainedPage, StoreError> {
    let nothing = RetainedPage { messages: Vec::new(), next_after: None };
    let Some(tenant) = tenants.number(connection, tenant).await? else { return Ok(nothing) };
    let records = limit.records.max(1);
    let prefix = filter.literal_prefix();
    let mut passed = after.map(|after| after.as_str().to_owned());
    let mut matching = Vec::new();
    let mut names_wanted = if filter.has_wildcard() { records + 1 } else { 1 };
    let mut names_left = RETAINED_NAMES_MAX;
    let next_after = loop {
        let from = passed.as_deref().filter(|passed| *passed > prefix).unwrap_or(prefix);
        let names = names_from(connection, tenant, from, passed.as_deref(), now, names_wanted).await?;
        let mut ended = names.len() < names_wanted;
        for (id, name) in names {
            // In byte order the names with the prefix lie together, from the prefix on.
            if !name.starts_with(prefix) {
                ended = true;
                break;
            }
            if filter.matches(&stored_topic(&name)?) {
                matching.push(id);
            }
            passed = Some(name);
            if matching.len() == records {
                break;
            }
        }
        names_left = names_left.saturating_sub(names_wanted);
        if matching.len() == records || (names_left == 0 && !ended) {
            break passed.as_deref().map(stored_topic).transpose()?;
        }
        if ended || !filter.has_wildcard() {
            break None;
        }
        // Few of these names match: the next look is a longer one.
        names_wanted = (names_wanted * 4).min(TOPIC_PAGE_NAMES).min(names_left);
    };
    fetch_page(connection, &matching, limit.bytes, next_after).await
}

/// Numbers and names of the topics with a retained message, from `from` on but for `passed`.
async fn names_from(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    from: &str,
    passed: Option<&str>,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<(i64, String)>, StoreError> {
    sqlx::query_as(
        "SELECT topic_id, topic FROM retained
         WHERE tenant_no = ? AND topic >= ? AND topic IS NOT ?
           AND (expires_at_ms IS NULL OR expires_at_ms > ?)
         ORDER BY topic LIMIT ?",
    )
    .bind(tenant.to_row())
    .bind(from)
    .bind(passed)
    .bind(to_row(now.0))
    .bind(count_to_row(limit))
    .fetch_all(connection)
    .await
    .during(READ)
}

/// Fetches bodies in order until the bytes are used up.
async fn fetch_page(
    connection: &mut SqliteConnection,
    topics: &[i64],
    bytes_max: usize,
    next_after: Option<TopicName>,
) -> Result<RetainedPage, StoreError> {
    let mut page = RetainedPage { messages: Vec::with_capacity(topics.len()), next_after };
    if topics.is_empty() {
        return Ok(page);
    }
    let mut rows = sqlx::query_as::<_, MessageRow>(
        "SELECT log_id, topic, sender, message_id, qos, 1 AS retain, committed_at_ms, expires_at_ms, sealed
         FROM retained WHERE topic_id IN (SELECT value FROM json_each(?)) ORDER BY topic",
    )
    .bind(json!(topics).to_string())
    .fetch(connection);
    let mut bytes = 0_usize;
    while let Some(row) = rows.try_next().await.during(READ)? {
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

/// `None` when there are more than `limit`.
pub(crate) async fn retained_topics(
    connection: &mut SqliteConnection,
    limit: usize,
) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError> {
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT tenant_id, topic FROM retained JOIN tenants USING (tenant_no) LIMIT ?")
            .bind(count_to_row(limit + 1))
            .fetch_all(connection)
            .await
            .during("read retained topics")?;
    if rows.len() > limit {
        return Ok(None);
    }
    let topics = rows.into_iter().map(|(tenant, topic)| Ok((TenantId(tenant), stored_topic(&topic)?)));
    topics.collect::<Result<_, StoreError>>().map(Some)
}

pub(crate) async fn expire_retained(
    connection: &mut SqliteConnection,
    now: UnixMillis,
    limit: usize,
) -> Result<usize, StoreError> {
    let deleted = sqlx::query(
        "DELETE FROM retained WHERE topic_id IN (
             SELECT topic_id FROM retained WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)",
    )
    .bind(to_row(now.0))
    .bind(count_to_row(limit))
    .execute(connection)
    .await
    .during("expire retained")?;
    Ok(usize::try_from(deleted.rows_affected()).expect("at most the limit"))
}
