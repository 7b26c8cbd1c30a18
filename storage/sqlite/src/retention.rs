//! How long the log keeps what it holds.
//!
//! A tenant's messages lie together in the order of the log, so the first of them are found and deleted as one
//! range. A step is one transaction under the write lock. Whether there is anything to do is asked of a reader
//! first. The pages of what is deleted are used again; the file does not shrink.

use async_trait::async_trait;
use sotto_model::{Offset, TenantId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::audit::AuditAction;
use sotto_storage::directory::DirectoryError;
use sotto_storage::retention::{
    Allowance, Measured, Retention, RetentionLimits, RetentionPolicy, Stretch, TenantRetention, Trimmed,
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::directory::{changed, tenant_number};
use crate::directory_snapshot::revision;
use crate::error::During;
use crate::log_id::{LogId, TenantNo};
use crate::number::{count_to_row, from_row, millis, narrow, offset, to_row};
use crate::store::SqliteStore;

const OPERATION: &str = "trim log";

#[async_trait]
impl Retention for SqliteStore {
    async fn retention(&self) -> Result<Vec<TenantRetention>, StoreError> {
        let mut reader = self.readers.acquire().await.during("read retention")?;
        Ok(logs(&mut reader).await?.into_iter().map(|log| log.retention).collect())
    }

    async fn set_retention(
        &self,
        tenant: TenantId,
        limits: RetentionLimits,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("set retention").await?;
        let connection = transaction.connection();
        let result = async {
            let tenant_no = tenant_number(connection, &self.tenants, tenant).await?;
            sqlx::query("UPDATE tenants SET retention_days = ?, retention_bytes = ? WHERE tenant_no = ?")
                .bind(limits.days)
                .bind(limits.bytes.map(to_row))
                .bind(tenant_no.to_row())
                .execute(&mut *connection)
                .await
                .during("set retention")?;
            changed(connection, tenant, AuditAction::RetentionChanged, Some(tenant.0), now).await
        };
        let result = result.await;
        transaction.finish(result).await
    }

    async fn set_legal_hold(
        &self,
        tenant: TenantId,
        legal_hold: bool,
        now: UnixMillis,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.writer.begin("set legal hold").await?;
        let connection = transaction.connection();
        let action = if legal_hold { AuditAction::LegalHoldSet } else { AuditAction::LegalHoldLifted };
        let result = async {
            let tenant_no = tenant_number(connection, &self.tenants, tenant).await?;
            sqlx::query("UPDATE tenants SET legal_hold = ? WHERE tenant_no = ?")
                .bind(legal_hold)
                .bind(tenant_no.to_row())
                .execute(&mut *connection)
                .await
                .during("set legal hold")?;
            changed(connection, tenant, action, Some(tenant.0), now).await
        };
        let result = result.await;
        transaction.finish(result).await
    }

    async fn trim(
        &self,
        policy: &RetentionPolicy,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Trimmed, StoreError> {
        // All that is looked for is looked for here, so that the write lock is held for the deletion alone.
        let mut reader = self.readers.begin().await.during(OPERATION)?;
        let revision = revision(&mut reader).await?;
        let mut steps = Vec::new();
        for log in logs(&mut reader).await? {
            let Some(allowance) = log.retention.allowance(policy, now) else { continue };
            let step = plan(&mut reader, &log, &allowance, limit).await?;
            let is_last = step.goes_on;
            if step.has_work() {
                steps.push(step);
            }
            if is_last {
                break;
            }
        }
        drop(reader);
        let mut trimmed = Trimmed::default();
        for step in steps {
            let mut transaction = self.writer.begin(OPERATION).await?;
            let result = take(transaction.connection(), &step, revision).await;
            match transaction.finish(result).await? {
                Some(messages) => trimmed.messages += messages,
                // Somebody has changed the directory, and maybe set a hold: it is planned anew.
                None => return Ok(Trimmed { goes_on: true, ..trimmed }),
            }
            trimmed.goes_on |= step.goes_on;
        }
        Ok(trimmed)
    }
}

/// A tenant's log, as far as it matters here.
struct Log {
    tenant: TenantNo,
    retention: TenantRetention,
    head: Offset,
}

/// What is to be done with one log.
struct Step {
    tenant: TenantNo,
    /// What is deleted: after the first, up to the second.
    gone: Option<(Offset, Offset)>,
    /// Stretches measured anew, and the offset after which they take the place of others.
    measured: Option<(Offset, Vec<Stretch>)>,
    goes_on: bool,
}

impl Step {
    fn has_work(&self) -> bool {
        self.gone.is_some() || self.measured.is_some()
    }
}

type LogRow = (i64, Uuid, Option<i64>, Option<i64>, bool, i64, i64);

async fn logs(connection: &mut SqliteConnection) -> Result<Vec<Log>, StoreError> {
    let rows: Vec<LogRow> = sqlx::query_as(
        "SELECT tenant_no, tenant_id, retention_days, retention_bytes, legal_hold, start, head
         FROM tenants JOIN counters USING (tenant_no)",
    )
    .fetch_all(connection)
    .await
    .during("read retention")?;
    let read = |(tenant_no, tenant, days, bytes, legal_hold, start, head): LogRow| {
        let limits = RetentionLimits {
            days: days.map(|days| narrow(days, "retention_days")).transpose()?,
            bytes: bytes.map(|bytes| from_row(bytes, "retention_bytes")).transpose()?,
        };
        Ok(Log {
            tenant: TenantNo::from_row(tenant_no)?,
            retention: TenantRetention {
                tenant: TenantId(tenant),
                limits,
                legal_hold,
                start: offset(start)?,
            },
            head: offset(head)?,
        })
    };
    rows.into_iter().map(read).collect()
}

async fn plan(
    connection: &mut SqliteConnection,
    log: &Log,
    allowance: &Allowance,
    limit: usize,
) -> Result<Step, StoreError> {
    let start = log.retention.start;
    let mut step = Step { tenant: log.tenant, gone: None, measured: None, goes_on: false };
    let mut surplus = None;
    if let Some(bytes_max) = allowance.bytes_max {
        let mut stretches = stretches(connection, log).await?;
        let last = stretches.last().copied();
        let after = last.map_or(start, |last| last.up_to);
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT log_id, length(sealed), committed_at_ms FROM messages
             WHERE log_id > ? AND log_id <= ? ORDER BY log_id LIMIT ?",
        )
        .bind(LogId::clamped(log.tenant, after).to_row())
        .bind(LogId::clamped(log.tenant, log.head).to_row())
        .bind(count_to_row(limit))
        .fetch_all(&mut *connection)
        .await
        .during(OPERATION)?;
        let messages = rows
            .iter()
            .map(|&(log_id, bytes, at)| {
                let offset = LogId::from_row(log_id).offset();
                Ok(Measured { offset, bytes: from_row(bytes, "length")?, at: millis(at)? })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        if !messages.is_empty() {
            let measured = Stretch::measure(last, &messages, bytes_max);
            if last.is_some_and(|last| !last.is_full(bytes_max)) {
                stretches.pop();
            }
            let kept_to = stretches.last().map_or(Offset(0), |kept| kept.up_to);
            stretches.extend(&measured);
            step.measured = Some((kept_to, measured));
            step.goes_on = messages.len() >= limit;
        }
        surplus = Stretch::surplus(&stretches, bytes_max, allowance.young_from);
    }
    let first: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT log_id, committed_at_ms FROM messages WHERE log_id > ? AND log_id <= ? ORDER BY log_id LIMIT ?",
    )
    .bind(LogId::clamped(log.tenant, start).to_row())
    .bind(LogId::clamped(log.tenant, log.head).to_row())
    .bind(count_to_row(limit))
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    let mut gone = 0;
    for (log_id, at) in first {
        let (offset, at) = (LogId::from_row(log_id).offset(), millis(at)?);
        let is_old = allowance.too_old_before.is_some_and(|before| at < before);
        if !is_old && surplus.is_none_or(|end| offset > end) {
            break;
        }
        gone += 1;
        step.gone = Some((start, offset));
    }
    step.goes_on |= gone == limit;
    Ok(step)
}

async fn stretches(connection: &mut SqliteConnection, log: &Log) -> Result<Vec<Stretch>, StoreError> {
    let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT up_to, messages, bytes, last_at_ms FROM log_volumes
         WHERE tenant_no = ? AND up_to > ? ORDER BY up_to",
    )
    .bind(log.tenant.to_row())
    .bind(to_row(log.retention.start.0))
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    rows.into_iter()
        .map(|(up_to, messages, bytes, last_at)| {
            Ok(Stretch {
                up_to: offset(up_to)?,
                messages: from_row(messages, "messages")?,
                bytes: from_row(bytes, "bytes")?,
                last_at: millis(last_at)?,
            })
        })
        .collect()
}

/// How many messages are deleted; `None` where the directory is not the one that was planned by.
async fn take(
    connection: &mut SqliteConnection,
    step: &Step,
    planned_by: u64,
) -> Result<Option<u64>, StoreError> {
    if revision(connection).await? != planned_by {
        return Ok(None);
    }
    if let Some((kept_to, measured)) = &step.measured {
        sqlx::query("DELETE FROM log_volumes WHERE tenant_no = ? AND up_to > ?")
            .bind(step.tenant.to_row())
            .bind(to_row(kept_to.0))
            .execute(&mut *connection)
            .await
            .during(OPERATION)?;
        for stretch in measured {
            sqlx::query("INSERT INTO log_volumes VALUES (?, ?, ?, ?, ?)")
                .bind(step.tenant.to_row())
                .bind(to_row(stretch.up_to.0))
                .bind(to_row(stretch.messages))
                .bind(to_row(stretch.bytes))
                .bind(to_row(stretch.last_at.0))
                .execute(&mut *connection)
                .await
                .during(OPERATION)?;
        }
    }
    let Some((after, up_to)) = step.gone else { return Ok(Some(0)) };
    let deleted = sqlx::query("DELETE FROM messages WHERE log_id > ? AND log_id <= ?")
        .bind(LogId::clamped(step.tenant, after).to_row())
        .bind(LogId::clamped(step.tenant, up_to).to_row())
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    sqlx::query("UPDATE counters SET start = max(start, ?2) WHERE tenant_no = ?1")
        .bind(step.tenant.to_row())
        .bind(to_row(up_to.0))
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
    sqlx::query("DELETE FROM log_volumes WHERE tenant_no = ?1 AND up_to <= ?2")
        .bind(step.tenant.to_row())
        .bind(to_row(up_to.0))
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(Some(deleted.rows_affected()))
}
