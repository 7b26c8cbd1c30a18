//! Stored sessions: what a sequence of changes needs is loaded and locked, folded, and written.

use std::collections::HashMap;

use async_trait::async_trait;
use sotto_model::{
    ClientId, Cursor, DeviceId, Generation, PacketId, QoS, SessionId, Subscription, SubscriptionOptions,
    TenantId, TopicFilter, UnixMillis, UserId,
};
use sotto_storage::StoreError;
use sotto_storage::session_store::{
    Inflight, ListedSession, SessionOp, SessionRef, SessionReply, SessionStore,
};
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::column::{self, bigint};
use crate::fault::Fault;
use crate::lane::within;
use crate::limits::{RECOVER_SESSIONS_PER_TURN, SESSION_RACES_MAX};
use crate::session_fold::{Belongings, Fold, SessionRow, Writes};
use crate::store::PostgresStore;
use crate::wake_check;
use crate::wills;

#[async_trait]
impl SessionStore for PostgresStore {
    async fn apply(&self, ops: &[SessionOp]) -> Result<Vec<SessionReply>, StoreError> {
        let mut races = 0;
        loop {
            let mut held = self.sessions.hold("apply session changes").await?;
            let result = within(apply(held.connection(), ops)).await;
            // Another process made the same client's session between our look and our insert: look again.
            if matches!(&result, Err(fault) if fault.is_unique_violation()) && races < SESSION_RACES_MAX {
                races += 1;
                held.settle(Ok(()))?;
                continue;
            }
            let (replies, check) = held.settle(result)?;
            if check {
                self.check_closed(last_time(ops)).await;
            }
            return Ok(replies);
        }
    }

