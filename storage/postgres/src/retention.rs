//! How long the log keeps what it holds.
//!
//! **A week that may go for everybody** who has messages in it goes as a whole. One transaction closes it to
//! new rows, looks once more whether it may go, raises the logs' starts and notes it in `weeks_going`; then it is
//! detached, concurrently, and dropped. Whoever dies in between leaves the note, and the next step goes on from
//! it. A clock that is set back to a closed week finds another in its place (`sotto_ensure_week`).
//!
//! **A week that somebody keeps**, by a longer time or a legal hold, is emptied of the others' messages some at a
//! time; so is the beginning of a log that is kept by size.
//!
//! The directory's revision is held while something is deleted: a hold is set either before, and seen, or
//! after.

use async_trait::async_trait;
use sotto_model::{Offset, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::DirectoryError;
use sotto_storage::retention::{
    Allowance, Measured, Retention, RetentionLimits, RetentionPolicy, Stretch, TenantRetention, Trimmed,
};
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::audit::insert_change;
use crate::column::{self, bigint};
use crate::directory::{Change, begin_change};
use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;
use crate::weeks::{self, Week};

#[async_trait]
impl Retention for PostgresStore {
    async fn retention(&self) -> Result<Vec<TenantRetention>, StoreError> {
        let mut held = self.control.hold("read retention").await?;
        let result = within(tenants(held.connection())).await;
        held.settle(result)
    }

    async fn set_retention(
        &self,
        tenant: TenantId,
        limits: RetentionLimits,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("set retention").await?;
        let result = within(set_retention(held.connection(), tenant, limits, now)).await;
        held.settle(result)?
    }

    async fn set_legal_hold(
        &self,
        tenant: TenantId,
        legal_hold: bool,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut held = self.control.hold("set legal hold").await?;
        let result = within(set_legal_hold(held.connection(), tenant, legal_hold, now)).await;
        held.settle(result)?
    }

    async fn trim(
        &self,
        policy: &RetentionPolicy,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Trimmed, StoreError> {
        let mut held = self.maintenance.hold("trim log").await?;
        let result = within(trim(held.connection(), policy, now, limit)).await;
        held.settle(result)
    }
}

async fn set_retention(
    connection: &mut PgConnection,
    tenant: TenantId,
    limits: RetentionLimits,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let updated =
        sqlx::query("UPDATE tenants SET retention_days = $2, retention_bytes = $3 WHERE tenant_id = $1")
            .bind(tenant.0)
            .bind(limits.days.map(|days| i32::try_from(days).unwrap_or(i32::MAX)))
            .bind(limits.bytes.map(bigint))
            .execute(&mut *change)
            .await?;
    if updated.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("tenant")));
    }
    insert_change(&mut change, tenant, AuditAction::RetentionChanged, tenant.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

async fn set_legal_hold(
    connection: &mut PgConnection,
    tenant: TenantId,
    legal_hold: bool,
    now: UnixMillis,
) -> Change<()> {
    let mut change = begin_change(connection).await?;
    let updated = sqlx::query("UPDATE tenants SET legal_hold = $2 WHERE tenant_id = $1")
        .bind(tenant.0)
        .bind(legal_hold)
        .execute(&mut *change)
        .await?;
    if updated.rows_affected() == 0 {
        return Ok(Err(DirectoryError::Missing("tenant")));
    }
    let action = if legal_hold { AuditAction::LegalHoldSet } else { AuditAction::LegalHoldLifted };
    insert_change(&mut change, tenant, action, tenant.0, now).await?;
    change.commit().await?;
    Ok(Ok(()))
}

type TenantRow = (Uuid, Option<i32>, Option<i64>, bool, i64);

async fn tenants(connection: &mut PgConnection) -> Result<Vec<TenantRetention>, Fault> {
    let rows: Vec<TenantRow> = sqlx::query_as(
        "SELECT t.tenant_id, t.retention_days, t.retention_bytes, t.legal_hold, c.start \
         FROM tenants t JOIN counters c USING (tenant_id)",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(tenant, days, bytes, legal_hold, start)| {
            let days = days.map(|days| {
                u32::try_from(days).map_err(|_| Fault::Inconsistent("a number of days is negative"))
            });
            let limits =
                RetentionLimits { days: days.transpose()?, bytes: bytes.map(column::unsigned).transpose()? };
            Ok(TenantRetention {
                tenant: TenantId(tenant),
                limits,
                legal_hold,
                start: column::offset(start)?,
            })
        })
        .collect()
}

async fn trim(
    connection: &mut PgConnection,
    policy: &RetentionPolicy,
    now: UnixMillis,
    limit: usize,
) -> Result<Trimmed, Fault> {
    let weeks = weeks::drop_going(connection).await?;
    if weeks > 0 {
        return Ok(Trimmed { weeks, goes_on: true, ..Trimmed::default() });
    }
    weeks::ensure_ahead(connection, now).await?;
    let revision = revision(connection).await?;
    let logs: Vec<Log> = tenants(connection)
        .await?
        .into_iter()
        .filter_map(|retention| {
            let allowance = retention.allowance(policy, now)?;
            Some(Log { tenant: retention.tenant.0, start: retention.start, allowance })
        })
        .collect();
    if logs.is_empty() {
        return Ok(Trimmed::default());
    }
    let round = Round { revision, logs, limit };
    for week in weeks::ended_before(connection, policy.young_from(now)).await? {
        if let Some(trimmed) = trim_week(connection, &round, &week).await? {
            return Ok(trimmed);
        }
    }
    for log in &round.logs {
        if let Some(bytes_max) = log.allowance.bytes_max
            && let Some(trimmed) = trim_by_size(connection, &round, log, bytes_max).await?
        {
            return Ok(trimmed);
        }
    }
    Ok(Trimmed::default())
}

/// What a step goes by.
struct Round {
    /// The directory's, as of which it is so.
    revision: i64,
    /// Of which something may go.
    logs: Vec<Log>,
    limit: usize,
}

struct Log {
    tenant: Uuid,
    start: Offset,
    allowance: Allowance,
}

const AGAIN: Trimmed = Trimmed { messages: 0, weeks: 0, goes_on: true };

async fn revision(connection: &mut PgConnection) -> Result<i64, Fault> {
    Ok(sqlx::query_scalar("SELECT revision FROM directory_revision").fetch_one(connection).await?)
}

/// A transaction in which nobody changes the directory. `None`: somebody has, since the round began.
async fn begin<'c>(
    connection: &'c mut PgConnection,
    round: &Round,
) -> Result<Option<Transaction<'c, Postgres>>, Fault> {
    let mut transaction = connection.begin().await?;
    let revision: i64 = sqlx::query_scalar("SELECT revision FROM directory_revision FOR SHARE")
        .fetch_one(&mut *transaction)
        .await?;
    Ok((revision == round.revision).then_some(transaction))
}

