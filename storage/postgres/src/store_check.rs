//! Rows as they stand, for the check of a store. Everything but sealed rows is read in one transaction.

use async_trait::async_trait;
use futures::TryStreamExt;
use sotto_keyring::{Epoch, KeyId};
use sotto_model::TenantId;
use sotto_storage::StoreError;
use sotto_storage::store_check::row::{
    LastBatchRow, OutboxRow, SessionRow, SubscriptionRow, TenantRow, TopicRow,
};
use sotto_storage::store_check::{
    FindingKind, Judge, LogPlace, MessageRow, PushTokenRow, RetainedRow, StoreCheck, Subject, WillRow,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::column;
use crate::fault::Fault;
use crate::lane::{within, within_time};
use crate::limits::STATE_CHECK_TIMEOUT;
use crate::session_store::parse_inflight;
use crate::store::PostgresStore;

#[async_trait]
impl StoreCheck for PostgresStore {
    async fn check_state(&self, judge: &mut Judge, _thorough: bool) -> Result<(), StoreError> {
        const OPERATION: &str = "check state";
        // A connection of its own, dropped afterwards: its settings are not those of the lane.
        let mut connection = self.readers.open().await.map_err(|fault| fault.named(OPERATION))?;
        within_time(STATE_CHECK_TIMEOUT, check_state(&mut connection, judge))
            .await
            .map_err(|fault| fault.named(OPERATION))
    }

    async fn epoch_keys(
        &self,
        after: Option<(TenantId, Epoch)>,
        limit: usize,
    ) -> Result<Vec<(TenantId, Epoch)>, StoreError> {
        let mut held = self.readers.hold("list epoch keys").await?;
        let (tenant, epoch) =
            after.map_or((Uuid::nil(), -1), |(tenant, epoch)| (tenant.0, i64::from(epoch.0)));
        let result = within(async {
            let rows: Vec<(Uuid, i64)> = sqlx::query_as(
                "SELECT tenant_id, epoch FROM epoch_keys WHERE (tenant_id, epoch) > ($1, $2) \
                 ORDER BY tenant_id, epoch LIMIT $3",
            )
            .bind(tenant)
            .bind(epoch)
            .bind(column::limit(limit))
            .fetch_all(held.connection())
            .await?;
            rows.into_iter()
                .map(|(tenant, epoch)| {
                    let epoch = u32::try_from(epoch).map_err(|_| Fault::Inconsistent("epoch"))?;
                    Ok((TenantId(tenant), Epoch(epoch)))
                })
                .collect()
        })
        .await;
        held.settle(result)
    }

    async fn data_keys(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, TenantId)>, StoreError> {
        let mut held = self.readers.hold("list data keys").await?;
        let result = within(async {
            let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
                "SELECT key_id, tenant_id FROM data_keys WHERE $1::uuid IS NULL OR key_id > $1 \
                 ORDER BY key_id LIMIT $2",
            )
            .bind(after.map(|key| key.0))
            .bind(column::limit(limit))
            .fetch_all(held.connection())
            .await?;
            Ok(rows.into_iter().map(|(key, tenant)| (KeyId(key), TenantId(tenant))).collect())
        })
        .await;
        held.settle(result)
    }

    async fn messages(&self, after: LogPlace, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
        let mut held = self.readers.hold("read log to check").await?;
        let result = within(async {
            let rows: Vec<(i64, Uuid, Option<Uuid>, Option<String>, Uuid, i16, Vec<u8>)> = sqlx::query_as(
                "SELECT m.log_offset, m.message_id, t.tenant_id, t.name, m.sender_id, m.qos, m.sealed \
                 FROM (SELECT log_offset, message_id, topic_id, sender_id, qos, sealed FROM messages \
                       WHERE tenant_id = $1 AND log_offset >= $2 AND (log_offset > $2 OR message_id > $3) \
                       ORDER BY log_offset, message_id LIMIT $4) m \
                 LEFT JOIN topics t USING (topic_id) ORDER BY m.log_offset, m.message_id",
            )
            .bind(after.tenant)
            .bind(after.offset)
            .bind(after.message_id)
            .bind(column::limit(limit))
            .fetch_all(held.connection())
            .await?;
            Ok(rows
                .into_iter()
                .map(|(offset, message_id, owner, name, sender, qos, sealed)| MessageRow {
                    place: LogPlace { tenant: after.tenant, offset, message_id },
                    topic: owner.zip(name),
                    sender,
                    qos: i64::from(qos),
                    sealed: sealed.into(),
                })
                .collect())
        })
        .await;
        held.settle(result)
    }

    async fn retained_copies(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError> {
        type Row = (i64, Uuid, String, Option<Uuid>, Option<String>, i64, Uuid, Option<Uuid>, Uuid, Vec<u8>);
        let mut held = self.readers.hold("read retained to check").await?;
        let result = within(async {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT r.topic_id, r.tenant_id, r.name, t.tenant_id, t.name, r.log_offset, r.message_id, \
                     (SELECT m.message_id FROM messages m \
                      WHERE m.tenant_id = r.tenant_id AND m.log_offset = r.log_offset LIMIT 1), \
                     r.sender_id, r.sealed \
                 FROM retained r LEFT JOIN topics t USING (topic_id) \
                 WHERE $1::bigint IS NULL OR r.topic_id > $1 ORDER BY r.topic_id LIMIT $2",
            )
            .bind(after)
            .bind(column::limit(limit))
            .fetch_all(held.connection())
            .await?;
            Ok(rows
                .into_iter()
                .map(|(topic_id, tenant, name, owner, owned, offset, message_id, logged, sender, sealed)| {
                    RetainedRow {
                        topic_id,
                        tenant,
                        name,
                        topic: owner.zip(owned),
                        offset,
                        message_id,
                        logged,
                        sender,
                        sealed: sealed.into(),
                    }
                })
                .collect())
        })
        .await;
        held.settle(result)
    }

    async fn kept_wills(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<WillRow>, StoreError> {
        let mut held = self.readers.hold("read wills to check").await?;
        let result = within(async {
            let rows: Vec<(Uuid, i64, Option<Uuid>, bool, bool, String, Uuid, Vec<u8>)> = sqlx::query_as(
                "SELECT w.message_id, w.session_id, t.tenant_id, s.session_id IS NOT NULL, \
                     w.due_at_ms IS NOT NULL, w.topic, w.sender_id, w.sealed \
                 FROM wills w LEFT JOIN tenants t USING (tenant_id) LEFT JOIN sessions s USING (session_id) \
                 WHERE $1::uuid IS NULL OR w.message_id > $1 ORDER BY w.message_id LIMIT $2",
            )
            .bind(after)
            .bind(column::limit(limit))
            .fetch_all(held.connection())
            .await?;
            Ok(rows
                .into_iter()
                .map(|(message_id, session_id, tenant, session_known, due, topic, sender, sealed)| WillRow {
                    message_id,
                    session_id,
                    tenant,
                    session_known,
                    due,
                    topic,
                    sender,
                    sealed: sealed.into(),
                })
                .collect())
        })
        .await;
        held.settle(result)
    }

    async fn push_tokens(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<PushTokenRow>, StoreError> {
        let mut held = self.readers.hold("read push tokens to check").await?;
        let result = within(async {
            let rows: Vec<(Uuid, Uuid, Vec<u8>)> = sqlx::query_as(
                "SELECT device_id, tenant_id, sealed_token FROM push_registrations \
                 WHERE $1::uuid IS NULL OR device_id > $1 ORDER BY device_id LIMIT $2",
            )
            .bind(after)
            .bind(column::limit(limit))
            .fetch_all(held.connection())
            .await?;
            Ok(rows
                .into_iter()
                .map(|(device, tenant, sealed)| PushTokenRow { device, tenant, sealed: sealed.into() })
                .collect())
        })
        .await;
        held.settle(result)
    }
}

const COUNTED: [&str; 17] = [
    "tenants",
    "users",
    "devices",
    "conversations",
    "memberships",
    "topics",
    "messages",
    "publications",
    "retained",
    "sessions",
    "subscriptions",
    "exactly_once_received",
    "wills",
    "push_registrations",
    "outbox",
    "wakes",
    "data_keys",
];

async fn check_state(connection: &mut PgConnection, judge: &mut Judge) -> Result<(), Fault> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // Whole tables are read here, which takes longer than a statement of the lane may, and the lane's settings
    // for look-ups would make it slow.
    for setting in
        ["statement_timeout = 0", "enable_seqscan = on", "enable_hashjoin = on", "enable_mergejoin = on"]
    {
        sqlx::query(&format!("SET LOCAL {setting}")).execute(&mut *snapshot).await?;
    }
    for table in COUNTED {
        let rows =
            sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&mut *snapshot).await?;
        judge.counted(table, rows);
    }
    check_logs(&mut snapshot, judge).await?;
    check_sessions(&mut snapshot, judge).await?;
    check_outbox(&mut snapshot, judge).await?;
    check_references(&mut snapshot, judge).await?;
    snapshot.rollback().await?;
    Ok(())
}

