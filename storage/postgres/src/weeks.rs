//! The weeks that the log consists of: each a partition of `messages`, made before it is needed.

use sotto_model::UnixMillis;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::limits::{WEEK_LOCK_TIMEOUT_MS, WEEKS_AHEAD};

const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// The expression for when the oldest week began in which a tenant's log may hold anything after an offset, by
/// `log_weeks`: reads bounded by it look into no week before.
macro_rules! week_since {
    ($tenant:literal, $after:literal) => {
        concat!(
            "(SELECT COALESCE(min(w.week_ms), 0) FROM log_weeks w WHERE w.tenant_id = ",
            $tenant,
            " AND w.after_offset >= COALESCE((SELECT max(b.after_offset) FROM log_weeks b WHERE b.tenant_id = ",
            $tenant,
            " AND b.after_offset <= ",
            $after,
            "), 0))"
        )
    };
}
pub(crate) use week_since;

/// A week of the log. Its name and its bounds are the catalog's.
pub(crate) struct Week {
    name: String,
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
}

/// The week that `at` is in. Others read and write the log meanwhile.
pub(crate) async fn ensure(connection: &mut PgConnection, at: UnixMillis) -> Result<(), Fault> {
    sqlx::query("SELECT sotto_ensure_week($1)").bind(bigint(at.0)).execute(connection).await?;
    Ok(())
}

/// This week and the next ones.
pub(crate) async fn ensure_ahead(connection: &mut PgConnection, now: UnixMillis) -> Result<(), Fault> {
    for ahead in 0..=WEEKS_AHEAD {
        ensure(connection, UnixMillis(now.0.saturating_add(ahead * WEEK_MS))).await?;
    }
    Ok(())
}

/// The oldest first.
pub(crate) async fn ended_before(
    connection: &mut PgConnection,
    before: UnixMillis,
) -> Result<Vec<Week>, Fault> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT week_name, from_ms, until_ms FROM message_weeks \
         WHERE until_ms <= $1 AND NOT is_going ORDER BY until_ms",
    )
    .bind(bigint(before.0))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(name, from_ms, until_ms)| Week { name, from_ms, until_ms }).collect())
}

/// Drops the weeks that are closed, and says how many. What was begun is ended here, whoever began it.
pub(crate) async fn drop_going(connection: &mut PgConnection) -> Result<u64, Fault> {
    let going: Vec<(String, Option<bool>)> = sqlx::query_as(
        "SELECT g.week_name, w.is_going FROM weeks_going g LEFT JOIN message_weeks w USING (week_name)",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut dropped = 0;
    for (name, is_detaching) in going {
        let quoted = quoted(&name);
        let detach = match is_detaching {
            // Waits for those who read the week, and holds up nobody who comes after them.
            Some(false) => Some("CONCURRENTLY"),
            // That wait was cut short.
            Some(true) => Some("FINALIZE"),
            None => None,
        };
        if let Some(how) = detach {
            once(connection, &format!("ALTER TABLE messages DETACH PARTITION {quoted} {how}")).await?;
        }
        once(connection, &format!("DROP TABLE IF EXISTS {quoted}")).await?;
        sqlx::query("DELETE FROM weeks_going WHERE week_name = $1")
            .bind(&name)
            .execute(&mut *connection)
            .await?;
        dropped += 1;
    }
    Ok(dropped)
}

impl Week {
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// Whether anybody but `others` has messages in it.
    pub(crate) async fn is_kept(
        &self,
        connection: &mut PgConnection,
        others: &[Uuid],
    ) -> Result<bool, Fault> {
        let kept = sqlx::query_scalar(&format!(
            "SELECT EXISTS (SELECT FROM tenants t WHERE t.tenant_id <> ALL($1) \
                 AND EXISTS (SELECT FROM {} w WHERE w.tenant_id = t.tenant_id))",
            self.quoted()
        ))
        .bind(others)
        .fetch_one(connection)
        .await?;
        Ok(kept)
    }

    /// One of `tenants` that has messages in it.
    pub(crate) async fn first_of(
        &self,
        connection: &mut PgConnection,
        tenants: &[Uuid],
    ) -> Result<Option<Uuid>, Fault> {
        let tenant = sqlx::query_scalar(&format!(
            "SELECT t.tenant_id FROM UNNEST($1::uuid[]) AS t (tenant_id) \
             WHERE EXISTS (SELECT FROM {} w WHERE w.tenant_id = t.tenant_id) LIMIT 1",
            self.quoted()
        ))
        .bind(tenants)
        .fetch_optional(connection)
        .await?;
        Ok(tenant)
    }

    /// The first of a tenant's messages in it.
    pub(crate) async fn delete(
        &self,
        connection: &mut PgConnection,
        tenant: Uuid,
        limit: usize,
    ) -> Result<u64, Fault> {
        let name = self.quoted();
        let deleted = sqlx::query(&format!(
            "DELETE FROM {name} WHERE tenant_id = $1 AND log_offset <= ( \
                 SELECT max(log_offset) FROM ( \
                     SELECT log_offset FROM {name} WHERE tenant_id = $1 ORDER BY log_offset LIMIT $2 \
                 ) first)"
        ))
        .bind(tenant)
        .bind(column::limit(limit))
        .execute(connection)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// No row is added to it from here on, and it is to be dropped, if the transaction commits. False where it
    /// is in use: whoever came after us would have to wait with us.
    pub(crate) async fn close(&self, transaction: &mut PgConnection) -> Result<bool, Fault> {
        let lock_timeout: String =
            sqlx::query_scalar("SELECT current_setting('lock_timeout')").fetch_one(&mut *transaction).await?;
        once(transaction, &format!("SET LOCAL lock_timeout = {WEEK_LOCK_TIMEOUT_MS}")).await?;
        let close =
            format!("ALTER TABLE {} ADD CONSTRAINT week_is_going CHECK (false) NOT VALID", self.quoted());
        match once(transaction, &close).await {
            Ok(()) => {}
            Err(fault) if fault.is_lock_timeout() => return Ok(false),
            Err(fault) => return Err(fault),
        }
        once(transaction, &format!("SET LOCAL lock_timeout = '{lock_timeout}'")).await?;
        sqlx::query("INSERT INTO weeks_going (week_name) VALUES ($1)")
            .bind(&self.name)
            .execute(transaction)
            .await?;
        Ok(true)
    }
}

/// A statement that holds a name, and is not worth keeping prepared.
async fn once(connection: &mut PgConnection, sql: &str) -> Result<(), Fault> {
    sqlx::query(sql).persistent(false).execute(connection).await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
