//! One batch, one transaction.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::json;
use sotto_model::limits::BATCH_RECORDS_MAX;
use sotto_model::{MessageId, Offset, Urgency};
use sotto_storage::StoreError;
use sotto_storage::message_log::{Append, Batch, Placed, RetainChange};
use sqlx::SqliteConnection;

use crate::error::During;
use crate::limits::INSERT_ROWS_MAX;
use crate::log_id::{LogId, TenantNo};
use crate::number::{from_row, to_row};
use crate::publications::{Newness, newness, remember};
use crate::retained::{clear_retained, set_retained};
use crate::tenants::TenantNumbers;
use crate::topics::{TopicCache, TopicId, TopicKey, create_topics, find_topics};
use crate::wills;

const OPERATION: &str = "append";

/// What the transaction did; to be believed once it is committed.
pub(crate) struct Appended {
    pub(crate) placed: Vec<Placed>,
    /// For the topic cache.
    pub(crate) topics: Vec<(TopicKey, TopicId)>,
}

/// A message on its way in, with its numbers.
struct Row<'a> {
    append: &'a Append,
    log_id: LogId,
    topic: TopicId,
}

pub(crate) async fn append(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    cache: &TopicCache,
    batch: &Batch,
) -> Result<Appended, StoreError> {
    if batch.appends.len() > BATCH_RECORDS_MAX {
        return Err(refused("batch is too large"));
    }
    if let Some(placed) = committed_before(connection, batch).await? {
        return Ok(Appended { placed, topics: Vec::new() });
    }
    let newness = newness(connection, &batch.appends).await?;
    let new: Vec<&Append> = batch
        .appends
        .iter()
        .zip(&newness)
        .filter(|(_, newness)| **newness == Newness::New)
        .map(|(new, _)| new)
        .collect();
    let mut tenant_nos = Vec::with_capacity(new.len());
    for append in &new {
        let tenant = tenants.number(connection, append.sealed.tenant()).await?;
        tenant_nos.push(tenant.ok_or_else(|| refused("no such tenant"))?);
    }
    let log_ids = take_places(connection, &tenant_nos).await?;
    let topics = resolve_topics(connection, cache, &new, &tenant_nos).await?;
    let rows: Vec<Row<'_>> = new
        .into_iter()
        .zip(log_ids.iter().zip(&topics.by_append))
        .map(|(append, (&log_id, &topic))| Row { append, log_id, topic })
        .collect();

    insert_messages(connection, batch, &rows).await?;
    insert_outbox(connection, &rows).await?;
    remember_exactly_once(connection, batch).await?;
    let wills: Vec<MessageId> = batch.appends.iter().filter_map(|append| append.will).collect();
    if !wills.is_empty() {
        wills::remove(connection, &wills).await?;
    }
    for (row, &tenant) in rows.iter().zip(&tenant_nos) {
        match row.append.retain {
            RetainChange::Keep => {}
            RetainChange::Set => {
                set_retained(connection, tenant, row.append.sealed.topic(), row.log_id).await?;
            }
            RetainChange::Clear => clear_retained(connection, row.topic).await?,
        }
    }
    remember(connection, rows.iter().map(|row| (row.append, row.log_id)), batch.committed_at).await?;
    let placed = placed(&newness, &log_ids);
    remember_batch(connection, batch.number, &placed).await?;
    Ok(Appended { placed, topics: topics.resolved })
}

fn placed(newness: &[Newness], log_ids: &[LogId]) -> Vec<Placed> {
    let mut log_ids = log_ids.iter();
    let mut placed: Vec<Placed> = Vec::with_capacity(newness.len());
    for newness in newness {
        placed.push(match *newness {
            Newness::New => Placed::Now(log_ids.next().expect("one for each that is new").offset()),
            Newness::SameAs(first) => Placed::Before(placed[first].offset()),
            Newness::Known(log_id) => Placed::Before(log_id.offset()),
        });
    }
    placed
}

/// In the bytes that remember where a batch is: had been there before.
const BEFORE: u64 = 1 << 63;