    async fn recover(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let (mut recovered, mut after) = (0, 0);
        loop {
            let mut held = self.sessions.hold("recover sessions").await?;
            let result = within(disconnect_orphans(held.connection(), after, now)).await;
            let (disconnected, last) = held.settle(result)?;
            recovered += disconnected;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        loop {
            let mut held = self.sessions.hold("check recovered sessions").await?;
            let result = within(wake_check::finish(held.connection(), &self.terms(now))).await;
            if held.settle(result)? == 0 {
                return Ok(recovered);
            }
        }
    }

    async fn list(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<ListedSession>, StoreError> {
        let mut held = self.readers.hold("list sessions").await?;
        let result = within(list(held.connection(), after, limit)).await;
        held.settle(result)
    }

    async fn expire(&self, now: UnixMillis, limit: usize) -> Result<Vec<(TenantId, ClientId)>, StoreError> {
        let mut held = self.sessions.hold("expire sessions").await?;
        let result = within(expire(held.connection(), now, limit)).await;
        held.settle(result)
    }
}

impl PostgresStore {
    /// The second step of a close. The changes are committed: a failure here is no failure of theirs, and
    /// what is left undecided stays marked until the relay's next turn.
    async fn check_closed(&self, now: UnixMillis) {
        let Ok(mut held) = self.sessions.hold("check closed sessions").await else { return };
        let result = within(wake_check::finish(held.connection(), &self.terms(now))).await;
        if let Err(error) = held.settle(result) {
            tracing::warn!(error = %error, "closed sessions are left to the relay");
        }
    }
}

fn last_time(ops: &[SessionOp]) -> UnixMillis {
    ops.iter()
        .filter_map(|op| match op {
            SessionOp::Close { now, .. } => Some(*now),
            _ => None,
        })
        .max()
        .unwrap_or_default()
}

/// The replies, and whether a session is to be checked for a wakeup.
async fn apply(connection: &mut PgConnection, ops: &[SessionOp]) -> Result<(Vec<SessionReply>, bool), Fault> {
    let mut change = connection.begin().await?;
    let rows = load(&mut change, ops).await?;
    let opened = rows_to_open(&rows, ops);
    let belongings =
        if opened.is_empty() { HashMap::new() } else { load_belongings(&mut change, &opened).await? };
    let fresh_ids = draw_ids(&mut change, ids_needed(ops, opened.len())).await?;

    let mut fold = Fold::new(rows, belongings, fresh_ids);
    let mut replies = Vec::with_capacity(ops.len());
    for op in ops {
        replies.push(fold.apply(op).ok_or(Fault::Inconsistent("session ids ran out"))?);
    }
    let writes = fold.into_writes();
    write(&mut change, &writes).await?;
    change.commit().await?;
    Ok((replies, writes.wake_check))
}

const SESSION_COLUMNS: &str = "session_id, tenant_id, client_id, user_id, device_id, generation, connected, \
     cursor_offset, inflight, expiry_seconds, expires_at_ms, wake_check, \
     EXISTS (SELECT FROM wills WHERE wills.session_id = sessions.session_id)";

/// Every stored session that the changes name, locked in the order of their ids.
async fn load(connection: &mut PgConnection, ops: &[SessionOp]) -> Result<Vec<SessionRow>, Fault> {
    let (mut ids, mut tenants, mut clients) = (Vec::new(), Vec::new(), Vec::new());
    for op in ops {
        match op {
            SessionOp::Open(open) => {
                tenants.push(open.tenant.0);
                clients.push(open.client_id.as_str());
            }
            SessionOp::Subscribe(session, _)
            | SessionOp::Unsubscribe(session, _)
            | SessionOp::Save(session, _)
            | SessionOp::Release(session, _)
            | SessionOp::Close { session, .. }
            | SessionOp::Delete(session) => ids.push(bigint(session.id.0)),
        }
    }
    // A lock that lets the writer's foreign keys pass: it commits QoS 2 packet ids of these sessions.
    let rows = sqlx::query_as(&format!(
        "SELECT {SESSION_COLUMNS} FROM sessions WHERE session_id IN ( \
             SELECT unnest($1::bigint[]) \
             UNION \
             SELECT s.session_id FROM UNNEST($2::uuid[], $3::text[]) AS k (tenant_id, client_id) \
             JOIN sessions s USING (tenant_id, client_id) \
         ) ORDER BY session_id FOR NO KEY UPDATE"
    ))
    .bind(ids)
    .bind(tenants)
    .bind(clients)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|SessionColumns(row)| row.ok_or(Fault::Inconsistent("a session cannot be read")))
        .collect()
}

fn rows_to_open(rows: &[SessionRow], ops: &[SessionOp]) -> Vec<i64> {
    let by_client: HashMap<(TenantId, &str), SessionId> =
        rows.iter().map(|row| ((row.tenant, row.client_id.as_str()), row.id)).collect();
    ops.iter()
        .filter_map(|op| match op {
            SessionOp::Open(open) => by_client.get(&(open.tenant, open.client_id.as_str())),
            _ => None,
        })
        .map(|id| bigint(id.0))
        .collect()
}

/// One for every `Open`, unless each takes up a session that nothing here can end.
fn ids_needed(ops: &[SessionOp], opens_of_stored: usize) -> usize {
    let opens = ops.iter().filter(|op| matches!(op, SessionOp::Open(_))).count();
    let any_ends =
        ops.iter().any(|op| matches!(op, SessionOp::Delete(_) | SessionOp::Close { expiry_seconds: 0, .. }));
    if any_ends { opens } else { opens - opens_of_stored }
}

async fn draw_ids(connection: &mut PgConnection, count: usize) -> Result<Vec<SessionId>, Fault> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT nextval(pg_get_serial_sequence('sessions', 'session_id')) FROM generate_series(1, $1)",
    )
    .bind(column::limit(count))
    .fetch_all(connection)
    .await?;
    ids.into_iter().map(|id| column::unsigned(id).map(SessionId)).collect()
}

