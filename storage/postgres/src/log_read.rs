//! Reading the log: always topic by topic, through (topic, offset), never through a tenant's traffic; in those
//! weeks alone that the tenant's log has been in since; and for as many sessions at once as wait.

use std::collections::HashMap;

use futures::TryStreamExt;
use sotto_model::{Offset, TenantId, TopicName};
use sotto_storage::StoreError;
use sotto_storage::message_log::{Page, PageLimit, Selector, StoredMessage};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

use crate::column::{self, MESSAGE_COLUMNS, MessageRow, bigint};
use crate::fault::Fault;
use crate::limits::{ROWS_PER_TOPIC_MIN, TOPIC_SHARES, TOPICS_PER_QUERY, TOPICS_PER_READ};
use crate::topics::{self, TopicIds, TopicKey};
use crate::weeks::week_since;

/// A page that somebody wants.
#[derive(Clone)]
pub(crate) struct ReadRequest {
    pub(crate) tenant: TenantId,
    pub(crate) selectors: Vec<Selector>,
    pub(crate) after: Offset,
    pub(crate) up_to: Offset,
    pub(crate) limit: PageLimit,
}

/// What a request reads: its topics, and the offset after which each is wanted.
struct Plan<'r> {
    request: &'r ReadRequest,
    topics: HashMap<i64, (TopicName, Offset)>,
}

impl Plan<'_> {
    /// One row more than the page takes tells a page that was cut from one that just fits.
    fn rows_wanted(&self) -> usize {
        self.request.limit.records.max(1).saturating_add(1)
    }

    /// Of many topics each gives a few rows, or a page would read as many times what it returns. A topic that
    /// has more ends the page where its rows end.
    fn rows_per_topic(&self) -> usize {
        let even_share = self.rows_wanted().saturating_mul(TOPIC_SHARES) / self.topics.len().max(1);
        even_share.max(ROWS_PER_TOPIC_MIN).min(self.rows_wanted())
    }
}

/// A page for each request, in their order.
pub(crate) async fn read_many(
    connection: &mut PgConnection,
    cache: &TopicIds,
    requests: &[ReadRequest],
) -> Result<Vec<Result<Page, StoreError>>, Fault> {
    let ids = exact_topics(connection, cache, requests).await?;
    let mut plans = Vec::with_capacity(requests.len());
    for (request, ids) in requests.iter().zip(ids) {
        plans.push(Plan { request, topics: expand(connection, request, ids).await? });
    }
    let mut rows: Vec<Vec<MessageRow>> = plans.iter().map(|_| Vec::new()).collect();
    for query in queries(&plans) {
        read_topics(connection, &plans, &query, &mut rows).await?;
    }
    Ok(plans
        .iter()
        .zip(rows)
        .map(|(plan, rows)| page(plan, rows).map_err(|fault| fault.named("read log")))
        .collect())
}

/// Some of a plan's topics.
struct Part {
    plan: usize,
    topics: Vec<(i64, i64)>,
}

