//! The log's one writer: its claim, and the statement that commits a batch.
//!
//! **Claim.** A process holds the log by a session-level advisory lock on the writer's connection, and by
//! a random claim in the row of `writers` that every batch compares. The lock keeps a second process
//! away; the claim notices, after the connection was lost, whether somebody else has had the log since.
//!
//! **Batch.** One statement, so one round trip and one transaction: it takes the row of `writers` if the
//! batch is a new one, raises each tenant's counter once, in the order of their ids, and inserts
//! messages, outbox rows, retained messages and the packet ids of QoS 2 publishers. The rows inserted are
//! counted inside the statement, which fails as a whole unless they are all there.
//!
//! **Repetition.** A batch whose COMMIT was not answered is sent again. The row of `writers` makes it wait
//! for the backend that may still be committing it; then the number is not above the last, nothing is
//! written, and the offsets are read from the counters, which remember the last batch that raised them
//! and the head before it.

use std::collections::HashMap;

use parking_lot::Mutex;
use sotto_model::{Offset, TenantId};
use sotto_storage::StoreError;
use sotto_storage::message_log::{Append, Batch, RetainChange};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::time::sleep;
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::{Lane, within};
use crate::limits::{CLAIM_POLL, CLAIM_WAIT};
use crate::topics::{self, TopicIds, TopicKey};
use crate::weeks;

/// "sotto" in ASCII; advisory locks are numbered per database.
const WRITER_LOCK: i64 = 0x73_6f_74_74_6f;

pub(crate) struct Writer {
    lane: Lane,
    /// Set by `claim`; locked for a look or a store.
    claim: Mutex<Option<Uuid>>,
}

impl Writer {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Self { lane: Lane::new(options, 1), claim: Mutex::new(None) }
    }

    pub(crate) async fn claim(&self) -> Result<u64, StoreError> {
        const OPERATION: &str = "claim writer";
        let mut held = self.lane.hold(OPERATION).await?;
        let claim = Uuid::new_v4();
        let result = within(take_claim(held.connection(), claim)).await;
        if let Ok(None) = result {
            // The connection has no claim, so it does not go back to the lane.
            drop(held);
            return Err(StoreError::Refused {
                operation: OPERATION,
                code: "another process holds the log".into(),
            });
        }
        let last_batch = held.settle(result)?.unwrap_or_default();
        *self.claim.lock() = Some(claim);
        Ok(last_batch)
    }

    pub(crate) async fn append(&self, batch: &Batch, cache: &TopicIds) -> Result<Vec<Offset>, StoreError> {
        const OPERATION: &str = "append";
        let Some(claim) = *self.claim.lock() else {
            return Err(StoreError::Refused { operation: OPERATION, code: "the log is not claimed".into() });
        };
        let mut held = self.lane.hold(OPERATION).await?;
        if held.opened_now() {
            let result = within(renew_claim(held.connection(), claim)).await;
            match result {
                Ok(Renewed::Ours) => {}
                other => {
                    // The connection has no claim, so it may not come back to the lane.
                    let code = match other {
                        Ok(Renewed::StillHeld) => "the connection before still ends",
                        Ok(_) => "another process has claimed the log",
                        Err(fault) => return Err(fault.named(OPERATION)),
                    };
                    // Not the fault of any message: nothing is refused, and readiness says that it is bad.
                    return Err(StoreError::Unavailable { operation: OPERATION, code: code.into() });
                }
            }
        }
        let mut result = within(append(held.connection(), batch, claim, cache)).await;
        if matches!(&result, Err(fault) if fault.is_missing_week()) {
            // Nothing was written. Weeks are made ahead of time, but a clock may be set to any.
            result = within(async {
                weeks::ensure(held.connection(), batch.committed_at).await?;
                append(held.connection(), batch, claim, cache).await
            })
            .await;
        }
        match held.settle(result)? {
            Appended::At(offsets) => Ok(offsets),
            Appended::TakenByAnother => Err(StoreError::Unavailable {
                operation: OPERATION,
                code: "another process has claimed the log".into(),
            }),
        }
    }
}

/// The number of the last batch; `None` while another process holds the log.
async fn take_claim(connection: &mut PgConnection, claim: Uuid) -> Result<Option<u64>, Fault> {
    // A process that has just ended is noticed by its server within moments: worth a short wait.
    let polls = CLAIM_WAIT.as_millis() / CLAIM_POLL.as_millis();
    let mut locked = try_lock(connection).await?;
    for _ in 0..polls {
        if locked {
            break;
        }
        sleep(CLAIM_POLL).await;
        locked = try_lock(connection).await?;
    }
    if !locked {
        return Ok(None);
    }
    let last_batch =
        sqlx::query_scalar("UPDATE writers SET claim = $1 WHERE writer_id = 1 RETURNING batch_number")
            .bind(claim)
            .fetch_one(connection)
            .await?;
    column::unsigned(last_batch).map(Some)
}