/// The places that the batch got when it was committed under its number before.
async fn committed_before(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<Option<Vec<Placed>>, StoreError> {
    let (number, offsets): (i64, Vec<u8>) = sqlx::query_as("SELECT batch_number, offsets FROM log_writer")
        .fetch_one(connection)
        .await
        .during(OPERATION)?;
    let last = from_row(number, "batch_number")?;
    if batch.number > last {
        return Ok(None);
    }
    let (offsets, rest) = offsets.as_chunks::<8>();
    if batch.number < last || offsets.len() != batch.appends.len() || !rest.is_empty() {
        return Err(StoreError::Inconsistent("batch number was given to another batch"));
    }
    let place = |&bytes: &[u8; 8]| {
        let bits = u64::from_be_bytes(bytes);
        if bits & BEFORE == 0 { Placed::Now(Offset(bits)) } else { Placed::Before(Offset(bits & !BEFORE)) }
    };
    Ok(Some(offsets.iter().map(place).collect()))
}

async fn remember_batch(
    connection: &mut SqliteConnection,
    number: u64,
    placed: &[Placed],
) -> Result<(), StoreError> {
    let bits = |placed: &Placed| match placed {
        Placed::Now(offset) => offset.0,
        Placed::Before(offset) => offset.0 | BEFORE,
    };
    let offsets: Vec<u8> = placed.iter().flat_map(|placed| bits(placed).to_be_bytes()).collect();
    sqlx::query("UPDATE log_writer SET batch_number = ?, offsets = ?")
        .bind(to_row(number))
        .bind(offsets)
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(())
}

/// Takes as many offsets as each tenant has messages, from its counter, and deals them out in the batch's
/// order.
async fn take_places(
    connection: &mut SqliteConnection,
    tenant_nos: &[TenantNo],
) -> Result<Vec<LogId>, StoreError> {
    let mut counts = BTreeMap::<TenantNo, u64>::new();
    for &tenant in tenant_nos {
        *counts.entry(tenant).or_default() += 1;
    }
    let mut next = BTreeMap::new();
    for (&tenant, &count) in &counts {
        let head: Option<(i64,)> =
            sqlx::query_as("UPDATE counters SET head = head + ? WHERE tenant_no = ? RETURNING head")
                .bind(to_row(count))
                .bind(tenant.to_row())
                .fetch_optional(&mut *connection)
                .await
                .during(OPERATION)?;
        // Without its counter a tenant's messages would have no order: none is committed.
        let (head,) = head.ok_or(StoreError::Inconsistent("tenant without a counter"))?;
        next.insert(tenant, from_row(head, "head")? - count + 1);
    }
    tenant_nos
        .iter()
        .map(|tenant| {
            let offset = next.get_mut(tenant).expect("every tenant was counted");
            let log_id = LogId::new(*tenant, Offset(*offset)).ok_or_else(|| refused("log is full"))?;
            *offset += 1;
            Ok(log_id)
        })
        .collect()
}

struct ResolvedTopics {
    by_append: Vec<TopicId>,
    /// Those that the cache did not know.
    resolved: Vec<(TopicKey, TopicId)>,
}

async fn resolve_topics(
    connection: &mut SqliteConnection,
    cache: &TopicCache,
    appends: &[&Append],
    tenant_nos: &[TenantNo],
) -> Result<ResolvedTopics, StoreError> {
    let keys: Vec<TopicKey> = appends
        .iter()
        .zip(tenant_nos)
        .map(|(append, &tenant)| TopicKey { tenant, name: append.sealed.topic().clone() })
        .collect();
    let cached: Vec<Option<TopicId>> = keys.iter().map(|key| cache.find(key)).collect();
    let mut unknown: Vec<TopicKey> =
        keys.iter().zip(&cached).filter(|(_, id)| id.is_none()).map(|(key, _)| key.clone()).collect();
    unknown.sort_unstable_by(|a, b| (a.tenant, &a.name).cmp(&(b.tenant, &b.name)));
    unknown.dedup();

    let mut resolved = Vec::with_capacity(unknown.len());
    if !unknown.is_empty() {
        let mut ids = vec![None; unknown.len()];
        for (place, id) in find_topics(connection, &unknown).await? {
            ids[place] = Some(id);
        }
        let missing: Vec<TopicKey> =
            unknown.iter().zip(&ids).filter(|(_, id)| id.is_none()).map(|(key, _)| key.clone()).collect();
        let created =
            if missing.is_empty() { Vec::new() } else { create_topics(connection, &missing).await? };
        let mut created = created.into_iter();
        for (key, id) in unknown.into_iter().zip(ids) {
            let id =
                id.or_else(|| created.next()).ok_or(StoreError::Inconsistent("topic without a number"))?;
            resolved.push((key, id));
        }
    }
    let by_append = keys
        .iter()
        .zip(cached)
        .map(|(key, cached)| {
            cached.unwrap_or_else(|| {
                let place = resolved
                    .binary_search_by(|(known, _)| (known.tenant, &known.name).cmp(&(key.tenant, &key.name)))
                    .expect("what the cache did not know was resolved");
                resolved[place].1
            })
        })
        .collect();
    Ok(ResolvedTopics { by_append, resolved })
}

/// INSERTs of 64, 32, … 1 rows: seven statements that stay prepared, whatever the size of the batch.
static INSERT_MESSAGES: LazyLock<Vec<(usize, String)>> = LazyLock::new(|| {
    let sizes = std::iter::successors(Some(INSERT_ROWS_MAX), |&size| (size > 1).then_some(size / 2));
    sizes
        .map(|size| {
            let mut sql = String::from(
                "INSERT INTO messages (log_id, topic_id, message_id, sender, qos, retain, wakes, \
                 committed_at_ms, expires_at_ms, sealed) VALUES ",
            );
            for row in 0..size {
                let comma = if row == 0 { "" } else { "," };
                write!(sql, "{comma}(?,?,?,?,?,?,?,?,?,?)").expect("a String takes all that is written");
            }
            (size, sql)
        })
        .collect()
});

async fn insert_messages(
    connection: &mut SqliteConnection,
    batch: &Batch,
    mut rows: &[Row<'_>],
) -> Result<(), StoreError> {
    for (size, sql) in INSERT_MESSAGES.iter() {
        while let Some((chunk, rest)) = rows.split_at_checked(*size) {
            let mut insert = sqlx::query(sql);
            for Row { append, log_id, topic } in chunk {
                insert = insert
                    .bind(log_id.to_row())
                    .bind(topic.0)
                    .bind(append.sealed.message_id().0)
                    .bind(append.sealed.sender().0)
                    .bind(append.qos as u8)
                    .bind(append.retain != RetainChange::Keep)
                    .bind(wakes_to_row(append.wakes))
                    .bind(to_row(batch.committed_at.0))
                    .bind(append.expires_at.map(|at| to_row(at.0)))
                    .bind(append.sealed.bytes().as_ref());
            }
            insert.execute(&mut *connection).await.during(OPERATION)?;
            rows = rest;
        }
    }
    Ok(())
}

fn wakes_to_row(wakes: Option<Urgency>) -> i64 {
    match wakes {
        None => 0,
        Some(Urgency::High) => 1,
        Some(Urgency::Low) => 2,
    }
}

async fn insert_outbox(connection: &mut SqliteConnection, rows: &[Row<'_>]) -> Result<(), StoreError> {
    let waking: Vec<i64> =
        rows.iter().filter(|row| row.append.wakes.is_some()).map(|row| row.log_id.to_row()).collect();
    if waking.is_empty() {
        return Ok(());
    }
    sqlx::query("INSERT INTO outbox (log_id) SELECT value FROM json_each(?)")
        .bind(json!(waking).to_string())
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(())
}

/// A session that has ended in the meantime has nothing to remember.
async fn remember_exactly_once(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), StoreError> {
    let received: Vec<_> = batch
        .appends
        .iter()
        .filter_map(|append| append.exactly_once)
        .map(|(session, packet_id)| json!([to_row(session.0), packet_id.0]))
        .collect();
    if received.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT OR IGNORE INTO exactly_once_received (session_id, packet_id)
         SELECT sessions.session_id, received.value ->> 1
         FROM json_each(?) AS received CROSS JOIN sessions ON sessions.session_id = received.value ->> 0",
    )
    .bind(json!(received).to_string())
    .execute(connection)
    .await
    .during(OPERATION)?;
    Ok(())
}

fn refused(code: &'static str) -> StoreError {
    StoreError::Refused { operation: OPERATION, code: code.to_owned() }
}
