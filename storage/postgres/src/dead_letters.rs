//! Wakeups that were given up.

use sotto_model::{DeviceId, TenantId, UnixMillis};
use sotto_storage::outbox::{DeadLetter, DeadLetterSelector, Replayed};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::wake_due::{MakesDue, Terms, makes_due};

type LetterRow = (Uuid, Uuid, i16, String, i16, i32, String, i64);

pub(crate) async fn latest(connection: &mut PgConnection, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
    let rows: Vec<LetterRow> = sqlx::query_as(
        "SELECT tenant_id, device_id, platform, app, urgency, attempts, outcome, died_at_ms FROM dead_letters \
         ORDER BY dead_letter_id DESC LIMIT $1",
    )
    .bind(column::limit(limit))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(tenant, device, platform, app, urgency, attempts, outcome, died_at)| {
            Ok(DeadLetter {
                tenant: TenantId(tenant),
                device: DeviceId(device),
                platform: column::platform(platform)?,
                app: app.into(),
                urgency: column::urgency(urgency)?,
                attempts: column::attempts(attempts)?,
                outcome,
                died_at: column::time(died_at)?,
            })
        })
        .collect()
}

pub(crate) async fn replay(
    connection: &mut PgConnection,
    selector: DeadLetterSelector,
    limit: usize,
    terms: &Terms,
) -> Result<Replayed, Fault> {
    let (tenant, device) = match selector {
        DeadLetterSelector::All => (None, None),
        DeadLetterSelector::Tenant(tenant) => (Some(tenant.0), None),
        DeadLetterSelector::Device(tenant, device) => (Some(tenant.0), Some(device.0)),
    };
    let (letters, due): (i64, i64) = sqlx::query_as(REPLAY.statement(terms))
        .bind(terms.now_ms)
        .bind(terms.out_of_date_ms)
        .bind(terms.interval_us)
        .bind(terms.tolerance_us)
        .bind(terms.latest_us)
        .bind(tenant)
        .bind(device)
        .bind(column::limit(limit))
        .fetch_one(connection)
        .await?;
    Ok(Replayed { due: column::unsigned(due)?, gone: column::unsigned(letters - due)? })
}

const REPLAY: MakesDue = makes_due!(
    "
WITH taken AS (
    DELETE FROM dead_letters WHERE dead_letter_id IN (
        SELECT dead_letter_id FROM dead_letters
        WHERE ($6::uuid IS NULL OR tenant_id = $6) AND ($7::uuid IS NULL OR device_id = $7)
        ORDER BY dead_letter_id LIMIT $8 FOR UPDATE SKIP LOCKED
    )
    RETURNING device_id, urgency
), wanted AS (
    SELECT device_id, max(urgency) AS urgency, $1::bigint AS due_since_ms
    FROM taken t
    WHERE NOT EXISTS (SELECT FROM wakes w WHERE w.device_id = t.device_id)
        AND EXISTS (
            SELECT FROM sessions s WHERE s.device_id = t.device_id AND NOT s.connected
                AND (s.expires_at_ms IS NULL OR s.expires_at_ms > $1)
        )
    GROUP BY device_id
",
    "SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM due)"
);

pub(crate) async fn purge(
    connection: &mut PgConnection,
    before: UnixMillis,
    limit: usize,
) -> Result<u64, Fault> {
    let purged = sqlx::query(
        "DELETE FROM dead_letters WHERE dead_letter_id IN ( \
             SELECT dead_letter_id FROM dead_letters WHERE died_at_ms < $1 \
             ORDER BY died_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(bigint(before.0))
    .bind(column::limit(limit))
    .execute(connection)
    .await?;
    Ok(purged.rows_affected())
}
