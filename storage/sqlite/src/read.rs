//! Pages of the log, by topic.
//!
//! Selectors become topic numbers; each topic's places after its own bound are read from the index, no
//! more of them than the page may hold, and merged by offset; then the bodies of the page are fetched. So
//! a page costs the same however much the session has missed.
//!
//! A wildcard over more than `READ_TOPICS_MAX` topics goes through the tenant's log itself, a slice of
//! `SCAN_RECORDS_MAX` places at a time, and says how far it came.

use std::collections::HashMap;

use futures::TryStreamExt;
use serde_json::json;
use sotto_model::{Offset, TenantId, TopicName};
use sotto_storage::StoreError;
use sotto_storage::message_log::{Page, PageLimit, Selector, StoredMessage};
use sqlx::SqliteConnection;

use crate::error::During;
use crate::limits::{READ_TOPICS_MAX, SCAN_RECORDS_MAX, TOPIC_PAGE_NAMES};
use crate::log_id::{LogId, TenantNo};
use crate::message_row::MessageRow;
use crate::number::count_to_row;
use crate::tenants::TenantNumbers;
use crate::topics::{TopicCache, TopicId, TopicKey, find_topics, stored_topic};

const OPERATION: &str = "read log";

#[expect(clippy::too_many_arguments, reason = "the trait's arguments and where to look")]
pub(crate) async fn read(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    cache: &TopicCache,
    tenant: TenantId,
    selectors: &[Selector],
    after: Offset,
    up_to: Offset,
    limit: PageLimit,
) -> Result<Page, StoreError> {
    let up_to = up_to.max(after);
    let nothing = Page { messages: Vec::new(), scanned_to: up_to };
    if up_to == after || selectors.is_empty() {
        return Ok(nothing);
    }
    let Some(tenant) = tenants.number(connection, tenant).await? else { return Ok(nothing) };
    let range = Range { tenant, after, up_to, records: limit.records.max(1) };
    let selection = match expand(connection, cache, tenant, selectors).await? {
        Some(topics) => select_by_topic(connection, &range, &topics).await?,
        None => select_by_scan(connection, &range, selectors).await?,
    };
    fetch_page(connection, selection, limit.bytes).await
}

/// What to select from.
struct Range {
    tenant: TenantNo,
    after: Offset,
    up_to: Offset,
    records: usize,
}

/// The places of one page, before their bodies are fetched.
struct Selection {
    log_ids: Vec<LogId>,
    scanned_to: Offset,
}

impl Selection {
    /// `log_ids` holds one more than the page may when there is more to come.
    fn cut(mut log_ids: Vec<LogId>, records: usize, otherwise: Offset) -> Self {
        let scanned_to = if log_ids.len() > records {
            log_ids.truncate(records);
            log_ids[records - 1].offset()
        } else {
            otherwise
        };
        Self { log_ids, scanned_to }
    }
}

/// Each topic that a selector matches, and the lowest offset after which one does. `None`: too many
/// topics to go through one by one.
async fn expand(
    connection: &mut SqliteConnection,
    cache: &TopicCache,
    tenant: TenantNo,
    selectors: &[Selector],
) -> Result<Option<HashMap<TopicId, Offset>>, StoreError> {
    let mut topics = HashMap::new();
    let mut select = |topic: TopicId, after: Offset| {
        topics.entry(topic).and_modify(|lowest: &mut Offset| *lowest = after.min(*lowest)).or_insert(after);
    };
    let (wild, exact): (Vec<_>, Vec<_>) =
        selectors.iter().partition(|selector| selector.filter.has_wildcard());

    let mut unknown = Vec::new();
    let mut unknown_after = Vec::new();
    for selector in exact {
        let name = stored_topic(selector.filter.as_str())?;
        let key = TopicKey { tenant, name };
        if let Some(topic) = cache.find(&key) {
            select(topic, selector.after);
        } else {
            unknown.push(key);
            unknown_after.push(selector.after);
        }
    }
    if !unknown.is_empty() {
        for (place, topic) in find_topics(connection, &unknown).await? {
            select(topic, unknown_after[place]);
            cache.insert(unknown[place].clone(), topic);
        }
    }

    let mut looked_at = 0;
    for selector in wild {
        let prefix = selector.filter.literal_prefix();
        let mut page_start = prefix.to_owned();
        let mut passed: Option<String> = None;
        loop {
            let names: Vec<(i64, String)> = sqlx::query_as(
                "SELECT topic_id, name FROM topics
                 WHERE tenant_no = ? AND name >= ? AND name IS NOT ? ORDER BY name LIMIT ?",
            )
            .bind(tenant.to_row())
            .bind(&page_start)
            .bind(&passed)
            .bind(count_to_row(TOPIC_PAGE_NAMES))
            .fetch_all(&mut *connection)
            .await
            .during(OPERATION)?;
            let page_is_full = names.len() == TOPIC_PAGE_NAMES;
            // In byte order the names with the prefix lie together, from the prefix on.
            for (id, name) in names.iter().take_while(|(_, name)| name.starts_with(prefix)) {
                looked_at += 1;
                if selector.filter.matches(&stored_topic(name)?) {
                    select(TopicId(*id), selector.after);
                }
            }
            if looked_at > READ_TOPICS_MAX {
                return Ok(None);
            }
            match names.into_iter().next_back() {
                Some((_, last)) if page_is_full && last.starts_with(prefix) => {
                    page_start.clone_from(&last);
                    passed = Some(last);
                }
                _ => break,
            }
        }
    }
    Ok(Some(topics))
}

