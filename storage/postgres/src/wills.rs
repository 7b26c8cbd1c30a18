//! Wills of stored sessions.
//!
//! What a transaction of session changes does to them comes as rounds: of each session's changes the first, then
//! the second, and so on, so that their order is kept and a round costs a statement a kind.

use async_trait::async_trait;
use sotto_model::{ClientId, MessageId, SessionId, TenantId, UnixMillis, UserId};
use sotto_storage::StoreError;
use sotto_storage::wills::{DueWill, KeptWill, Wills};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::store::PostgresStore;

/// One change to the wills of a session.
pub(crate) enum WillChange {
    /// The session is taken up: what is not due goes, but for a will without delay, whose connection has ended.
    TakeUp(UnixMillis),
    /// The session has ended: its will is due.
    End,
    Keep(TenantId, Box<KeptWill>),
    /// The connection has ended: the will is due after its delay, and no later than the session ends.
    MakeDue {
        expiry_seconds: u32,
        now: UnixMillis,
    },
    /// The connection has ended without a will to publish.
    Forget,
}

#[async_trait]
impl Wills for PostgresStore {
    async fn due_wills(&self, now: UnixMillis, limit: usize) -> Result<Vec<DueWill>, StoreError> {
        let mut held = self.readers.hold("read due wills").await?;
        let result = within(due(held.connection(), now, limit)).await;
        held.settle(result)
    }

    async fn forget_wills(&self, wills: &[MessageId]) -> Result<(), StoreError> {
        let mut held = self.sessions.hold("forget wills").await?;
        let result = within(remove(held.connection(), wills)).await;
        held.settle(result)
    }
}

async fn due(connection: &mut PgConnection, now: UnixMillis, limit: usize) -> Result<Vec<DueWill>, Fault> {
    let rows: Vec<WillRow> = sqlx::query_as(
        "SELECT tenant_id, client_id, topic, sender_id, message_id, qos, retain, expiry_seconds, sealed \
         FROM wills WHERE due_at_ms <= $1 ORDER BY due_at_ms LIMIT $2",
    )
    .bind(bigint(now.0))
    .bind(column::limit(limit))
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(WillRow::into_will).collect()
}

async fn remove(connection: &mut PgConnection, wills: &[MessageId]) -> Result<(), Fault> {
    let wills: Vec<Uuid> = wills.iter().map(|will| will.0).collect();
    sqlx::query("DELETE FROM wills WHERE message_id = ANY($1)").bind(wills).execute(connection).await?;
    Ok(())
}

/// A round of a transaction, by kind.
#[derive(Default)]
struct Round<'c> {
    taken_up: Vec<(i64, i64)>,
    ended: Vec<i64>,
    kept: Vec<(i64, TenantId, &'c KeptWill)>,
    due: Vec<(i64, i64, i64)>,
    forgotten: Vec<i64>,
}

pub(crate) async fn write(
    connection: &mut PgConnection,
    rounds: &[Vec<(SessionId, WillChange)>],
) -> Result<(), Fault> {
    for changes in rounds {
        let mut round = Round::default();
        for (session, change) in changes {
            let session = bigint(session.0);
            match change {
                WillChange::TakeUp(now) => round.taken_up.push((session, bigint(now.0))),
                WillChange::End => round.ended.push(session),
                WillChange::Keep(tenant, will) => round.kept.push((session, *tenant, will)),
                WillChange::MakeDue { expiry_seconds, now } => {
                    round.due.push((session, bigint(now.0), (*expiry_seconds).into()));
                }
                WillChange::Forget => round.forgotten.push(session),
            }
        }
        round.write(connection).await?;
    }
    Ok(())
}

impl Round<'_> {
    async fn write(&self, connection: &mut PgConnection) -> Result<(), Fault> {
        if !self.taken_up.is_empty() {
            take_up(connection, &self.taken_up).await?;
        }
        if !self.ended.is_empty() {
            sqlx::query("UPDATE wills SET due_at_ms = 0 WHERE session_id = ANY($1)")
                .bind(&self.ended)
                .execute(&mut *connection)
                .await?;
        }
        if !self.kept.is_empty() {
            keep(connection, &self.kept).await?;
        }
        if !self.due.is_empty() {
            make_due(connection, &self.due).await?;
        }
        if !self.forgotten.is_empty() {
            sqlx::query("DELETE FROM wills WHERE session_id = ANY($1) AND due_at_ms IS NULL")
                .bind(&self.forgotten)
                .execute(connection)
                .await?;
        }
        Ok(())
    }
}