async fn check_logs(connection: &mut PgConnection, judge: &mut Judge) -> Result<(), Fault> {
    {
        let mut rows = sqlx::query_as::<_, (Uuid, bool, Option<i64>, i64, i64, Option<i64>, Option<i64>)>(
            "SELECT coalesce(t.tenant_id, m.tenant_id), t.tenant_id IS NOT NULL, c.head, \
                 coalesce(c.start, 0), \
                 coalesce(m.messages, 0), m.first, m.last \
             FROM tenants t LEFT JOIN counters c ON c.tenant_id = t.tenant_id \
             FULL JOIN (SELECT tenant_id, count(*) AS messages, min(log_offset) AS first, \
                            max(log_offset) AS last \
                        FROM messages GROUP BY tenant_id) m ON m.tenant_id = t.tenant_id",
        )
        .fetch(&mut *connection);
        while let Some((tenant, known, head, start, messages, first, last)) = rows.try_next().await? {
            judge.tenant(&TenantRow { tenant, known, head, start, messages, extent: first.zip(last) });
        }
    }
    let last_batch: Option<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT w.batch_number, w.batch_records::bigint, \
             (SELECT coalesce(sum(head - batch_base), 0)::bigint FROM counters c \
              WHERE c.batch_number = w.batch_number AND c.batch_number > 0), \
             (SELECT count(*) FROM counters c \
              WHERE c.batch_number > w.batch_number OR c.batch_base NOT BETWEEN 0 AND c.head) \
         FROM writers w",
    )
    .fetch_optional(&mut *connection)
    .await?;
    match last_batch {
        Some((number, records, placed, counters_ahead)) => {
            judge.last_batch(&LastBatchRow { number, records, placed, counters_ahead });
        }
        None => judge.found(FindingKind::LastBatch, None, Subject::Whole),
    }
    let mut topics = sqlx::query_as::<_, (i64, Option<Uuid>, String, Option<Uuid>, Option<Uuid>)>(
        "SELECT p.topic_id, t.tenant_id, p.name, p.conversation_id, p.user_id \
         FROM topics p LEFT JOIN tenants t USING (tenant_id)",
    )
    .fetch(connection);
    while let Some((topic_id, tenant, name, conversation, inbox)) = topics.try_next().await? {
        judge.topic(&TopicRow { topic_id, tenant, name, conversation, inbox });
    }
    Ok(())
}