async fn select_by_topic(
    connection: &mut SqliteConnection,
    range: &Range,
    topics: &HashMap<TopicId, Offset>,
) -> Result<Selection, StoreError> {
    if topics.is_empty() {
        return Ok(Selection { log_ids: Vec::new(), scanned_to: range.up_to });
    }
    let bounds: Vec<_> = topics
        .iter()
        .map(|(topic, &after)| {
            json!([topic.0, LogId::clamped(range.tenant, after.max(range.after)).to_row()])
        })
        .collect();
    // Aggregated to JSON and taken apart again, because SQLite has no lateral join: it is what bounds the
    // places of one topic.
    let rows: Vec<(i64,)> = sqlx::query_as(
        "SELECT place.value
         FROM json_each(?1) AS bound CROSS JOIN json_each((
             SELECT json_group_array(log_id) FROM (
                 SELECT log_id FROM messages
                 WHERE topic_id = bound.value ->> 0 AND log_id > bound.value ->> 1 AND log_id <= ?2
                 ORDER BY log_id LIMIT ?3))) AS place
         ORDER BY place.value LIMIT ?3",
    )
    .bind(json!(bounds).to_string())
    .bind(LogId::clamped(range.tenant, range.up_to).to_row())
    .bind(count_to_row(range.records + 1))
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    let log_ids = rows.into_iter().map(|(log_id,)| LogId::from_row(log_id)).collect();
    Ok(Selection::cut(log_ids, range.records, range.up_to))
}

async fn select_by_scan(
    connection: &mut SqliteConnection,
    range: &Range,
    selectors: &[Selector],
) -> Result<Selection, StoreError> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT log_id, topic_id FROM messages WHERE log_id > ? AND log_id <= ? ORDER BY log_id LIMIT ?",
    )
    .bind(LogId::clamped(range.tenant, range.after).to_row())
    .bind(LogId::clamped(range.tenant, range.up_to).to_row())
    .bind(count_to_row(SCAN_RECORDS_MAX))
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    let slice_end = match rows.last() {
        Some(&(last, _)) if rows.len() == SCAN_RECORDS_MAX => LogId::from_row(last).offset(),
        _ => range.up_to,
    };

    let mut topic_ids: Vec<i64> = rows.iter().map(|&(_, topic)| topic).collect();
    topic_ids.sort_unstable();
    topic_ids.dedup();
    let names: Vec<(i64, String)> = sqlx::query_as(
        "SELECT topic_id, name FROM topics WHERE topic_id IN (SELECT value FROM json_each(?))",
    )
    .bind(json!(topic_ids).to_string())
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    let mut afters = HashMap::with_capacity(names.len());
    for (topic, name) in names {
        if let Some(after) = lowest_match(selectors, &stored_topic(&name)?) {
            afters.insert(topic, after);
        }
    }

    let log_ids = rows
        .into_iter()
        .map(|(log_id, topic)| (LogId::from_row(log_id), topic))
        .filter(|(log_id, topic)| afters.get(topic).is_some_and(|&after| log_id.offset() > after))
        .map(|(log_id, _)| log_id)
        .take(range.records + 1)
        .collect();
    Ok(Selection::cut(log_ids, range.records, slice_end))
}

fn lowest_match(selectors: &[Selector], topic: &TopicName) -> Option<Offset> {
    selectors.iter().filter(|selector| selector.filter.matches(topic)).map(|selector| selector.after).min()
}

/// Fetches bodies in order until the bytes are used up.
async fn fetch_page(
    connection: &mut SqliteConnection,
    selection: Selection,
    bytes_max: usize,
) -> Result<Page, StoreError> {
    let mut page =
        Page { messages: Vec::with_capacity(selection.log_ids.len()), scanned_to: selection.scanned_to };
    if selection.log_ids.is_empty() {
        return Ok(page);
    }
    let log_ids = in_json(&selection.log_ids);
    let mut rows = sqlx::query_as::<_, MessageRow>(SELECT_MESSAGES).bind(log_ids).fetch(connection);
    let mut bytes = 0_usize;
    while let Some(row) = rows.try_next().await.during(OPERATION)? {
        let message = row.into_message()?;
        bytes = bytes.saturating_add(message.sealed.len());
        match page.messages.last() {
            Some(last) if bytes > bytes_max => {
                page.scanned_to = last.offset;
                break;
            }
            _ => page.messages.push(message),
        }
    }
    Ok(page)
}

/// The messages at `offsets`, by offset.
pub(crate) async fn get(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    tenant: TenantId,
    offsets: &[Offset],
) -> Result<Vec<StoredMessage>, StoreError> {
    let Some(tenant) = tenants.number(connection, tenant).await? else { return Ok(Vec::new()) };
    let log_ids: Vec<LogId> = offsets.iter().filter_map(|&offset| LogId::new(tenant, offset)).collect();
    let rows: Vec<MessageRow> = sqlx::query_as(SELECT_MESSAGES)
        .bind(in_json(&log_ids))
        .fetch_all(connection)
        .await
        .during("get messages")?;
    rows.into_iter().map(MessageRow::into_message).collect()
}

const SELECT_MESSAGES: &str = "
    SELECT messages.log_id, topics.name, messages.sender, messages.message_id, messages.qos, messages.retain,
           messages.committed_at_ms, messages.expires_at_ms, messages.sealed
    FROM messages CROSS JOIN topics ON topics.topic_id = messages.topic_id
    WHERE messages.log_id IN (SELECT value FROM json_each(?))
    ORDER BY messages.log_id";

fn in_json(log_ids: &[LogId]) -> String {
    json!(log_ids.iter().map(|log_id| log_id.to_row()).collect::<Vec<_>>()).to_string()
}