async fn load_belongings(
    connection: &mut PgConnection,
    sessions: &[i64],
) -> Result<HashMap<SessionId, Belongings>, Fault> {
    let mut belongings: HashMap<SessionId, Belongings> = HashMap::new();
    for (session, subscription) in load_subscriptions(connection, sessions).await? {
        belongings.entry(session).or_default().subscriptions.push(subscription);
    }
    let received: Vec<(i64, i32)> = sqlx::query_as(
        "SELECT session_id, packet_id FROM exactly_once_received WHERE session_id = ANY($1) ORDER BY 1, 2",
    )
    .bind(sessions)
    .fetch_all(connection)
    .await?;
    for (session, packet_id) in received {
        let packet_id = u16::try_from(packet_id).ok().and_then(PacketId::new);
        let session = SessionId(column::unsigned(session)?);
        let packet_id = packet_id.ok_or(Fault::Inconsistent("packet_id"))?;
        belongings.entry(session).or_default().exactly_once_received.push(packet_id);
    }
    Ok(belongings)
}

async fn load_subscriptions(
    connection: &mut PgConnection,
    sessions: &[i64],
) -> Result<Vec<(SessionId, Subscription)>, Fault> {
    let rows: Vec<(i64, String, i16, Option<i32>, i64)> = sqlx::query_as(
        "SELECT session_id, filter, options, identifier, since_offset FROM subscriptions \
         WHERE session_id = ANY($1) ORDER BY session_id, filter",
    )
    .bind(sessions)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(session, filter, options, identifier, since)| {
            let options = u8::try_from(options).ok().and_then(SubscriptionOptions::from_bits);
            let subscription = Subscription {
                filter: TopicFilter::parse(&filter).map_err(|_| Fault::Inconsistent("filter"))?,
                options: options.ok_or(Fault::Inconsistent("options"))?,
                identifier: identifier
                    .map(|number| u32::try_from(number).map_err(|_| Fault::Inconsistent("identifier")))
                    .transpose()?,
                since: column::offset(since)?,
            };
            Ok((SessionId(column::unsigned(session)?), subscription))
        })
        .collect()
}

async fn write(connection: &mut PgConnection, writes: &Writes) -> Result<(), Fault> {
    if !writes.deleted.is_empty() {
        sqlx::query("DELETE FROM sessions WHERE session_id = ANY($1)")
            .bind(ids_of(writes.deleted.iter()))
            .execute(&mut *connection)
            .await?;
    }
    if !writes.created.is_empty() {
        write_rows(connection, INSERT_SESSIONS, &writes.created).await?;
    }
    if !writes.updated.is_empty() {
        write_rows(connection, UPDATE_SESSIONS, &writes.updated).await?;
    }
    write_subscriptions(connection, writes).await?;
    write_received(connection, writes).await?;
    wills::write(connection, &writes.wills).await?;
    if !writes.returned_devices.is_empty() {
        let devices: Vec<Uuid> = writes.returned_devices.iter().map(|device| device.0).collect();
        sqlx::query("DELETE FROM wakes WHERE device_id = ANY($1)").bind(devices).execute(connection).await?;
    }
    Ok(())
}

const INSERT_SESSIONS: &str = "
INSERT INTO sessions (session_id, tenant_id, client_id, user_id, device_id, generation, connected, cursor_offset,
    inflight, expiry_seconds, expires_at_ms, wake_check)
SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::bigint[], $7::boolean[],
    $8::bigint[], $9::bytea[], $10::bigint[], $11::bigint[], $12::boolean[])
";

/// Client id and tenant do not change; they are bound all the same, so that both statements take the same.
const UPDATE_SESSIONS: &str = "
UPDATE sessions s SET user_id = n.user_id, device_id = n.device_id, generation = n.generation,
    connected = n.connected, cursor_offset = n.cursor_offset, inflight = n.inflight,
    expiry_seconds = n.expiry_seconds, expires_at_ms = n.expires_at_ms, wake_check = n.wake_check