async fn check_sessions(connection: &mut PgConnection, judge: &mut Judge) -> Result<(), Fault> {
    {
        let mut sessions = sqlx::query_as::<_, (i64, Option<Uuid>, bool, bool, i64, Vec<u8>)>(
            "SELECT s.session_id, t.tenant_id, s.user_id = $1 OR u.user_id IS NOT NULL, \
                 s.device_id IS NULL OR d.device_id IS NOT NULL, s.cursor_offset, s.inflight \
             FROM sessions s LEFT JOIN tenants t ON t.tenant_id = s.tenant_id \
             LEFT JOIN users u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id \
             LEFT JOIN devices d ON d.device_id = s.device_id AND d.tenant_id = s.tenant_id",
        )
        .bind(Uuid::nil())
        .fetch(&mut *connection);
        while let Some((session_id, tenant, user_known, device_known, cursor, inflight)) =
            sessions.try_next().await?
        {
            let inflight = parse_inflight(&inflight);
            judge.session(&SessionRow { session_id, tenant, user_known, device_known, cursor, inflight });
        }
    }
    {
        let mut subscriptions = sqlx::query_as::<_, (i64, Option<Uuid>, String, i16, Option<i32>, i64)>(
            "SELECT b.session_id, s.tenant_id, b.filter, b.options, b.identifier, b.since_offset \
                 FROM subscriptions b LEFT JOIN sessions s USING (session_id)",
        )
        .fetch(&mut *connection);
        while let Some((session_id, tenant, filter, options, identifier, since)) =
            subscriptions.try_next().await?
        {
            let (options, identifier) = (i64::from(options), identifier.map(i64::from));
            judge.subscription(&SubscriptionRow { session_id, tenant, filter, options, identifier, since });
        }
    }
    {
        let mut received = sqlx::query_as::<_, (i64, bool)>(
            "SELECT r.session_id, s.session_id IS NULL \
             FROM exactly_once_received r LEFT JOIN sessions s USING (session_id) \
             WHERE s.session_id IS NULL OR r.packet_id NOT BETWEEN 1 AND 65535",
        )
        .fetch(&mut *connection);
        while let Some((session_id, dangling)) = received.try_next().await? {
            let kind =
                if dangling { FindingKind::ReceivedOfNoSession } else { FindingKind::ReceivedPacketId };
            judge.found(kind, None, Subject::Session(session_id));
        }
    }
    let mut memberships = sqlx::query_as::<_, (Uuid, Uuid, i64, bool)>(
        "SELECT m.tenant_id, m.user_id, m.since_offset, c.conversation_id IS NULL OR u.user_id IS NULL \
         FROM memberships m \
         LEFT JOIN conversations c ON c.tenant_id = m.tenant_id AND c.conversation_id = m.conversation_id \
         LEFT JOIN users u ON u.tenant_id = m.tenant_id AND u.user_id = m.user_id",
    )
    .fetch(connection);
    while let Some((tenant, user, since, dangling)) = memberships.try_next().await? {
        judge.membership(tenant, user, since);
        if dangling {
            judge.found(FindingKind::MembershipDangling, Some(tenant), Subject::User(user));
        }
    }
    Ok(())
}

