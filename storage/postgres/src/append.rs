//! The statement that commits a batch.
//!
//! **Batch.** One statement, so one round trip and one transaction: it takes the row of `writers` if the
//! batch is a new one, raises each tenant's counter once, in the order of their ids, and inserts
//! messages, outbox rows, retained messages, publication ids and the packet ids of QoS 2 publishers. The rows
//! inserted are counted inside the statement, which fails as a whole unless they are all there.
//!
//! **Repetition.** A batch whose COMMIT was not answered is sent again. The row of `writers` makes it wait
//! for the backend that may still be committing it; then the number is not above the last, nothing is
//! written, and the offsets are read from the counters, which remember the last batch that raised them
//! and the head before it.

use sotto_storage::message_log::{Batch, Placed};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::batch_columns::BatchColumns;
use crate::column::bigint;
use crate::fault::Fault;
use crate::topics::{self, TopicIds, TopicKey};

pub(crate) enum Appended {
    At(Vec<Placed>),
    TakenByAnother,
}

pub(crate) async fn append(
    connection: &mut PgConnection,
    batch: &Batch,
    claim: Uuid,
    cache: &TopicIds,
) -> Result<Appended, Fault> {
    let keys: Vec<TopicKey> =
        batch.appends.iter().map(|append| (append.sealed.tenant(), append.sealed.topic().clone())).collect();
    let topic_ids = topics::ensure(connection, cache, &keys).await?;
    let columns = BatchColumns::of(&batch.appends, &topic_ids);
    let appended: Option<AppendedRow> = sqlx::query_as(APPEND)
        .bind(bigint(batch.number))
        .bind(claim)
        .bind(&columns.tenants)
        .bind(&columns.messages_of_tenant)
        .bind(bigint(batch.committed_at.0))
        .bind(&columns.slots)
        .bind(&columns.ordinals)
        .bind(&columns.topic_ids)
        .bind(&columns.message_ids)
        .bind(&columns.senders)
        .bind(&columns.flags)
        .bind(&columns.expiries)
        .bind(&columns.sealed)
        .bind(columns.any_retained)
        .bind(&columns.publishers)
        .bind(&columns.packet_ids)
        .bind(&columns.wills)
        .bind(&columns.outbox_slots)
        .bind(&columns.outbox_firsts)
        .bind(&columns.outbox_lasts)
        .bind(&columns.named)
        .bind(&columns.names)
        .bind(&columns.outbox_urgencies)
        .fetch_optional(&mut *connection)
        .await?;
    let Some((bases, known, known_offsets)) = appended else {
        return repeated(connection, batch, claim, &columns).await;
    };
    let known: Vec<(i32, i64)> =
        known.unwrap_or_default().into_iter().zip(known_offsets.unwrap_or_default()).collect();
    columns.placed(&bases.unwrap_or_default(), &known).map(Appended::At)
}

/// Where each tenant's log ended before; which messages had been committed before, and where.
type AppendedRow = (Option<Vec<i64>>, Option<Vec<i32>>, Option<Vec<i64>>);

/// Where the batch's number is not above the last: it may be the last one, sent again.
async fn repeated(
    connection: &mut PgConnection,
    batch: &Batch,
    claim: Uuid,
    columns: &BatchColumns<'_>,
) -> Result<Appended, Fault> {
    let (ours, last, records): (Option<bool>, i64, i32) =
        sqlx::query_as("SELECT claim = $1, batch_number, batch_records FROM writers WHERE writer_id = 1")
            .bind(claim)
            .fetch_one(&mut *connection)
            .await?;
    if ours != Some(true) {
        return Ok(Appended::TakenByAnother);
    }
    if last != bigint(batch.number) || usize::try_from(records) != Ok(columns.slots.len()) {
        return Err(Fault::Inconsistent("a batch number stands for another batch"));
    }
    let bases: Vec<i64> = sqlx::query_scalar(
        "SELECT batch_base FROM counters WHERE batch_number = $1 AND tenant_id = ANY($2) ORDER BY tenant_id",
    )
    .bind(last)
    .bind(&columns.tenants)
    .fetch_all(&mut *connection)
    .await?;
    let mut known: Vec<(i32, i64)> = Vec::new();
    if bases.len() == columns.tenants.len() && !columns.names.is_empty() {
        let remembered: Vec<(i32, i64)> = sqlx::query_as(
            "SELECT n.place, p.log_offset FROM UNNEST($1::integer[], $2::uuid[]) AS n (place, publication_key) \
             JOIN publications p USING (publication_key)",
        )
        .bind(&columns.named)
        .bind(&columns.names)
        .fetch_all(connection)
        .await?;
        // Under its own offset it was this batch that committed it.
        known.extend(remembered.into_iter().filter(|(place, offset)| {
            let row = usize::try_from(*place - 1).expect("places count from 1");
            columns.offset(row, &bases) != *offset
        }));
    }
    columns.placed(&bases, &known).map(Appended::At)
}