async fn take_up(connection: &mut PgConnection, sessions: &[(i64, i64)]) -> Result<(), Fault> {
    let (ids, nows): (Vec<i64>, Vec<i64>) = sessions.iter().copied().unzip();
    // [MQTT-3.1.3-9]
    sqlx::query(
        "DELETE FROM wills w USING UNNEST($1::bigint[], $2::bigint[]) AS t (session_id, now_ms) \
         WHERE w.session_id = t.session_id \
             AND (w.due_at_ms > t.now_ms OR (w.due_at_ms IS NULL AND w.delay_seconds > 0))",
    )
    .bind(&ids)
    .bind(nows)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE wills SET due_at_ms = 0 WHERE session_id = ANY($1) AND due_at_ms IS NULL")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// A will whose session is opened once more, because nobody heard that it was, is kept anew.
async fn keep(connection: &mut PgConnection, kept: &[(i64, TenantId, &KeptWill)]) -> Result<(), Fault> {
    let wills = || kept.iter().map(|(_, _, will)| will);
    sqlx::query(
        "INSERT INTO wills (message_id, session_id, tenant_id, client_id, sender_id, topic, qos, retain, \
             delay_seconds, expiry_seconds, sealed) \
         SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], \
             $7::smallint[], $8::boolean[], $9::bigint[], $10::bigint[], $11::bytea[]) \
         ON CONFLICT (message_id) DO UPDATE SET session_id = excluded.session_id, due_at_ms = NULL",
    )
    .bind(wills().map(|will| will.sealed.message_id().0).collect::<Vec<Uuid>>())
    .bind(kept.iter().map(|(session, ..)| *session).collect::<Vec<i64>>())
    .bind(kept.iter().map(|(_, tenant, _)| tenant.0).collect::<Vec<Uuid>>())
    .bind(wills().map(|will| will.client_id.as_str()).collect::<Vec<&str>>())
    .bind(wills().map(|will| will.sealed.sender().0).collect::<Vec<Uuid>>())
    .bind(wills().map(|will| will.sealed.topic().as_str()).collect::<Vec<&str>>())
    .bind(wills().map(|will| will.qos as i16).collect::<Vec<i16>>())
    .bind(wills().map(|will| will.retain).collect::<Vec<bool>>())
    .bind(wills().map(|will| will.delay_seconds.into()).collect::<Vec<i64>>())
    .bind(wills().map(|will| will.message_expiry_seconds.map(i64::from)).collect::<Vec<Option<i64>>>())
    .bind(wills().map(|will| will.sealed.bytes().as_ref()).collect::<Vec<&[u8]>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn make_due(connection: &mut PgConnection, due: &[(i64, i64, i64)]) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE wills w SET due_at_ms = t.now_ms + LEAST(w.delay_seconds, t.expiry_seconds) * 1000 \
         FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS t (session_id, now_ms, expiry_seconds) \
         WHERE w.session_id = t.session_id AND w.due_at_ms IS NULL",
    )
    .bind(due.iter().map(|(session, ..)| *session).collect::<Vec<i64>>())
    .bind(due.iter().map(|(_, now, _)| *now).collect::<Vec<i64>>())
    .bind(due.iter().map(|(.., expiry)| *expiry).collect::<Vec<i64>>())
    .execute(connection)
    .await?;
    Ok(())
}

struct WillRow {
    tenant_id: Uuid,
    client_id: String,
    topic: String,
    sender_id: Uuid,
    message_id: Uuid,
    qos: i16,
    retain: bool,
    expiry_seconds: Option<i64>,
    sealed: Vec<u8>,
}

impl FromRow<'_, PgRow> for WillRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant_id: row.try_get(0)?,
            client_id: row.try_get(1)?,
            topic: row.try_get(2)?,
            sender_id: row.try_get(3)?,
            message_id: row.try_get(4)?,
            qos: row.try_get(5)?,
            retain: row.try_get(6)?,
            expiry_seconds: row.try_get(7)?,
            sealed: row.try_get(8)?,
        })
    }
}

impl WillRow {
    fn into_will(self) -> Result<DueWill, Fault> {
        let expiry_seconds = self
            .expiry_seconds
            .map(|seconds| u32::try_from(seconds).map_err(|_| Fault::Inconsistent("expiry_seconds")));
        Ok(DueWill {
            tenant: TenantId(self.tenant_id),
            client_id: ClientId::parse(&self.client_id).map_err(|_| Fault::Inconsistent("client_id"))?,
            topic: column::topic(&self.topic)?,
            sender: UserId(self.sender_id),
            message_id: MessageId(self.message_id),
            qos: column::qos(self.qos)?,
            retain: self.retain,
            message_expiry_seconds: expiry_seconds.transpose()?,
            sealed: self.sealed.into(),
        })
    }
}