/// `None`: nothing of it may go.
async fn trim_week(
    connection: &mut PgConnection,
    round: &Round,
    week: &Week,
) -> Result<Option<Trimmed>, Fault> {
    let may_go =
        |log: &&Log| log.allowance.too_old_before.is_some_and(|before| bigint(before.0) >= week.until_ms);
    let others: Vec<Uuid> = round.logs.iter().filter(may_go).map(|log| log.tenant).collect();
    if !week.is_kept(connection, &others).await? {
        let Some(mut transaction) = begin(connection, round).await? else { return Ok(Some(AGAIN)) };
        if !week.close(&mut transaction).await? {
            // A reader is in it: there are other rounds.
            return Ok(Some(Trimmed::default()));
        }
        if !week.is_kept(&mut transaction, &others).await? {
            raise_starts(&mut transaction, week).await?;
            transaction.commit().await?;
            let weeks = weeks::drop_going(connection).await?;
            return Ok(Some(Trimmed { weeks, goes_on: true, ..Trimmed::default() }));
        }
        // Whoever keeps it has written to it just now. Rolled back, it is open again.
    }
    let Some(tenant) = week.first_of(connection, &others).await? else { return Ok(None) };
    let Some(mut transaction) = begin(connection, round).await? else { return Ok(Some(AGAIN)) };
    let messages = week.delete(&mut transaction, tenant, round.limit).await?;
    raise_start(&mut transaction, tenant).await?;
    transaction.commit().await?;
    Ok(Some(Trimmed { messages, weeks: 0, goes_on: true }))
}

