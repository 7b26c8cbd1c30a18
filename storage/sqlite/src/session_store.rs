//! Stored sessions. Every operation of a call goes into one transaction.

use async_trait::async_trait;
use serde_json::json;
use sotto_model::{
    ClientId, Cursor, Generation, PacketId, SessionId, Subscription, SubscriptionOptions, TenantId,
    TopicFilter, UnixMillis, UserId,
};
use sotto_storage::StoreError;
use sotto_storage::session_store::{
    ListedSession, OpenSession, OpenedSession, SessionOp, SessionProgress, SessionRef, SessionReply,
    SessionStore,
};
use sotto_storage::wakeup_quota::WakeupQuota;
use sotto_storage::wills::WillEnd;
use sqlx::SqliteConnection;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

use crate::error::During;
use crate::inflight::{decode_inflight, encode_inflight};
use crate::limits::RECOVER_SESSIONS_MAX;
use crate::log_id::TenantNo;
use crate::number::{count_to_row, from_row, narrow, offset, to_row};
use crate::store::SqliteStore;
use crate::tenants::TenantNumbers;
use crate::wakes::{forget_wake, wake_if_behind};
use crate::wills;

#[async_trait]
impl SessionStore for SqliteStore {
    async fn apply(&self, ops: &[SessionOp]) -> Result<Vec<SessionReply>, StoreError> {
        let mut transaction = self.writer.begin("apply session operations").await?;
        let result = apply_all(transaction.connection(), &self.tenants, self.wakeup_quota.quota(), ops).await;
        transaction.finish(result).await
    }

    async fn recover(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut recovered = 0;
        let mut after = 0;
        // Some sessions a transaction, so that a start with many of them holds no lock for long. A start
        // that is cut short leaves the rest connected, for the next one.
        loop {
            let mut transaction = self.writer.begin("recover sessions").await?;
            let result = recover_some(transaction.connection(), after, self.wakeup_quota.quota(), now).await;
            let Some((count, last)) = transaction.finish(result).await? else { return Ok(recovered) };
            recovered += count;
            after = last;
        }
    }

    async fn list(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<ListedSession>, StoreError> {
        const OPERATION: &str = "list sessions";
        // Both reads in one transaction, so that they see the same sessions.
        let mut transaction = self.readers.begin().await.during(OPERATION)?;
        let rows: Vec<(i64, i64, Uuid, String, Uuid)> = sqlx::query_as(
            "SELECT sessions.session_id, sessions.generation, tenants.tenant_id, sessions.client_id,
                    sessions.user_id
             FROM sessions JOIN tenants USING (tenant_no)
             WHERE sessions.session_id > ? ORDER BY sessions.session_id LIMIT ?",
        )
        .bind(after.map_or(0, |after| to_row(after.0)))
        .bind(count_to_row(limit))
        .fetch_all(&mut *transaction)
        .await
        .during(OPERATION)?;
        let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let mut subscriptions = subscriptions_of(&mut transaction, &ids).await?;
        rows.into_iter()
            .map(|(id, generation, tenant, client_id, user)| {
                Ok(ListedSession {
                    session: session_ref(id, generation)?,
                    tenant: TenantId(tenant),
                    client_id: stored_client_id(&client_id)?,
                    user: UserId(user),
                    subscriptions: subscriptions.remove(&id).unwrap_or_default(),
                })
            })
            .collect()
    }

    async fn expire(&self, now: UnixMillis, limit: usize) -> Result<Vec<(TenantId, ClientId)>, StoreError> {
        const OPERATION: &str = "expire sessions";
        let mut transaction = self.writer.begin(OPERATION).await?;
        let result: Result<Vec<(Uuid, String)>, StoreError> = sqlx::query_as(
            "DELETE FROM sessions WHERE session_id IN (
                 SELECT session_id FROM sessions WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)
             RETURNING (SELECT tenant_id FROM tenants WHERE tenants.tenant_no = sessions.tenant_no), client_id",
        )
        .bind(to_row(now.0))
        .bind(count_to_row(limit))
        .fetch_all(transaction.connection())
        .await
        .during(OPERATION);
        let rows = transaction.finish(result).await?;
        rows.into_iter().map(|(tenant, client)| Ok((TenantId(tenant), stored_client_id(&client)?))).collect()
    }
}