/// True where this connection holds the lock, however often it asks: a session may take it again.
async fn try_lock(connection: &mut PgConnection) -> Result<bool, Fault> {
    let held: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
             AND (classid::bigint << 32) | objid::bigint = $1) \
         OR pg_try_advisory_lock($1)",
    )
    .bind(WRITER_LOCK)
    .fetch_one(connection)
    .await?;
    Ok(held)
}

enum Renewed {
    Ours,
    /// Our own connection before this one has not ended yet.
    StillHeld,
    TakenByAnother,
}

async fn renew_claim(connection: &mut PgConnection, claim: Uuid) -> Result<Renewed, Fault> {
    if !is_claimed_by(connection, claim).await? {
        return Ok(Renewed::TakenByAnother);
    }
    if !try_lock(connection).await? {
        // The claim is ours, so the lock is held by our own connection before this one, cut off or hung.
        // Whatever it was committing is then either committed or not, and the batch number tells.
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND (classid::bigint << 32) | objid::bigint = $1",
        )
        .bind(WRITER_LOCK)
        .execute(&mut *connection)
        .await?;
        sleep(CLAIM_POLL).await;
        if !try_lock(connection).await? {
            return Ok(Renewed::StillHeld);
        }
    }
    // Between the look and the lock another process may have come and gone.
    Ok(if is_claimed_by(connection, claim).await? { Renewed::Ours } else { Renewed::TakenByAnother })
}

async fn is_claimed_by(connection: &mut PgConnection, claim: Uuid) -> Result<bool, Fault> {
    let ours: Option<bool> = sqlx::query_scalar("SELECT claim = $1 FROM writers WHERE writer_id = 1")
        .bind(claim)
        .fetch_one(connection)
        .await?;
    Ok(ours.unwrap_or(false))
}

enum Appended {
    At(Vec<Offset>),
    TakenByAnother,
}

async fn append(
    connection: &mut PgConnection,
    batch: &Batch,
    claim: Uuid,
    cache: &TopicIds,
) -> Result<Appended, Fault> {
    let keys: Vec<TopicKey> =
        batch.appends.iter().map(|append| (append.sealed.tenant(), append.sealed.topic().clone())).collect();
    let topic_ids = topics::ensure(connection, cache, &keys).await?;
    let columns = Columns::of(&batch.appends, &topic_ids);
    let bases: Option<Option<Vec<i64>>> = sqlx::query_scalar(APPEND)
        .bind(bigint(batch.number))
        .bind(claim)
        .bind(&columns.tenants)
        .bind(&columns.messages_of_tenant)
        .bind(bigint(batch.committed_at.0))
        .bind(&columns.slots)
        .bind(&columns.ordinals)
        .bind(&topic_ids)
        .bind(&columns.message_ids)
        .bind(&columns.senders)
        .bind(&columns.flags)
        .bind(&columns.expiries)
        .bind(&columns.sealed)
        .bind(columns.any_retained)
        .bind(&columns.retained_cleared)
        .bind(&columns.publishers)
        .bind(&columns.packet_ids)
        .bind(&columns.wills)
        .fetch_optional(&mut *connection)
        .await?;
    let bases = match bases {
        Some(bases) => bases.unwrap_or_default(),
        None => match bases_of_repeated(connection, batch, claim, &columns.tenants).await? {
            Some(bases) => bases,
            None => return Ok(Appended::TakenByAnother),
        },
    };
    columns.offsets(&bases).map(Appended::At)
}

/// Where the batch's number is not above the last: it may be the last one, sent again.
async fn bases_of_repeated(
    connection: &mut PgConnection,
    batch: &Batch,
    claim: Uuid,
    tenants: &[Uuid],
) -> Result<Option<Vec<i64>>, Fault> {
    let (ours, last, records): (Option<bool>, i64, i32) =
        sqlx::query_as("SELECT claim = $1, batch_number, batch_records FROM writers WHERE writer_id = 1")
            .bind(claim)
            .fetch_one(&mut *connection)
            .await?;
    if ours != Some(true) {
        return Ok(None);
    }
    if last != bigint(batch.number) || usize::try_from(records) != Ok(batch.appends.len()) {
        return Err(Fault::Inconsistent("a batch number stands for another batch"));
    }
    let bases = sqlx::query_scalar(
        "SELECT batch_base FROM counters WHERE batch_number = $1 AND tenant_id = ANY($2) ORDER BY tenant_id",
    )
    .bind(last)
    .bind(tenants)
    .fetch_all(connection)
    .await?;
    Ok(Some(bases))
}