/// Parts of plans that are read together. A plan of very many topics makes several parts, in several queries.
fn queries(plans: &[Plan<'_>]) -> Vec<Vec<Part>> {
    let mut queries: Vec<Vec<Part>> = Vec::new();
    let mut topics_left = 0;
    for (index, plan) in plans.iter().enumerate() {
        let topics: Vec<(i64, i64)> =
            plan.topics.iter().map(|(id, (_, after))| (*id, bigint(after.0))).collect();
        for chunk in topics.chunks(TOPICS_PER_READ) {
            if chunk.len() > topics_left {
                queries.push(Vec::new());
                topics_left = TOPICS_PER_QUERY;
            }
            topics_left -= chunk.len();
            let query = queries.last_mut().expect("made above");
            query.push(Part { plan: index, topics: chunk.to_vec() });
        }
    }
    queries
}

/// The ids of the topics that each request's filters without wildcards name, where they have one.
async fn exact_topics(
    connection: &mut PgConnection,
    cache: &TopicIds,
    requests: &[ReadRequest],
) -> Result<Vec<Vec<(i64, TopicName, Offset)>>, Fault> {
    let mut keys: Vec<TopicKey> = Vec::new();
    let mut wanted: Vec<(usize, Offset)> = Vec::new();
    for (index, request) in requests.iter().enumerate().filter(|(_, request)| request.after < request.up_to) {
        for Selector { filter, after } in request.selectors.iter().filter(|one| !one.filter.has_wildcard()) {
            keys.push((request.tenant, column::topic(filter.as_str())?));
            wanted.push((index, *after));
        }
    }
    let ids = topics::find(connection, cache, &keys).await?;
    let mut found: Vec<Vec<(i64, TopicName, Offset)>> = requests.iter().map(|_| Vec::new()).collect();
    for (((_, topic), id), (index, after)) in keys.into_iter().zip(ids).zip(wanted) {
        if let Some(id) = id {
            found[index].push((id, topic, after));
        }
    }
    Ok(found)
}

/// The topics that the selectors match, each with the offset after which it is wanted: the least of any
/// selector that matches it.
async fn expand(
    connection: &mut PgConnection,
    request: &ReadRequest,
    exact: Vec<(i64, TopicName, Offset)>,
) -> Result<HashMap<i64, (TopicName, Offset)>, Fault> {
    let mut topics = HashMap::new();
    if request.after >= request.up_to {
        return Ok(topics);
    }
    let mut want = |id: i64, topic: TopicName, since: Offset| {
        let since = since.max(request.after);
        let (_, least) = topics.entry(id).or_insert((topic, since));
        *least = since.min(*least);
    };
    for (id, topic, after) in exact {
        want(id, topic, after);
    }
    for selector in request.selectors.iter().filter(|selector| selector.filter.has_wildcard()) {
        let tenant: TenantId = request.tenant;
        for (id, topic) in topics::matching(connection, tenant, &selector.filter).await? {
            want(id, topic, selector.after);
        }
    }
    Ok(topics)
}

/// A row, and for which part.
struct PartRow {
    part: i32,
    message: MessageRow,
}

impl FromRow<'_, PgRow> for PartRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { message: MessageRow::from_row(row)?, part: row.try_get("part")? })
    }
}