/// `None`: nothing of it may go, and all of it is measured.
async fn trim_by_size(
    connection: &mut PgConnection,
    round: &Round,
    log: &Log,
    bytes_max: u64,
) -> Result<Option<Trimmed>, Fault> {
    let mut stretches = stretches(connection, log).await?;
    let last = stretches.last().copied();
    let after = last.map_or(log.start, |last| last.up_to);
    let messages = unmeasured(connection, log.tenant, after, round.limit).await?;
    let mut is_measured = true;
    if !messages.is_empty() {
        if last.is_some_and(|last| !last.is_full(bytes_max)) {
            stretches.pop();
        }
        let kept_to = stretches.last().map_or(Offset(0), |kept| kept.up_to);
        let measured = Stretch::measure(last, &messages, bytes_max);
        replace_stretches(connection, log.tenant, kept_to, &measured).await?;
        stretches.extend(measured);
        is_measured = messages.len() < round.limit;
    }
    let surplus = Stretch::surplus(&stretches, bytes_max, log.allowance.young_from);
    let Some(end) = surplus.filter(|end| *end > log.start) else {
        return Ok((!is_measured).then_some(AGAIN));
    };
    let Some(mut transaction) = begin(connection, round).await? else { return Ok(Some(AGAIN)) };
    let deleted = sqlx::query(
        "DELETE FROM messages WHERE tenant_id = $1 AND log_offset > $2 AND log_offset <= ( \
             SELECT max(log_offset) FROM ( \
                 SELECT log_offset FROM messages \
                 WHERE tenant_id = $1 AND log_offset > $2 AND log_offset <= $3 ORDER BY log_offset LIMIT $4 \
             ) first)",
    )
    .bind(log.tenant)
    .bind(bigint(log.start.0))
    .bind(bigint(end.0))
    .bind(column::limit(round.limit))
    .execute(&mut *transaction)
    .await?;
    raise_start(&mut transaction, log.tenant).await?;
    transaction.commit().await?;
    Ok(Some(Trimmed { messages: deleted.rows_affected(), weeks: 0, goes_on: true }))
}

/// The log begins before the first message that is left. It is looked for before the counter is locked, and
/// with the head of the same moment: what is committed meanwhile comes after both.
async fn raise_start(transaction: &mut PgConnection, tenant: Uuid) -> Result<(), Fault> {
    let start: i64 = sqlx::query_scalar(
        "SELECT COALESCE(( \
             SELECT m.log_offset - 1 FROM messages m WHERE m.tenant_id = c.tenant_id AND m.log_offset > c.start \
             ORDER BY m.log_offset LIMIT 1), c.head) \
         FROM counters c WHERE c.tenant_id = $1",
    )
    .bind(tenant)
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query("DELETE FROM log_volumes WHERE tenant_id = $1 AND up_to <= $2")
        .bind(tenant)
        .bind(start)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("UPDATE counters SET start = GREATEST(start, $2) WHERE tenant_id = $1")
        .bind(tenant)
        .bind(start)
        .execute(transaction)
        .await?;
    Ok(())
}