async fn apply_all(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    quota: WakeupQuota,
    ops: &[SessionOp],
) -> Result<Vec<SessionReply>, StoreError> {
    let mut replies = Vec::with_capacity(ops.len());
    for op in ops {
        replies.push(apply_one(connection, tenants, quota, op).await?);
    }
    Ok(replies)
}

async fn apply_one(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    quota: WakeupQuota,
    op: &SessionOp,
) -> Result<SessionReply, StoreError> {
    let held = match op {
        SessionOp::Open(open_session) => {
            let opened = open(connection, tenants, open_session).await?;
            return Ok(SessionReply::Opened(Box::new(opened)));
        }
        SessionOp::Subscribe(session, subscriptions) => {
            subscribe(connection, *session, subscriptions).await?
        }
        SessionOp::Unsubscribe(session, filters) => {
            let held = is_held(connection, *session).await?;
            if held {
                unsubscribe(connection, *session, filters).await?;
            }
            held
        }
        SessionOp::Save(session, progress) => {
            let held = save(connection, *session, progress).await?;
            if held {
                add_exactly_once(connection, *session, &progress.exactly_once_received).await?;
            }
            held
        }
        SessionOp::Release(session, packet_ids) => {
            let held = is_held(connection, *session).await?;
            if held {
                release(connection, *session, packet_ids).await?;
            }
            held
        }
        SessionOp::Close { session, expiry_seconds: 0, will, now, .. } => {
            let held = delete(connection, *session).await?;
            if held {
                end_will(connection, *session, *will, 0, *now).await?;
            }
            held
        }
        SessionOp::Delete(session) => {
            let held = delete(connection, *session).await?;
            if held {
                wills::end(connection, to_row(session.id.0)).await?;
            }
            held
        }
        SessionOp::Close { session, progress, expiry_seconds, will, now } => {
            let held = disconnect(connection, *session, progress, *expiry_seconds, *now).await?;
            if held {
                end_will(connection, *session, *will, *expiry_seconds, *now).await?;
                add_exactly_once(connection, *session, &progress.exactly_once_received).await?;
                wake_if_behind(connection, to_row(session.id.0), quota, *now).await?;
            }
            held
        }
    };
    Ok(if held { SessionReply::Done } else { SessionReply::Fenced })
}

type StoredSession = (i64, i64, Uuid, Option<i64>, i64, Vec<u8>, bool, bool, String);

async fn open(
    connection: &mut SqliteConnection,
    tenants: &TenantNumbers,
    open: &OpenSession,
) -> Result<OpenedSession, StoreError> {
    const OPERATION: &str = "open session";
    let tenant = tenants
        .number(connection, open.tenant)
        .await?
        .ok_or_else(|| StoreError::Refused { operation: OPERATION, code: "no such tenant".to_owned() })?;
    // Each statement is a way to the database's thread and back: in a storm they are what a CONNECT costs.
    let stored: Option<StoredSession> = sqlx::query_as(
        "SELECT session_id, generation, user_id, expires_at_ms, cursor, inflight,
                EXISTS (SELECT 1 FROM wills WHERE wills.session_id = sessions.session_id),
                EXISTS (SELECT 1 FROM exactly_once_received AS received
                        WHERE received.session_id = sessions.session_id),
                (SELECT json_group_array(json_array(filter, options, identifier, since))
                 FROM (SELECT filter, options, identifier, since FROM subscriptions AS held
                       WHERE held.session_id = sessions.session_id ORDER BY filter))
         FROM sessions
         WHERE tenant_no = ? AND client_id = ?",
    )
    .bind(tenant.to_row())
    .bind(open.client_id.as_str())
    .fetch_optional(&mut *connection)
    .await
    .during(OPERATION)?;
    if let Some(device) = open.device {
        forget_wake(connection, tenant, device).await?;
    }

    let Some(stored) = stored else { return create(connection, tenant, open).await };
    let (id, generation, user, expires_at, cursor, inflight, has_wills, has_received, subscriptions) = stored;
    let expired = expires_at.is_some_and(|at| at <= to_row(open.now.0));
    // A session of the user who had this name before is nobody's.
    if open.clean_start || expired || user != open.user.0 {
        sqlx::query("DELETE FROM sessions WHERE session_id = ?")
            .bind(id)
            .execute(&mut *connection)
            .await
            .during(OPERATION)?;
        if has_wills {
            wills::end(connection, id).await?;
        }
        return create(connection, tenant, open).await;
    }

    let session = session_ref(id, generation)?;
    let session = SessionRef { generation: session.generation.next(), ..session };
    if has_wills {
        wills::take_up(connection, id, open.now).await?;
    }
    if let Some(will) = &open.will {
        wills::keep(connection, session.id, tenant, will).await?;
    }
    sqlx::query(
        "UPDATE sessions
         SET generation = ?, device_id = ?, connected = 1, expiry_seconds = ?, expires_at_ms = NULL
         WHERE session_id = ?",
    )
    .bind(to_row(session.generation.0))
    .bind(open.device.map(|device| device.0))
    .bind(open.expiry_seconds)
    .bind(id)
    .execute(&mut *connection)
    .await
    .during(OPERATION)?;
    let progress = SessionProgress {
        cursor: Cursor(offset(cursor)?),
        inflight: decode_inflight(&inflight)?,
        exactly_once_received: if has_received { received(connection, id).await? } else { Vec::new() },
    };
    let subscriptions: Vec<SubscriptionRow> =
        serde_json::from_str(&subscriptions).map_err(|_| StoreError::Inconsistent("subscriptions"))?;
    let subscriptions = subscriptions.into_iter().map(subscription).collect::<Result<_, _>>()?;
    Ok(OpenedSession { session, present: true, progress, subscriptions })
}

