//! Topics and the numbers that stand for them in the log.

use std::collections::HashMap;

use parking_lot::Mutex;
use sotto_model::{TenantId, TopicFilter, TopicName, TopicScope};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::column;
use crate::fault::Fault;
use crate::limits::{TOPIC_CACHE_ENTRIES_MAX, TOPICS_PER_PAGE};

pub(crate) type TopicKey = (TenantId, TopicName);

/// Ids looked up lately, at most [`TOPIC_CACHE_ENTRIES_MAX`]. Topic rows are never deleted, so an entry is
/// right for ever.
#[derive(Default)]
pub(crate) struct TopicIds {
    /// Locked for lookups and inserts, never across an await.
    generations: Mutex<Generations>,
}

/// Entries are found in either map; when the young one is full it becomes the old one, and what has not
/// been asked for since goes.
#[derive(Default)]
struct Generations {
    young: HashMap<TopicKey, i64>,
    old: HashMap<TopicKey, i64>,
}

impl TopicIds {
    pub(crate) fn find<'k>(&self, keys: impl Iterator<Item = &'k TopicKey>) -> Vec<Option<i64>> {
        let mut generations = self.generations.lock();
        keys.map(|key| generations.find(key)).collect()
    }

    pub(crate) fn insert(&self, key: TopicKey, id: i64) {
        self.generations.lock().insert(key, id);
    }
}

impl Generations {
    fn find(&mut self, key: &TopicKey) -> Option<i64> {
        if let Some(id) = self.young.get(key) {
            return Some(*id);
        }
        let (key, id) = self.old.remove_entry(key)?;
        self.insert(key, id);
        Some(id)
    }

    fn insert(&mut self, key: TopicKey, id: i64) {
        if self.young.len() >= TOPIC_CACHE_ENTRIES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, id);
    }
}

/// The ids of these topics; rows are made for those that have none.
pub(crate) async fn ensure(
    connection: &mut PgConnection,
    cache: &TopicIds,
    keys: &[TopicKey],
) -> Result<Vec<i64>, Fault> {
    let mut ids = cache.find(keys.iter());
    let mut missing: HashMap<&TopicKey, Option<i64>> =
        keys.iter().zip(&ids).filter(|(_, id)| id.is_none()).map(|(key, _)| (key, None)).collect();
    if !missing.is_empty() {
        insert_missing(connection, missing.keys().copied()).await?;
        for (key, id) in lookup(connection, missing.keys().copied()).await? {
            if let Some(found) = missing.get_mut(&key) {
                *found = Some(id);
            }
            cache.insert(key, id);
        }
        for (key, id) in keys.iter().zip(&mut ids) {
            *id = id.or_else(|| missing.get(key).copied().flatten());
        }
    }
    ids.into_iter().map(|id| id.ok_or(Fault::Inconsistent("a topic that was made is missing"))).collect()
}

/// The ids of those topics that have one.
pub(crate) async fn find(
    connection: &mut PgConnection,
    cache: &TopicIds,
    keys: &[TopicKey],
) -> Result<Vec<Option<i64>>, Fault> {
    let mut ids = cache.find(keys.iter());
    let missing: Vec<&TopicKey> =
        keys.iter().zip(&ids).filter(|(_, id)| id.is_none()).map(|(key, _)| key).collect();
    if !missing.is_empty() {
        let found: HashMap<TopicKey, i64> =
            lookup(connection, missing.into_iter()).await?.into_iter().collect();
        for (key, id) in keys.iter().zip(&mut ids) {
            *id = id.or_else(|| found.get(key).copied());
        }
        for (key, id) in found {
            cache.insert(key, id);
        }
    }
    Ok(ids)
}

async fn insert_missing(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = &TopicKey>,
) -> Result<(), Fault> {
    let (mut tenants, mut names, mut conversations, mut users) = (vec![], vec![], vec![], vec![]);
    for (tenant, name) in keys {
        let (conversation, user) = match name.scope() {
            TopicScope::Conversation(id) => (Some(id.0), None),
            TopicScope::Inbox(id) => (None, Some(id.0)),
            TopicScope::Other => (None, None),
        };
        tenants.push(tenant.0);
        names.push(name.as_str());
        conversations.push(conversation);
        users.push(user);
    }
    sqlx::query(
        "INSERT INTO topics (tenant_id, name, conversation_id, user_id) \
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::uuid[]) ORDER BY 1, 2 \
         ON CONFLICT (tenant_id, name) DO NOTHING",
    )
    .bind(tenants)
    .bind(names)
    .bind(conversations)
    .bind(users)
    .execute(connection)
    .await?;
    Ok(())
}