/// The same for everybody who has messages in a week that is closed.
async fn raise_starts(transaction: &mut PgConnection, week: &Week) -> Result<(), Fault> {
    let (name, from_ms, until_ms) = (week.quoted(), week.from_ms, week.until_ms);
    let found: Vec<(Uuid, i64)> = sqlx::query_as(&format!(
        "SELECT c.tenant_id, COALESCE(( \
             SELECT m.log_offset - 1 FROM messages m \
             WHERE m.tenant_id = c.tenant_id AND m.log_offset > c.start \
                 AND (m.committed_at_ms < {from_ms} OR m.committed_at_ms >= {until_ms}) \
             ORDER BY m.log_offset LIMIT 1), c.head) \
         FROM counters c WHERE EXISTS (SELECT FROM {name} w WHERE w.tenant_id = c.tenant_id)"
    ))
    .fetch_all(&mut *transaction)
    .await?;
    let (tenants, starts): (Vec<Uuid>, Vec<i64>) = found.into_iter().unzip();
    sqlx::query(
        "DELETE FROM log_volumes v USING UNNEST($1::uuid[], $2::bigint[]) AS s (tenant_id, start) \
         WHERE v.tenant_id = s.tenant_id AND v.up_to <= s.start",
    )
    .bind(&tenants)
    .bind(&starts)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "UPDATE counters c SET start = GREATEST(c.start, s.start) \
         FROM UNNEST($1::uuid[], $2::bigint[]) AS s (tenant_id, start) WHERE c.tenant_id = s.tenant_id",
    )
    .bind(&tenants)
    .bind(&starts)
    .execute(transaction)
    .await?;
    Ok(())
}

async fn stretches(connection: &mut PgConnection, log: &Log) -> Result<Vec<Stretch>, Fault> {
    let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT up_to, messages, bytes, last_at_ms FROM log_volumes \
         WHERE tenant_id = $1 AND up_to > $2 ORDER BY up_to",
    )
    .bind(log.tenant)
    .bind(bigint(log.start.0))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(up_to, messages, bytes, last_at)| {
            Ok(Stretch {
                up_to: column::offset(up_to)?,
                messages: column::unsigned(messages)?,
                bytes: column::unsigned(bytes)?,
                last_at: column::time(last_at)?,
            })
        })
        .collect()
}

async fn unmeasured(
    connection: &mut PgConnection,
    tenant: Uuid,
    after: Offset,
    limit: usize,
) -> Result<Vec<Measured>, Fault> {
    let rows: Vec<(i64, i32, i64)> = sqlx::query_as(
        "SELECT log_offset, octet_length(sealed), committed_at_ms FROM messages \
         WHERE tenant_id = $1 AND log_offset > $2 ORDER BY log_offset LIMIT $3",
    )
    .bind(tenant)
    .bind(bigint(after.0))
    .bind(column::limit(limit))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(offset, bytes, at)| {
            let bytes = column::unsigned(bytes.into())?;
            Ok(Measured { offset: column::offset(offset)?, bytes, at: column::time(at)? })
        })
        .collect()
}

/// What was measured after `kept_to` is measured anew.
async fn replace_stretches(
    connection: &mut PgConnection,
    tenant: Uuid,
    kept_to: Offset,
    measured: &[Stretch],
) -> Result<(), Fault> {
    let mut transaction = connection.begin().await?;
    sqlx::query("DELETE FROM log_volumes WHERE tenant_id = $1 AND up_to > $2")
        .bind(tenant)
        .bind(bigint(kept_to.0))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO log_volumes (tenant_id, up_to, messages, bytes, last_at_ms) \
         SELECT $1, * FROM UNNEST($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])",
    )
    .bind(tenant)
    .bind(measured.iter().map(|stretch| bigint(stretch.up_to.0)).collect::<Vec<_>>())
    .bind(measured.iter().map(|stretch| bigint(stretch.messages)).collect::<Vec<_>>())
    .bind(measured.iter().map(|stretch| bigint(stretch.bytes)).collect::<Vec<_>>())
    .bind(measured.iter().map(|stretch| bigint(stretch.last_at.0)).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