/// A batch as arrays, one a column. `slots` says which of `tenants` a message belongs to, from 1.
struct Columns<'b> {
    /// Sorted: counters are locked in this order.
    tenants: Vec<Uuid>,
    messages_of_tenant: Vec<i64>,
    slots: Vec<i16>,
    /// The message's place among those of its tenant in this batch, from 1.
    ordinals: Vec<i32>,
    message_ids: Vec<Uuid>,
    senders: Vec<Uuid>,
    flags: Vec<i16>,
    expiries: Vec<Option<i64>>,
    sealed: Vec<&'b [u8]>,
    any_retained: bool,
    retained_cleared: Vec<i64>,
    publishers: Vec<i64>,
    packet_ids: Vec<i32>,
    /// Kept wills that are published.
    wills: Vec<Uuid>,
}

/// Bits of a message's flags, as the statement reads them; bits 0 and 1 hold the QoS.
const RETAIN: i16 = 4;
const WAKES: i16 = 8;
/// It becomes its topic's retained message: the last of the batch to change it.
const BECOMES_RETAINED: i16 = 16;

impl<'b> Columns<'b> {
    fn of(appends: &'b [Append], topic_ids: &[i64]) -> Self {
        let mut tenants: Vec<Uuid> = appends.iter().map(|append| append.sealed.tenant().0).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let slot_of: HashMap<TenantId, usize> =
            tenants.iter().enumerate().map(|(slot, tenant)| (TenantId(*tenant), slot)).collect();
        let mut messages_of_tenant = vec![0; tenants.len()];

        let mut last_change = HashMap::new();
        for (index, (append, topic)) in appends.iter().zip(topic_ids).enumerate() {
            if append.retain != RetainChange::Keep {
                last_change.insert(*topic, index);
            }
        }
        let mut columns = Self {
            slots: Vec::with_capacity(appends.len()),
            ordinals: Vec::with_capacity(appends.len()),
            message_ids: Vec::with_capacity(appends.len()),
            senders: Vec::with_capacity(appends.len()),
            flags: Vec::with_capacity(appends.len()),
            expiries: Vec::with_capacity(appends.len()),
            sealed: Vec::with_capacity(appends.len()),
            any_retained: false,
            retained_cleared: Vec::new(),
            publishers: Vec::new(),
            packet_ids: Vec::new(),
            wills: appends.iter().filter_map(|append| append.will).map(|will| will.0).collect(),
            messages_of_tenant: Vec::new(),
            tenants: Vec::new(),
        };
        for (index, (append, topic)) in appends.iter().zip(topic_ids).enumerate() {
            let sealed = &append.sealed;
            let slot = slot_of[&sealed.tenant()];
            messages_of_tenant[slot] += 1;
            columns.slots.push(i16::try_from(slot + 1).expect("fewer tenants than records in a batch"));
            columns.ordinals.push(i32::try_from(messages_of_tenant[slot]).expect("a batch is bounded"));
            columns.message_ids.push(sealed.message_id().0);
            columns.senders.push(sealed.sender().0);
            columns.expiries.push(append.expires_at.map(|at| bigint(at.0)));
            columns.sealed.push(sealed.bytes());
            if let Some((session, packet_id)) = append.exactly_once {
                columns.publishers.push(bigint(session.0));
                columns.packet_ids.push(i32::from(packet_id.0.get()));
            }

            let mut flags = append.qos as i16;
            if append.retain != RetainChange::Keep {
                flags |= RETAIN;
                if last_change[topic] == index {
                    if append.retain == RetainChange::Clear {
                        columns.retained_cleared.push(*topic);
                    } else {
                        flags |= BECOMES_RETAINED;
                        columns.any_retained = true;
                    }
                }
            }
            if append.wakes {
                flags |= WAKES;
            }
            columns.flags.push(flags);
        }
        columns.tenants = tenants;
        columns.messages_of_tenant = messages_of_tenant;
        columns
    }