/// Packet ids of QoS 2 messages that were received and not yet released.
async fn received(connection: &mut SqliteConnection, session_id: i64) -> Result<Vec<PacketId>, StoreError> {
    let rows: Vec<(i64,)> =
        sqlx::query_as("SELECT packet_id FROM exactly_once_received WHERE session_id = ? ORDER BY packet_id")
            .bind(session_id)
            .fetch_all(connection)
            .await
            .during("open session")?;
    rows.into_iter()
        .map(|(id,)| PacketId::new(narrow(id, "packet_id")?).ok_or(StoreError::Inconsistent("packet_id")))
        .collect()
}

async fn create(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    open: &OpenSession,
) -> Result<OpenedSession, StoreError> {
    let (id,): (i64,) = sqlx::query_as(
        "INSERT INTO sessions (tenant_no, client_id, user_id, device_id, generation, cursor, inflight,
                               connected, expiry_seconds)
         VALUES (?, ?, ?, ?, ?, ?, x'', 1, ?) RETURNING session_id",
    )
    .bind(tenant.to_row())
    .bind(open.client_id.as_str())
    .bind(open.user.0)
    .bind(open.device.map(|device| device.0))
    .bind(to_row(Generation::default().next().0))
    .bind(to_row(open.head.0))
    .bind(open.expiry_seconds)
    .fetch_one(&mut *connection)
    .await
    .during("create session")?;
    let id = SessionId(from_row(id, "session_id")?);
    if let Some(will) = &open.will {
        wills::keep(connection, id, tenant, will).await?;
    }
    Ok(OpenedSession {
        session: SessionRef { id, generation: Generation::default().next() },
        present: false,
        progress: SessionProgress { cursor: Cursor(open.head), ..SessionProgress::default() },
        subscriptions: Vec::new(),
    })
}

/// Whether the caller's generation is still the session's.
async fn is_held(connection: &mut SqliteConnection, session: SessionRef) -> Result<bool, StoreError> {
    let row: Option<(i64,)> =
        sqlx::query_as("SELECT 1 FROM sessions WHERE session_id = ? AND generation = ?")
            .bind(to_row(session.id.0))
            .bind(to_row(session.generation.0))
            .fetch_optional(connection)
            .await
            .during("check generation")?;
    Ok(row.is_some())
}

/// False when the caller's generation is no more the session's.
async fn subscribe(
    connection: &mut SqliteConnection,
    session: SessionRef,
    subscriptions: &[Subscription],
) -> Result<bool, StoreError> {
    let (first, more) = match subscriptions {
        [] => return is_held(connection, session).await,
        [first, more @ ..] => (first, more),
    };
    if !subscribe_one(connection, session, first).await? {
        return Ok(false);
    }
    for subscription in more {
        subscribe_one(connection, session, subscription).await?;
    }
    Ok(true)
}