async fn check_outbox(connection: &mut PgConnection, judge: &mut Judge) -> Result<(), Fault> {
    let mut rows = sqlx::query_as::<_, (i64, Option<Uuid>, i64, Option<bool>)>(
        // Of arrays that differ in length, the shorter one gives nulls.
        "SELECT o.outbox_id, t.tenant_id, coalesce(o.base_offset + p.ordinal, -1), m.topic_id = p.topic_id \
         FROM outbox o CROSS JOIN UNNEST(ordinals, topic_ids) AS p (ordinal, topic_id) \
         LEFT JOIN topics t USING (topic_id) \
         LEFT JOIN messages m ON m.tenant_id = t.tenant_id AND m.log_offset = o.base_offset + p.ordinal",
    )
    .fetch(connection);
    while let Some((outbox_id, tenant, offset, fits_message)) = rows.try_next().await? {
        judge.outbox(&OutboxRow { outbox_id, tenant, offset, fits_message });
    }
    Ok(())
}

/// What no foreign key holds, and what one does that was switched off for a while.
async fn check_references(connection: &mut PgConnection, judge: &mut Judge) -> Result<(), Fault> {
    let retained: Vec<(Uuid, i64, Uuid)> = sqlx::query_as(
        "SELECT r.tenant_id, r.log_offset, r.message_id FROM retained r \
         LEFT JOIN counters c USING (tenant_id) WHERE r.log_offset > coalesce(c.head, 0) LIMIT 1000",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (tenant, offset, message_id) in retained {
        let subject = Subject::Message { offset, message_id };
        judge.found(FindingKind::RetainedOutOfRange, Some(tenant), subject);
    }
    let by_device = [
        (
            FindingKind::RegistrationDangling,
            "SELECT r.tenant_id, r.device_id FROM push_registrations r LEFT JOIN devices d USING (device_id) \
             WHERE d.device_id IS NULL OR d.tenant_id <> r.tenant_id",
        ),
        (
            FindingKind::WakeDangling,
            "SELECT w.tenant_id, w.device_id FROM wakes w LEFT JOIN push_registrations r USING (device_id) \
             WHERE r.device_id IS NULL OR r.tenant_id <> w.tenant_id",
        ),
        (
            FindingKind::WakeMisfiled,
            "SELECT w.tenant_id, w.device_id FROM wakes w JOIN push_registrations r USING (device_id) \
             WHERE (w.platform, w.app) <> (r.platform, r.app)",
        ),
    ];
    for (kind, statement) in by_device {
        let mut rows = sqlx::query_as::<_, (Uuid, Uuid)>(statement).fetch(&mut *connection);
        while let Some((tenant, device)) = rows.try_next().await? {
            judge.found(kind, Some(tenant), Subject::Device(device));
        }
    }
    {
        let mut rows = sqlx::query_as::<_, (Uuid, i64)>(
            "SELECT e.tenant_id, e.epoch FROM epoch_keys e LEFT JOIN tenants t USING (tenant_id) \
             WHERE t.tenant_id IS NULL",
        )
        .fetch(&mut *connection);
        while let Some((tenant, epoch)) = rows.try_next().await? {
            let subject = Subject::Epoch(u32::try_from(epoch).unwrap_or_default());
            judge.found(FindingKind::EpochKeyOfNoTenant, Some(tenant), subject);
        }
    }
    let mut rows = sqlx::query_as::<_, (Uuid, Uuid)>(
        "SELECT k.tenant_id, k.key_id FROM data_keys k LEFT JOIN epoch_keys e USING (tenant_id, epoch) \
         WHERE e.epoch IS NULL",
    )
    .fetch(connection);
    while let Some((tenant, key)) = rows.try_next().await? {
        judge.found(FindingKind::DataKeyOfNoEpochKey, Some(tenant), Subject::Key(key));
    }
    Ok(())
}