async fn lookup(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = &TopicKey>,
) -> Result<Vec<(TopicKey, i64)>, Fault> {
    let (tenants, names): (Vec<Uuid>, Vec<&str>) =
        keys.map(|(tenant, name)| (tenant.0, name.as_str())).unzip();
    let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "SELECT t.tenant_id, t.name, t.topic_id \
         FROM UNNEST($1::uuid[], $2::text[]) AS k (tenant_id, name) JOIN topics t USING (tenant_id, name)",
    )
    .bind(tenants)
    .bind(names)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|(tenant, name, id)| Ok(((TenantId(tenant), column::topic(&name)?), id))).collect()
}

/// Every topic of the tenant that the wildcard matches. The directory is read in pages, by name, within
/// the filter's literal prefix.
pub(crate) async fn matching(
    connection: &mut PgConnection,
    tenant: TenantId,
    filter: &TopicFilter,
) -> Result<Vec<(i64, TopicName)>, Fault> {
    let mut range = NameRange::of(filter);
    let mut matching = Vec::new();
    loop {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT topic_id, name FROM topics \
             WHERE tenant_id = $1 AND name >= $2 AND name > $3 AND ($4::text IS NULL OR name < $4) \
             ORDER BY name LIMIT $5",
        )
        .bind(tenant.0)
        .bind(&range.first)
        .bind(&range.after)
        .bind(&range.end)
        .bind(column::limit(TOPICS_PER_PAGE))
        .fetch_all(&mut *connection)
        .await?;
        let full = rows.len() == TOPICS_PER_PAGE;
        for (id, name) in rows {
            let topic = column::topic(&name)?;
            if filter.matches(&topic) {
                matching.push((id, topic));
            }
            range.go_on_after(&name);
        }
        if !full {
            return Ok(matching);
        }
    }
}

/// The names among which a filter's matches are, in order of bytes.
pub(crate) struct NameRange {
    pub(crate) first: String,
    /// Names after this one: where the page before ended.
    pub(crate) after: String,
    /// Names before this one; `None`: to the last.
    pub(crate) end: Option<String>,
}

impl NameRange {
    /// Of a filter without wildcards: its own name alone.
    pub(crate) fn exactly(filter: &TopicFilter) -> Self {
        let name = filter.as_str();
        // No name holds U+0000, so none lies between.
        Self { first: name.to_owned(), after: String::new(), end: Some(format!("{name}\u{1}")) }
    }

    pub(crate) fn of(filter: &TopicFilter) -> Self {
        let prefix = filter.literal_prefix();
        Self { first: prefix.to_owned(), after: String::new(), end: successor(prefix) }
    }

    /// What is left of the range after this name. One bound on each side, so that the index begins there.
    pub(crate) fn go_on_after(&mut self, name: &str) {
        if *name >= *self.first {
            name.clone_into(&mut self.first);
        }
        name.clone_into(&mut self.after);
    }
}

/// The least text greater than every text that begins with `prefix`.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(successor("a/"), Some("a0".into()));
        assert_eq!(successor("a\u{7f}"), Some("a\u{80}".into()));
        assert_eq!(successor("a\u{d7ff}"), Some("a\u{e000}".into()));
        assert_eq!(successor("a\u{10ffff}"), Some("b".into()));
        assert_eq!(successor(""), None);
        assert_eq!(successor("\u{10ffff}"), None);
    }

    #[test]
    fn the_cache_keeps_what_is_asked_for_and_stays_bounded() {
        let cache = TopicIds::default();
        let tenant = TenantId(Uuid::from_u128(1));
        let key = |n: usize| (tenant, TopicName::parse(&format!("t/{n}")).expect("topic"));
        let count = i64::try_from(TOPIC_CACHE_ENTRIES_MAX).expect("fits");
        for (n, id) in (0..count).enumerate() {
            cache.insert(key(n), id);
            assert_eq!(cache.find([key(0)].iter()), [Some(0)]);
        }
        let generations = cache.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= TOPIC_CACHE_ENTRIES_MAX);
    }
}