/// Of each part the first rows of its topics together, and of them one row more than the byte limit takes, so
/// that a page of large messages neither fetches what it will not return nor misses that there is more.
async fn read_topics(
    connection: &mut PgConnection,
    plans: &[Plan<'_>],
    parts: &[Part],
    rows: &mut [Vec<MessageRow>],
) -> Result<(), Fault> {
    let (mut ids, mut afters) = (Vec::new(), Vec::new());
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    let (mut tenants, mut since, mut up_tos) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rows_wanted, mut rows_per_topic, mut bytes_wanted) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        firsts.push(place(ids.len() + 1));
        for (id, after) in &part.topics {
            ids.push(*id);
            afters.push(*after);
        }
        lasts.push(place(ids.len()));
        let request = plans[part.plan].request;
        tenants.push(request.tenant.0);
        since.push(bigint(request.after.0));
        up_tos.push(bigint(request.up_to.0));
        rows_wanted.push(column::limit(plans[part.plan].rows_wanted()));
        rows_per_topic.push(column::limit(plans[part.plan].rows_per_topic()));
        bytes_wanted.push(column::limit(request.limit.bytes));
    }
    let sql = format!(
        "SELECT page.*, r.part FROM ROWS FROM ( \
             UNNEST($1::integer[]), UNNEST($2::integer[]), UNNEST($3::bigint[]), UNNEST($4::bigint[]), \
             UNNEST($5::bigint[]), UNNEST($8::uuid[]), UNNEST($9::bigint[]), UNNEST($10::bigint[]), \
             generate_series(1, cardinality($1)) \
         ) AS r (first, last, up_to, rows_wanted, bytes_wanted, tenant_id, after, rows_per_topic, part) \
         CROSS JOIN LATERAL ( \
             SELECT {week_since} AS week_ms \
         ) since \
         CROSS JOIN LATERAL ( \
             SELECT {MESSAGE_COLUMNS} FROM ( \
                 SELECT first.*, first_value(octet_length(sealed)) OVER by_offset AS first_bytes, \
                     sum(octet_length(sealed)) OVER by_offset - octet_length(sealed) AS bytes_before \
                 FROM ( \
                     SELECT m.* \
                     FROM UNNEST(($6::bigint[])[r.first:r.last], ($7::bigint[])[r.first:r.last]) \
                         AS t (topic_id, after) \
                     CROSS JOIN LATERAL ( \
                         SELECT * FROM messages m \
                         WHERE m.topic_id = t.topic_id AND m.log_offset > t.after AND m.log_offset <= r.up_to \
                             AND m.committed_at_ms >= since.week_ms \
                         ORDER BY m.log_offset LIMIT r.rows_per_topic \
                     ) m \
                     ORDER BY m.log_offset LIMIT r.rows_wanted \
                 ) first \
                 WINDOW by_offset AS (ORDER BY log_offset) \
             ) cut \
             WHERE bytes_before <= GREATEST(r.bytes_wanted, first_bytes) \
         ) page",
        week_since = week_since!("r.tenant_id", "r.after"),
    );
    let mut found = sqlx::query_as(&sql)
        .bind(firsts)
        .bind(lasts)
        .bind(up_tos)
        .bind(rows_wanted)
        .bind(bytes_wanted)
        .bind(ids)
        .bind(afters)
        .bind(tenants)
        .bind(since)
        .bind(rows_per_topic)
        .fetch(connection);
    while let Some(PartRow { part, message }) = found.try_next().await? {
        let part = usize::try_from(part - 1).ok().and_then(|part| parts.get(part));
        let part = part.ok_or(Fault::Inconsistent("a part was not asked for"))?;
        rows[part.plan].push(message);
    }
    Ok(())
}

fn place(count: usize) -> i32 {
    i32::try_from(count).expect("a query's topics are bounded")
}

fn page(plan: &Plan<'_>, mut rows: Vec<MessageRow>) -> Result<Page, Fault> {
    let ReadRequest { after, up_to, limit, .. } = plan.request;
    // Each query returned its own first rows; the first of all of them are the first of the whole.
    rows.sort_unstable_by_key(MessageRow::offset);
    let complete_to = complete_to(plan, &rows)?;
    let mut messages = Vec::new();
    let mut bytes = 0_usize;
    for row in rows.into_iter().filter(|row| row.offset() <= bigint(complete_to.0)) {
        bytes = bytes.saturating_add(row.sealed_bytes());
        let full = messages.len() >= limit.records.max(1) || (!messages.is_empty() && bytes > limit.bytes);
        if full {
            let scanned_to = messages.last().map_or(*after, |last: &StoredMessage| last.offset);
            return Ok(Page { messages, scanned_to });
        }
        let topic = plan.topics.get(&row.topic_id).ok_or(Fault::Inconsistent("a topic was not asked for"))?;
        messages.push(row.into_message(topic.0.clone())?);
    }
    Ok(Page { messages, scanned_to: complete_to.min(*up_to) })
}

/// Up to where the rows are all that there is: to the first place where a topic gave no more than it was asked for.
fn complete_to(plan: &Plan<'_>, rows: &[MessageRow]) -> Result<Offset, Fault> {
    let asked = plan.rows_per_topic();
    let mut of_topic: HashMap<i64, (usize, i64)> = HashMap::new();
    for row in rows {
        let (count, last) = of_topic.entry(row.topic_id).or_default();
        *count += 1;
        *last = row.offset();
    }
    let ends = of_topic.into_values().filter(|(count, _)| *count >= asked).map(|(_, last)| last);
    ends.min().map_or(Ok(plan.request.up_to), column::offset)
}