async fn subscribe_one(
    connection: &mut SqliteConnection,
    session: SessionRef,
    subscription: &Subscription,
) -> Result<bool, StoreError> {
    let subscribed = sqlx::query(
        "INSERT OR REPLACE INTO subscriptions (session_id, filter, options, identifier, since)
         SELECT session_id, ?, ?, ?, ? FROM sessions WHERE session_id = ? AND generation = ?",
    )
    .bind(subscription.filter.as_subscribed())
    .bind(subscription.options.to_bits())
    .bind(subscription.identifier)
    .bind(to_row(subscription.since.0))
    .bind(to_row(session.id.0))
    .bind(to_row(session.generation.0))
    .execute(connection)
    .await
    .during("subscribe")?;
    Ok(subscribed.rows_affected() > 0)
}

async fn unsubscribe(
    connection: &mut SqliteConnection,
    session: SessionRef,
    filters: &[TopicFilter],
) -> Result<(), StoreError> {
    for filter in filters {
        sqlx::query("DELETE FROM subscriptions WHERE session_id = ? AND filter = ?")
            .bind(to_row(session.id.0))
            .bind(filter.as_subscribed())
            .execute(&mut *connection)
            .await
            .during("unsubscribe")?;
    }
    Ok(())
}

async fn save(
    connection: &mut SqliteConnection,
    session: SessionRef,
    progress: &SessionProgress,
) -> Result<bool, StoreError> {
    let saved =
        sqlx::query("UPDATE sessions SET cursor = ?, inflight = ? WHERE session_id = ? AND generation = ?")
            .bind(to_row(progress.cursor.0.0))
            .bind(encode_inflight(&progress.inflight))
            .bind(to_row(session.id.0))
            .bind(to_row(session.generation.0))
            .execute(connection)
            .await
            .during("save session")?;
    Ok(saved.rows_affected() == 1)
}

async fn add_exactly_once(
    connection: &mut SqliteConnection,
    session: SessionRef,
    received: &[PacketId],
) -> Result<(), StoreError> {
    if received.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT OR IGNORE INTO exactly_once_received (session_id, packet_id)
         SELECT ?, value FROM json_each(?)",
    )
    .bind(to_row(session.id.0))
    .bind(packet_ids_json(received))
    .execute(connection)
    .await
    .during("save session")?;
    Ok(())
}

async fn release(
    connection: &mut SqliteConnection,
    session: SessionRef,
    packet_ids: &[PacketId],
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM exactly_once_received
         WHERE session_id = ? AND packet_id IN (SELECT value FROM json_each(?))",
    )
    .bind(to_row(session.id.0))
    .bind(packet_ids_json(packet_ids))
    .execute(connection)
    .await
    .during("release packet ids")?;
    Ok(())
}

fn packet_ids_json(packet_ids: &[PacketId]) -> String {
    json!(packet_ids.iter().map(|id| id.0.get()).collect::<Vec<_>>()).to_string()
}

async fn end_will(
    connection: &mut SqliteConnection,
    session: SessionRef,
    end: Option<WillEnd>,
    expiry_seconds: u32,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let session = to_row(session.id.0);
    match end {
        None => Ok(()),
        Some(WillEnd::Due) => wills::make_due(connection, session, expiry_seconds, now).await,
        Some(WillEnd::Forgotten) => wills::forget(connection, session).await,
    }
}

async fn disconnect(
    connection: &mut SqliteConnection,
    session: SessionRef,
    progress: &SessionProgress,
    expiry_seconds: u32,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let disconnected = sqlx::query(
        "UPDATE sessions SET cursor = ?, inflight = ?, connected = 0, expiry_seconds = ?, expires_at_ms = ?
         WHERE session_id = ? AND generation = ?",
    )
    .bind(to_row(progress.cursor.0.0))
    .bind(encode_inflight(&progress.inflight))
    .bind(expiry_seconds)
    .bind(expires_at(expiry_seconds, now))
    .bind(to_row(session.id.0))
    .bind(to_row(session.generation.0))
    .execute(connection)
    .await
    .during("close session")?;
    Ok(disconnected.rows_affected() == 1)
}