/// `$6` to `$13` are a message each. In a SELECT list `unnest` streams; in FROM it would first copy the
/// whole batch into a tuple store. What depends on `claimed` waits for it, so that a batch sent again
/// stops at the row of `writers` before it touches anything.
const APPEND: &str = "
WITH claimed AS (
    UPDATE writers SET batch_number = $1, batch_records = cardinality($6)
    WHERE writer_id = 1 AND claim = $2 AND batch_number < $1
    RETURNING batch_number
), locked AS (
    SELECT c.tenant_id, c.head, c.week_ms, t.messages
    FROM claimed
    CROSS JOIN (SELECT unnest($3::uuid[]) AS tenant_id, unnest($4::bigint[]) AS messages) t
    JOIN counters c USING (tenant_id)
    ORDER BY c.tenant_id
    FOR UPDATE OF c
), taken AS (
    UPDATE counters c SET head = c.head + l.messages, batch_number = $1, batch_base = c.head,
        week_ms = sotto_week_start($5)
    FROM locked l WHERE c.tenant_id = l.tenant_id
    RETURNING c.tenant_id, c.batch_base
), bases AS (
    SELECT array_agg(batch_base ORDER BY tenant_id) AS base, count(*) = cardinality($3) AS complete FROM taken
), entered AS (
    INSERT INTO log_weeks (tenant_id, after_offset, week_ms)
    SELECT tenant_id, head, sotto_week_start($5) FROM locked WHERE week_ms <> sotto_week_start($5)
    -- The very first may be there from before weeks were noted: then any week is right.
    ON CONFLICT (tenant_id, after_offset) DO UPDATE SET week_ms = LEAST(log_weeks.week_ms, excluded.week_ms)
), known AS MATERIALIZED (
    -- What its publisher had committed before. No other process adds to it: the log has one writer.
    SELECT n.place, p.log_offset
    FROM claimed
    CROSS JOIN (SELECT unnest($21::integer[]) AS place, unnest($22::uuid[]) AS publication_key) n
    JOIN publications p USING (publication_key)
), stored AS (
    INSERT INTO messages (
        tenant_id, log_offset, topic_id, committed_at_ms, expires_at_ms, message_id, sender_id, qos, retain, wakes,
        low, sealed
    )
    SELECT ($3)[slot], (SELECT base FROM bases)[slot] + ordinal, topic_id, $5, expires_at_ms, message_id,
        sender_id, flags & 3::smallint, flags & 4 <> 0, flags & 8 <> 0, flags & 32 <> 0, sealed
    FROM (
        SELECT unnest($6::smallint[]) AS slot, unnest($7::integer[]) AS ordinal, unnest($8::bigint[]) AS topic_id,
            unnest($9::uuid[]) AS message_id, unnest($10::uuid[]) AS sender_id, unnest($11::smallint[]) AS flags,
            unnest($12::bigint[]) AS expires_at_ms, unnest($13::bytea[]) AS sealed,
            generate_series(1, cardinality($6)) AS place
    ) m
    WHERE (SELECT complete FROM bases) AND place <> ALL (ARRAY(SELECT place FROM known))
    RETURNING 1
), posted AS (
    INSERT INTO outbox (base_offset, ordinals, topic_ids, sender_ids, expiries_ms, urgency, committed_at_ms)
    SELECT (SELECT base FROM bases)[slot], ($7)[first:last], ($8)[first:last], ($10)[first:last],
        ($12)[first:last], urgency, $5
    FROM (
        SELECT unnest($18::smallint[]) AS slot, unnest($19::integer[]) AS first, unnest($20::integer[]) AS last,
            unnest($23::smallint[]) AS urgency
    ) o
    WHERE (SELECT complete FROM bases) AND NOT EXISTS (SELECT FROM known)
    UNION ALL
    SELECT (SELECT base FROM bases)[slot], array_agg(($7)[place]), array_agg(($8)[place]),
        array_agg(($10)[place]), array_agg(($12)[place]), urgency, $5
    FROM (
        SELECT unnest($18::smallint[]) AS slot, unnest($19::integer[]) AS first, unnest($20::integer[]) AS last,
            unnest($23::smallint[]) AS urgency
    ) o
    CROSS JOIN LATERAL (SELECT generate_series(first, last) AS place) p
    WHERE (SELECT complete FROM bases) AND EXISTS (SELECT FROM known)
        AND place <> ALL (ARRAY(SELECT place FROM known))
    GROUP BY slot, first, urgency
), changed AS MATERIALIZED (
    -- Of the messages that change what a topic retains, the last counts.
    SELECT DISTINCT ON (topic_id) slot, ordinal, topic_id, expires_at_ms, message_id, sender_id, flags, sealed
    FROM (
        SELECT unnest($6::smallint[]) AS slot, unnest($7::integer[]) AS ordinal, unnest($8::bigint[]) AS topic_id,
            unnest($9::uuid[]) AS message_id, unnest($10::uuid[]) AS sender_id, unnest($11::smallint[]) AS flags,
            unnest($12::bigint[]) AS expires_at_ms, unnest($13::bytea[]) AS sealed,
            generate_series(1, cardinality($6)) AS place
    ) m
    WHERE $14 AND flags & 4 <> 0 AND (SELECT complete FROM bases)
        AND place <> ALL (ARRAY(SELECT place FROM known))
    ORDER BY topic_id, ordinal DESC
), kept AS (
    INSERT INTO retained (
        topic_id, name, tenant_id, log_offset, committed_at_ms, expires_at_ms, message_id, sender_id, qos, sealed
    )
    SELECT topic_id, (SELECT name FROM topics t WHERE t.topic_id = c.topic_id), ($3)[slot],
        (SELECT base FROM bases)[slot] + ordinal, $5, expires_at_ms, message_id, sender_id, flags & 3::smallint,
        sealed
    FROM changed c WHERE flags & 16 = 0
    ON CONFLICT (topic_id) DO UPDATE SET
        log_offset = excluded.log_offset, committed_at_ms = excluded.committed_at_ms,
        expires_at_ms = excluded.expires_at_ms, message_id = excluded.message_id,
        sender_id = excluded.sender_id, qos = excluded.qos, sealed = excluded.sealed
), cleared AS (
    DELETE FROM retained WHERE topic_id IN (SELECT topic_id FROM changed WHERE flags & 16 <> 0)
), remembered AS (
    INSERT INTO publications (publication_key, log_offset, committed_at_ms)
    SELECT publication_key, (SELECT base FROM bases)[($6)[place]] + ($7)[place], $5
    FROM (SELECT unnest($21::integer[]) AS place, unnest($22::uuid[]) AS publication_key) n
    WHERE (SELECT complete FROM bases) AND place <> ALL (ARRAY(SELECT place FROM known))
), received AS (
    -- A session that is being deleted takes no rows; the lock makes sure that it does not go meanwhile.
    INSERT INTO exactly_once_received (session_id, packet_id)
    SELECT s.session_id, r.packet_id
    FROM (SELECT unnest($15::bigint[]) AS session_id, unnest($16::integer[]) AS packet_id) r
    JOIN sessions s USING (session_id)
    WHERE (SELECT complete FROM bases)
    FOR KEY SHARE OF s
    ON CONFLICT DO NOTHING
), published AS (
    DELETE FROM wills WHERE message_id = ANY($17::uuid[]) AND (SELECT complete FROM bases)
)
SELECT CASE WHEN sotto_require(
    (SELECT complete FROM bases)
        AND (SELECT count(*) FROM stored) + (SELECT count(*) FROM known) = cardinality($6),
    'batch is incomplete'
) THEN (SELECT base FROM bases) END,
    (SELECT array_agg(place ORDER BY place) FROM known), (SELECT array_agg(log_offset ORDER BY place) FROM known)
FROM claimed
";