FROM UNNEST($1::bigint[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::bigint[], $7::boolean[],
    $8::bigint[], $9::bytea[], $10::bigint[], $11::bigint[], $12::boolean[])
    AS n (session_id, tenant_id, client_id, user_id, device_id, generation, connected, cursor_offset, inflight,
        expiry_seconds, expires_at_ms, wake_check)
WHERE s.session_id = n.session_id
";

async fn write_rows(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: &[SessionRow],
) -> Result<(), Fault> {
    let written = sqlx::query(statement)
        .bind(ids_of(rows.iter().map(|row| &row.id)))
        .bind(rows.iter().map(|row| row.tenant.0).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|row| row.client_id.as_str()).collect::<Vec<&str>>())
        .bind(rows.iter().map(|row| row.user.0).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|row| row.device.map(|device| device.0)).collect::<Vec<Option<Uuid>>>())
        .bind(rows.iter().map(|row| bigint(row.generation.0)).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.connected).collect::<Vec<bool>>())
        .bind(rows.iter().map(|row| bigint(row.cursor.0.0)).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| inflight_bytes(&row.inflight)).collect::<Vec<Vec<u8>>>())
        .bind(rows.iter().map(|row| i64::from(row.expiry_seconds)).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.expires_at.map(|at| bigint(at.0))).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.wake_check).collect::<Vec<bool>>())
        .execute(connection)
        .await?;
    if written.rows_affected() != rows.len() as u64 {
        return Err(Fault::Inconsistent("a locked session was not written"));
    }
    Ok(())
}