/// [MQTT-3.1.2-11.2]: 0xFFFFFFFF is never.
fn expires_at(expiry_seconds: u32, now: UnixMillis) -> Option<i64> {
    let expiry = Duration::from_secs(expiry_seconds.into());
    (expiry_seconds != u32::MAX).then(|| to_row(now.saturating_add(expiry).0))
}

async fn delete(connection: &mut SqliteConnection, session: SessionRef) -> Result<bool, StoreError> {
    let deleted = sqlx::query("DELETE FROM sessions WHERE session_id = ? AND generation = ?")
        .bind(to_row(session.id.0))
        .bind(to_row(session.generation.0))
        .execute(connection)
        .await
        .during("delete session")?;
    Ok(deleted.rows_affected() == 1)
}

/// How many were marked, and the last of them; `None` when none was left.
async fn recover_some(
    connection: &mut SqliteConnection,
    after: i64,
    quota: WakeupQuota,
    now: UnixMillis,
) -> Result<Option<(u64, i64)>, StoreError> {
    const OPERATION: &str = "recover sessions";
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT session_id, expiry_seconds FROM sessions
         WHERE connected = 1 AND session_id > ? ORDER BY session_id LIMIT ?",
    )
    .bind(after)
    .bind(count_to_row(RECOVER_SESSIONS_MAX))
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    // All of them first: a device with two sessions must not look connected by its second.
    for &(id, expiry_seconds) in &rows {
        let expiry_seconds = narrow(expiry_seconds, "expiry_seconds")?;
        wills::make_due(connection, id, expiry_seconds, now).await?;
        sqlx::query("UPDATE sessions SET connected = 0, expires_at_ms = ? WHERE session_id = ?")
            .bind(expires_at(expiry_seconds, now))
            .bind(id)
            .execute(&mut *connection)
            .await
            .during(OPERATION)?;
    }
    for &(id, _) in &rows {
        wake_if_behind(connection, id, quota, now).await?;
    }
    let count = u64::try_from(rows.len()).expect("a count of rows fits");
    Ok(rows.last().map(|&(last, _)| (count, last)))
}

type SubscriptionRow = (String, i64, Option<i64>, i64);

fn subscription((filter, options, identifier, since): SubscriptionRow) -> Result<Subscription, StoreError> {
    let options = SubscriptionOptions::from_bits(narrow(options, "options")?);
    Ok(Subscription {
        filter: TopicFilter::parse(&filter).map_err(|_| StoreError::Inconsistent("filter"))?,
        options: options.ok_or(StoreError::Inconsistent("options"))?,
        identifier: identifier.map(|identifier| narrow(identifier, "identifier")).transpose()?,
        since: offset(since)?,
    })
}

/// By session; each session's by filter.
async fn subscriptions_of(
    connection: &mut SqliteConnection,
    session_ids: &[i64],
) -> Result<HashMap<i64, Vec<Subscription>>, StoreError> {
    let rows: Vec<(i64, String, i64, Option<i64>, i64)> = sqlx::query_as(
        "SELECT session_id, filter, options, identifier, since FROM subscriptions
         WHERE session_id IN (SELECT value FROM json_each(?)) ORDER BY session_id, filter",
    )
    .bind(json!(session_ids).to_string())
    .fetch_all(connection)
    .await
    .during("read subscriptions")?;
    let mut by_session = HashMap::<i64, Vec<Subscription>>::new();
    for (session_id, filter, options, identifier, since) in rows {
        let subscription = subscription((filter, options, identifier, since))?;
        by_session.entry(session_id).or_default().push(subscription);
    }
    Ok(by_session)
}

fn session_ref(id: i64, generation: i64) -> Result<SessionRef, StoreError> {
    Ok(SessionRef {
        id: SessionId(from_row(id, "session_id")?),
        generation: Generation(from_row(generation, "generation")?),
    })
}

fn stored_client_id(client_id: &str) -> Result<ClientId, StoreError> {
    ClientId::parse(client_id).map_err(|_| StoreError::Inconsistent("client_id"))
}