    fn offsets(&self, bases: &[i64]) -> Result<Vec<Offset>, Fault> {
        if bases.len() != self.tenants.len() {
            return Err(Fault::Inconsistent("a counter did not take part in the batch"));
        }
        self.slots
            .iter()
            .zip(&self.ordinals)
            .map(|(slot, ordinal)| {
                let slot = usize::try_from(*slot - 1).expect("slots count from 1");
                column::offset(bases[slot] + i64::from(*ordinal))
            })
            .collect()
    }
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
    SELECT c.tenant_id, t.messages
    FROM claimed
    CROSS JOIN (SELECT unnest($3::uuid[]) AS tenant_id, unnest($4::bigint[]) AS messages) t
    JOIN counters c USING (tenant_id)
    ORDER BY c.tenant_id
    FOR UPDATE OF c
), taken AS (
    UPDATE counters c SET head = c.head + l.messages, batch_number = $1, batch_base = c.head
    FROM locked l WHERE c.tenant_id = l.tenant_id
    RETURNING c.tenant_id, c.batch_base
), bases AS (
    SELECT array_agg(batch_base ORDER BY tenant_id) AS base, count(*) = cardinality($3) AS complete FROM taken
), stored AS (
    INSERT INTO messages (
        tenant_id, log_offset, topic_id, committed_at_ms, expires_at_ms, message_id, sender_id, qos, retain, wakes,
        sealed
    )
    SELECT ($3)[slot], (SELECT base FROM bases)[slot] + ordinal, topic_id, $5, expires_at_ms, message_id,
        sender_id, flags & 3::smallint, flags & 4 <> 0, flags & 8 <> 0, sealed
    FROM (
        SELECT unnest($6::smallint[]) AS slot, unnest($7::integer[]) AS ordinal, unnest($8::bigint[]) AS topic_id,
            unnest($9::uuid[]) AS message_id, unnest($10::uuid[]) AS sender_id, unnest($11::smallint[]) AS flags,
            unnest($12::bigint[]) AS expires_at_ms, unnest($13::bytea[]) AS sealed
    ) m
    WHERE (SELECT complete FROM bases)
    RETURNING 1
), posted AS (
    INSERT INTO outbox (topic_id, log_offset, committed_at_ms, expires_at_ms, sender_id)
    SELECT topic_id, (SELECT base FROM bases)[slot] + ordinal, $5, expires_at_ms, sender_id
    FROM (
        SELECT unnest($6::smallint[]) AS slot, unnest($7::integer[]) AS ordinal, unnest($8::bigint[]) AS topic_id,
            unnest($10::uuid[]) AS sender_id, unnest($11::smallint[]) AS flags, unnest($12::bigint[]) AS expires_at_ms
    ) m
    WHERE flags & 8 <> 0 AND (SELECT complete FROM bases)
), kept AS (
    INSERT INTO retained (
        topic_id, name, tenant_id, log_offset, committed_at_ms, expires_at_ms, message_id, sender_id, qos, sealed
    )
    SELECT topic_id, (SELECT name FROM topics t WHERE t.topic_id = m.topic_id), ($3)[slot],
        (SELECT base FROM bases)[slot] + ordinal, $5, expires_at_ms, message_id, sender_id, flags & 3::smallint,
        sealed
    FROM (
        SELECT unnest($6::smallint[]) AS slot, unnest($7::integer[]) AS ordinal, unnest($8::bigint[]) AS topic_id,
            unnest($9::uuid[]) AS message_id, unnest($10::uuid[]) AS sender_id, unnest($11::smallint[]) AS flags,
            unnest($12::bigint[]) AS expires_at_ms, unnest($13::bytea[]) AS sealed
    ) m
    WHERE $14 AND flags & 16 <> 0 AND (SELECT complete FROM bases)
    ON CONFLICT (topic_id) DO UPDATE SET
        log_offset = excluded.log_offset, committed_at_ms = excluded.committed_at_ms,
        expires_at_ms = excluded.expires_at_ms, message_id = excluded.message_id,
        sender_id = excluded.sender_id, qos = excluded.qos, sealed = excluded.sealed
), cleared AS (
    DELETE FROM retained WHERE topic_id = ANY($15::bigint[]) AND (SELECT complete FROM bases)
), received AS (
    -- A session that is being deleted takes no rows; the lock makes sure that it does not go meanwhile.
    INSERT INTO exactly_once_received (session_id, packet_id)
    SELECT s.session_id, r.packet_id
    FROM (SELECT unnest($16::bigint[]) AS session_id, unnest($17::integer[]) AS packet_id) r
    JOIN sessions s USING (session_id)
    WHERE (SELECT complete FROM bases)
    FOR KEY SHARE OF s
    ON CONFLICT DO NOTHING
), published AS (
    DELETE FROM wills WHERE message_id = ANY($18::uuid[]) AND (SELECT complete FROM bases)
)
SELECT CASE WHEN sotto_require(
    (SELECT complete FROM bases) AND (SELECT count(*) FROM stored) = cardinality($6), 'batch is incomplete'
) THEN (SELECT base FROM bases) END
FROM claimed
";