async fn write_subscriptions(connection: &mut PgConnection, writes: &Writes) -> Result<(), Fault> {
    if !writes.subscriptions_cleared.is_empty() {
        sqlx::query("DELETE FROM subscriptions WHERE session_id = ANY($1)")
            .bind(ids_of(writes.subscriptions_cleared.iter()))
            .execute(&mut *connection)
            .await?;
    }
    if !writes.unsubscribed.is_empty() {
        sqlx::query(
            "DELETE FROM subscriptions s USING UNNEST($1::bigint[], $2::text[]) AS u (session_id, filter) \
             WHERE s.session_id = u.session_id AND s.filter = u.filter",
        )
        .bind(ids_of(writes.unsubscribed.iter().map(|(session, _)| session)))
        .bind(writes.unsubscribed.iter().map(|(_, filter)| filter.as_str()).collect::<Vec<&str>>())
        .execute(&mut *connection)
        .await?;
    }
    if !writes.subscribed.is_empty() {
        let subscribed = &writes.subscribed;
        sqlx::query(
            "INSERT INTO subscriptions (session_id, filter, options, identifier, since_offset) \
             SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::smallint[], $4::integer[], $5::bigint[]) \
             ON CONFLICT (session_id, filter) DO UPDATE SET options = excluded.options, \
                 identifier = excluded.identifier, since_offset = excluded.since_offset",
        )
        .bind(ids_of(subscribed.iter().map(|(session, _)| session)))
        .bind(subscribed.iter().map(|(_, new)| new.filter.as_subscribed()).collect::<Vec<&str>>())
        .bind(subscribed.iter().map(|(_, new)| i16::from(new.options.to_bits())).collect::<Vec<i16>>())
        .bind(
            subscribed
                .iter()
                .map(|(_, new)| new.identifier.map(|number| i32::try_from(number).unwrap_or(i32::MAX)))
                .collect::<Vec<Option<i32>>>(),
        )
        .bind(subscribed.iter().map(|(_, new)| bigint(new.since.0)).collect::<Vec<i64>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn write_received(connection: &mut PgConnection, writes: &Writes) -> Result<(), Fault> {
    if !writes.received_cleared.is_empty() {
        sqlx::query("DELETE FROM exactly_once_received WHERE session_id = ANY($1)")
            .bind(ids_of(writes.received_cleared.iter()))
            .execute(&mut *connection)
            .await?;
    }
    if !writes.released.is_empty() {
        sqlx::query(
            "DELETE FROM exactly_once_received r USING UNNEST($1::bigint[], $2::integer[]) AS u (session_id, packet_id) \
             WHERE r.session_id = u.session_id AND r.packet_id = u.packet_id",
        )
        .bind(ids_of(writes.released.iter().map(|(session, _)| session)))
        .bind(packet_ids_of(&writes.released))
        .execute(&mut *connection)
        .await?;
    }
    if !writes.received.is_empty() {
        sqlx::query(
            "INSERT INTO exactly_once_received (session_id, packet_id) \
             SELECT * FROM UNNEST($1::bigint[], $2::integer[]) ON CONFLICT DO NOTHING",
        )
        .bind(ids_of(writes.received.iter().map(|(session, _)| session)))
        .bind(packet_ids_of(&writes.received))
        .execute(connection)
        .await?;
    }
    Ok(())
}

fn ids_of<'a>(ids: impl Iterator<Item = &'a SessionId>) -> Vec<i64> {
    ids.map(|id| bigint(id.0)).collect()
}

fn packet_ids_of(pairs: &[(SessionId, PacketId)]) -> Vec<i32> {
    pairs.iter().map(|(_, packet_id)| i32::from(packet_id.0.get())).collect()
}

/// Marks sessions disconnected whose process died, some at a time, behind the id `after`. Returns how many,
/// and the last one's id.
async fn disconnect_orphans(
    connection: &mut PgConnection,
    after: i64,
    now: UnixMillis,
) -> Result<(u64, Option<i64>), Fault> {
    let (disconnected, last): (i64, Option<i64>) = sqlx::query_as(
        "WITH done AS ( \
             UPDATE sessions SET connected = false, wake_check = device_id IS NOT NULL, \
                 expires_at_ms = CASE WHEN expiry_seconds < 4294967295 THEN $1 + expiry_seconds * 1000 END \
             WHERE session_id IN ( \
                 SELECT session_id FROM sessions WHERE connected AND session_id > $2 \
                 ORDER BY session_id LIMIT $3 \
             ) RETURNING session_id, expiry_seconds \
         ), due AS ( \
             UPDATE wills w SET due_at_ms = $1 + LEAST(w.delay_seconds, done.expiry_seconds) * 1000 \
             FROM done WHERE w.session_id = done.session_id AND w.due_at_ms IS NULL \
         ) SELECT count(*), max(session_id) FROM done",
    )
    .bind(bigint(now.0))
    .bind(after)
    .bind(column::limit(RECOVER_SESSIONS_PER_TURN))
    .fetch_one(connection)
    .await?;
    Ok((column::unsigned(disconnected)?, last))
}

async fn list(
    connection: &mut PgConnection,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<ListedSession>, Fault> {
    let rows: Vec<SessionColumns> = sqlx::query_as(&format!(
        "SELECT {SESSION_COLUMNS} FROM sessions WHERE session_id > $1 ORDER BY session_id LIMIT $2"
    ))
    .bind(after.map_or(0, |id| bigint(id.0)))
    .bind(column::limit(limit))
    .fetch_all(&mut *connection)
    .await?;
    let rows = rows
        .into_iter()
        .map(|SessionColumns(row)| row.ok_or(Fault::Inconsistent("a session cannot be read")))
        .collect::<Result<Vec<SessionRow>, Fault>>()?;
    let ids = ids_of(rows.iter().map(|row| &row.id));
    let mut subscriptions: HashMap<SessionId, Vec<Subscription>> = HashMap::new();
    for (session, subscription) in load_subscriptions(connection, &ids).await? {
        subscriptions.entry(session).or_default().push(subscription);
    }
    Ok(rows
        .into_iter()
        .map(|row| ListedSession {
            session: SessionRef { id: row.id, generation: row.generation },
            tenant: row.tenant,
            client_id: row.client_id,
            user: row.user,
            subscriptions: subscriptions.remove(&row.id).unwrap_or_default(),
        })
        .collect())
}

async fn expire(
    connection: &mut PgConnection,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<(TenantId, ClientId)>, Fault> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "DELETE FROM sessions WHERE session_id IN ( \
             SELECT session_id FROM sessions WHERE expires_at_ms <= $1 \
             ORDER BY expires_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED \
         ) RETURNING tenant_id, client_id",
    )
    .bind(bigint(now.0))
    .bind(column::limit(limit))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(tenant, client_id)| {
            let client_id = ClientId::parse(&client_id).map_err(|_| Fault::Inconsistent("client_id"))?;
            Ok((TenantId(tenant), client_id))
        })
        .collect()
}

/// A row of `sessions`; `None` where a column holds what cannot be.
struct SessionColumns(Option<SessionRow>);

impl FromRow<'_, PgRow> for SessionColumns {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (id, generation, cursor): (i64, i64, i64) = (row.try_get(0)?, row.try_get(5)?, row.try_get(7)?);
        let (client_id, inflight): (&str, &[u8]) = (row.try_get(2)?, row.try_get(8)?);
        let (expiry_seconds, expires_at): (i64, Option<i64>) = (row.try_get(9)?, row.try_get(10)?);
        let (tenant, user, device): (Uuid, Uuid, Option<Uuid>) =
            (row.try_get(1)?, row.try_get(3)?, row.try_get(4)?);
        let (connected, wake_check, has_wills) = (row.try_get(6)?, row.try_get(11)?, row.try_get(12)?);
        let session = || -> Result<SessionRow, Fault> {
            Ok(SessionRow {
                id: SessionId(column::unsigned(id)?),
                tenant: TenantId(tenant),
                client_id: ClientId::parse(client_id).map_err(|_| Fault::Inconsistent("client_id"))?,
                user: UserId(user),
                device: device.map(DeviceId),
                generation: Generation(column::unsigned(generation)?),
                connected,
                cursor: Cursor(column::offset(cursor)?),
                inflight: parse_inflight(inflight).ok_or(Fault::Inconsistent("inflight"))?,
                expiry_seconds: u32::try_from(expiry_seconds)
                    .map_err(|_| Fault::Inconsistent("expiry_seconds"))?,
                expires_at: expires_at.map(column::time).transpose()?,
                wake_check,
                has_wills,
            })
        };
        Ok(Self(session().ok()))
    }
}

