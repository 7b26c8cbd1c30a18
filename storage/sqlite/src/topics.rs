//! Topics have numbers, so that the log does not repeat their names.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::json;
use sotto_model::{TopicName, TopicScope};
use sotto_storage::StoreError;
use sqlx::SqliteConnection;

use crate::error::During;
use crate::limits::TOPIC_CACHE_ENTRIES_MAX;
use crate::log_id::TenantNo;

/// `topics.scope_kind`
pub(crate) const SCOPE_OTHER: i64 = 0;
pub(crate) const SCOPE_CONVERSATION: i64 = 1;
pub(crate) const SCOPE_INBOX: i64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicId(pub(crate) i64);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TopicKey {
    pub(crate) tenant: TenantNo,
    pub(crate) name: TopicName,
}

/// Numbers of committed topics; a topic's number never changes.
///
/// It has a young and an old half. What is asked for moves to the young one; when that is full the old
/// half is dropped and the young one grows old, so a topic in use is not forgotten.
pub(crate) struct TopicCache {
    /// Locked for one lookup or insertion, by the writer and by every reader.
    halves: Mutex<Halves>,
    half_entries_max: usize,
}

#[derive(Default)]
struct Halves {
    young: HashMap<TopicKey, TopicId>,
    old: HashMap<TopicKey, TopicId>,
}

impl Default for TopicCache {
    fn default() -> Self {
        Self::with_entries_max(TOPIC_CACHE_ENTRIES_MAX)
    }
}

impl TopicCache {
    fn with_entries_max(entries_max: usize) -> Self {
        Self { halves: Mutex::default(), half_entries_max: entries_max / 2 }
    }

    pub(crate) fn find(&self, key: &TopicKey) -> Option<TopicId> {
        let mut halves = self.halves.lock();
        if let Some(&id) = halves.young.get(key) {
            return Some(id);
        }
        let (key, id) = halves.old.remove_entry(key)?;
        self.insert_young(&mut halves, key, id);
        Some(id)
    }

    /// Only for topics whose transaction has been committed.
    pub(crate) fn insert(&self, key: TopicKey, id: TopicId) {
        self.insert_young(&mut self.halves.lock(), key, id);
    }

    fn insert_young(&self, halves: &mut Halves, key: TopicKey, id: TopicId) {
        if halves.young.len() >= self.half_entries_max {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, id);
    }
}

/// The topics of `keys` that are stored, by their place in `keys`. One query, however many.
pub(crate) async fn find_topics(
    connection: &mut SqliteConnection,
    keys: &[TopicKey],
) -> Result<Vec<(usize, TopicId)>, StoreError> {
    const OPERATION: &str = "find topics";
    let wanted: Vec<_> = keys.iter().map(|key| json!([key.tenant.to_row(), key.name.as_str()])).collect();
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT wanted.key, topics.topic_id
         FROM json_each(?) AS wanted CROSS JOIN topics
         ON topics.tenant_no = wanted.value ->> 0 AND topics.name = wanted.value ->> 1",
    )
    .bind(json!(wanted).to_string())
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    rows.into_iter()
        .map(|(place, id)| {
            let place = usize::try_from(place).ok().filter(|&place| place < keys.len());
            Ok((place.ok_or(StoreError::Inconsistent(OPERATION))?, TopicId(id)))
        })
        .collect()
}

/// Numbers for topics that are not stored yet, each given once, in the order of `keys`.
pub(crate) async fn create_topics(
    connection: &mut SqliteConnection,
    keys: &[TopicKey],
) -> Result<Vec<TopicId>, StoreError> {
    const OPERATION: &str = "create topics";
    let created: Vec<_> = keys
        .iter()
        .map(|key| {
            let (kind, id) = match key.name.scope() {
                TopicScope::Conversation(conversation) => (SCOPE_CONVERSATION, Some(conversation.0)),
                TopicScope::Inbox(user) => (SCOPE_INBOX, Some(user.0)),
                TopicScope::Other => (SCOPE_OTHER, None),
            };
            let id = id.map(|id| id.simple().to_string());
            json!([key.tenant.to_row(), key.name.as_str(), kind, id])
        })
        .collect();
    sqlx::query(
        "INSERT INTO topics (tenant_no, name, scope_kind, scope_id)
         SELECT value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3) FROM json_each(?)",
    )
    .bind(json!(created).to_string())
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let mut found = find_topics(connection, keys).await?;
    if found.len() != keys.len() {
        return Err(StoreError::Inconsistent(OPERATION));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// A name read back from a row.
pub(crate) fn stored_topic(name: &str) -> Result<TopicName, StoreError> {
    TopicName::parse(name).map_err(|_| StoreError::Inconsistent("topic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> TopicKey {
        let tenant = TenantNo::from_row(1).expect("in range");
        TopicKey { tenant, name: TopicName::parse(name).expect("topic") }
    }

    #[test]
    fn the_cache_holds_no_more_than_its_bound_and_keeps_what_is_in_use() {
        let cache = TopicCache::with_entries_max(8);
        cache.insert(key("in/use"), TopicId(1));
        for number in 2..100 {
            cache.insert(key(&format!("other/{number}")), TopicId(number));
            assert_eq!(cache.find(&key("in/use")), Some(TopicId(1)));
            let halves = cache.halves.lock();
            assert!(halves.young.len() + halves.old.len() <= 8);
        }
        assert_eq!(cache.find(&key("other/2")), None);
    }
}
