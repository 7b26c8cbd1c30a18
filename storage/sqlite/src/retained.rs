//! The retained message of each topic.

use serde_json::json;
use sotto_model::{TenantId, TopicFilter, TopicName, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::message_log::StoredMessage;
use sqlx::SqliteConnection;

use crate::error::During;
use crate::limits::TOPIC_PAGE_NAMES;
use crate::log_id::{LogId, TenantNo};
use crate::message_row::MessageRow;
use crate::number::{count_to_row, to_row};
use crate::tenants::TenantNumbers;
use crate::topics::{TopicId, stored_topic};

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

/// Goes through the names a page at a time and fetches the bodies of those that match.
pub(crate) async fn retained(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    filter: &TopicFilter,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<StoredMessage>, StoreError> {
    const OPERATION: &str = "read retained";
    let Some(tenant) = tenants.number(connection, tenant).await? else { return Ok(Vec::new()) };
    let prefix = filter.literal_prefix();
    let mut page_start = prefix.to_owned();
    let mut passed: Option<String> = None;
    let mut messages = Vec::new();
    loop {
        let names: Vec<(i64, String)> = sqlx::query_as(
            "SELECT topic_id, topic FROM retained
             WHERE tenant_no = ? AND topic >= ? AND topic IS NOT ?
               AND (expires_at_ms IS NULL OR expires_at_ms > ?)
             ORDER BY topic LIMIT ?",
        )
        .bind(tenant.to_row())
        .bind(&page_start)
        .bind(&passed)
        .bind(to_row(now.0))
        .bind(count_to_row(TOPIC_PAGE_NAMES))
        .fetch_all(&mut *connection)
        .await
        .during(OPERATION)?;
        let page_is_full = names.len() == TOPIC_PAGE_NAMES;
        let mut matching = Vec::new();
        for (id, name) in &names {
            if name.starts_with(prefix) && filter.matches(&stored_topic(name)?) {
                matching.push(*id);
            }
        }
        matching.truncate(limit - messages.len());
        if !matching.is_empty() {
            let rows: Vec<MessageRow> = sqlx::query_as(
                "SELECT log_id, topic, sender, message_id, qos, 1 AS retain, committed_at_ms, expires_at_ms,
                        sealed
                 FROM retained WHERE topic_id IN (SELECT value FROM json_each(?)) ORDER BY topic",
            )
            .bind(json!(matching).to_string())
            .fetch_all(&mut *connection)
            .await
            .during(OPERATION)?;
            for row in rows {
                messages.push(row.into_message()?);
            }
        }
        // In byte order the names with the prefix lie together, from the prefix on.
        match names.into_iter().next_back() {
            Some((_, last)) if page_is_full && messages.len() < limit && last.starts_with(prefix) => {
                page_start.clone_from(&last);
                passed = Some(last);
            }
            _ => return Ok(messages),
        }
    }
}