/// Bytes of one message in flight: packet id (2), offset (8), flags (1), big endian. Flags: bits 0 and 1
/// hold the QoS, bit 2 says that it is released, bit 3 that it was sent with RETAIN.
const INFLIGHT_BYTES: usize = 11;
const RELEASED: u8 = 4;
const RETAIN: u8 = 8;

fn inflight_bytes(inflight: &[Inflight]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(inflight.len() * INFLIGHT_BYTES);
    for message in inflight {
        bytes.extend(message.packet_id.0.get().to_be_bytes());
        bytes.extend(message.offset.0.to_be_bytes());
        let released = if message.released { RELEASED } else { 0 };
        let retain = if message.retain { RETAIN } else { 0 };
        bytes.push(message.qos as u8 | released | retain);
    }
    bytes
}

pub(crate) fn parse_inflight(bytes: &[u8]) -> Option<Vec<Inflight>> {
    let messages = bytes.chunks_exact(INFLIGHT_BYTES);
    if !messages.remainder().is_empty() {
        return None;
    }
    messages
        .map(|message| {
            let (packet_id, rest) = message.split_first_chunk::<2>()?;
            let (offset, rest) = rest.split_first_chunk::<8>()?;
            let [flags] = rest else { return None };
            Some(Inflight {
                packet_id: PacketId::new(u16::from_be_bytes(*packet_id))?,
                offset: sotto_model::Offset(u64::from_be_bytes(*offset)),
                qos: QoS::from_bits(flags & 3)?,
                retain: flags & RETAIN != 0,
                released: flags & RELEASED != 0,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_model::Offset;

    #[test]
    fn what_is_in_flight_survives_its_column() {
        let message = |id, offset, qos, retain, released| Inflight {
            packet_id: PacketId::new(id).expect("not zero"),
            offset: Offset(offset),
            qos,
            retain,
            released,
        };
        let inflight = [
            message(1, u64::MAX, QoS::AtLeastOnce, true, false),
            message(65_535, 1, QoS::ExactlyOnce, false, true),
            message(7, 0, QoS::ExactlyOnce, false, false),
        ];
        assert_eq!(parse_inflight(&inflight_bytes(&inflight)).as_deref(), Some(&inflight[..]));
        assert_eq!(parse_inflight(&[]), Some(Vec::new()));
        assert_eq!(parse_inflight(&[0; INFLIGHT_BYTES]), None);
        assert_eq!(parse_inflight(&[1; INFLIGHT_BYTES + 1]), None);
    }
}
