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
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

use crate::error::During;
use crate::inflight::decode_inflight;
use crate::limits::FILE_FAULTS_MAX;
use crate::number::{count_to_row, narrow};
use crate::store::SqliteStore;

const OPERATION: &str = "check state";

#[async_trait]
impl StoreCheck for SqliteStore {
    async fn check_state(&self, judge: &mut Judge, thorough: bool) -> Result<(), StoreError> {
        let mut connection = self.readers.acquire().await.during(OPERATION)?;
        check_file(&mut connection, judge, thorough).await?;
        let mut snapshot = connection.begin().await.during(OPERATION)?;
        for table in COUNTED {
            let rows = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}"))
                .fetch_one(&mut *snapshot)
                .await
                .during(OPERATION)?;
            judge.counted(table, rows);
        }
        check_logs(&mut snapshot, judge).await?;
        check_sessions(&mut snapshot, judge).await?;
        check_outbox(&mut snapshot, judge).await?;
        check_references(&mut snapshot, judge).await?;
        snapshot.rollback().await.during(OPERATION)
    }

    async fn epoch_keys(
        &self,
        after: Option<(TenantId, Epoch)>,
        limit: usize,
    ) -> Result<Vec<(TenantId, Epoch)>, StoreError> {
        let (tenant, epoch) =
            after.map_or((Uuid::nil(), -1), |(tenant, epoch)| (tenant.0, i64::from(epoch.0)));
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT tenant_id, epoch FROM epoch_keys WHERE (tenant_id, epoch) > (?, ?)
             ORDER BY tenant_id, epoch LIMIT ?",
        )
        .bind(tenant)
        .bind(epoch)
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("list epoch keys")?;
        rows.into_iter()
            .map(|(tenant, epoch)| Ok((TenantId(tenant), Epoch(narrow(epoch, "epoch")?))))
            .collect()
    }

    async fn data_keys(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, TenantId)>, StoreError> {
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "SELECT key_id, tenant_id FROM data_keys WHERE ?1 IS NULL OR key_id > ?1
             ORDER BY key_id LIMIT ?2",
        )
        .bind(after.map(|key| key.0))
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("list data keys")?;
        Ok(rows.into_iter().map(|(key, tenant)| (KeyId(key), TenantId(tenant))).collect())
    }

    async fn messages(&self, after: LogPlace, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
        // One row a place: the table's own key sees to that.
        let rows: Vec<(i64, Uuid, Option<Uuid>, Option<String>, Uuid, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT m.log_id & 0xfffffffffff, m.message_id, n.tenant_id, t.name, m.sender, m.qos, m.sealed
             FROM messages AS m LEFT JOIN topics AS t USING (topic_id)
             LEFT JOIN tenants AS n ON n.tenant_no = t.tenant_no
             WHERE m.log_id > (?1 << 44) + ?2 AND m.log_id <= (?1 << 44 | 0xfffffffffff)
             ORDER BY m.log_id LIMIT ?3",
        )
        .bind(self.number_to_check(after.tenant).await?)
        .bind(after.offset.max(-1))
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("read log to check")?;
        Ok(rows
            .into_iter()
            .map(|(offset, message_id, owner, name, sender, qos, sealed)| MessageRow {
                place: LogPlace { tenant: after.tenant, offset, message_id },
                topic: owner.zip(name),
                sender,
                qos,
                sealed: sealed.into(),
            })
            .collect())
    }

    async fn retained_copies(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<RetainedRow>, StoreError> {
        type Row = (
            i64,
            i64,
            Option<Uuid>,
            String,
            Option<Uuid>,
            Option<String>,
            i64,
            Uuid,
            Option<Uuid>,
            Uuid,
            Vec<u8>,
        );
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT r.topic_id, r.tenant_no, n.tenant_id, r.topic, o.tenant_id, t.name,
                    r.log_id & 0xfffffffffff, r.message_id, m.message_id, r.sender, r.sealed
             FROM retained AS r LEFT JOIN tenants AS n USING (tenant_no)
             LEFT JOIN topics AS t ON t.topic_id = r.topic_id
             LEFT JOIN tenants AS o ON o.tenant_no = t.tenant_no
             LEFT JOIN messages AS m ON m.log_id = r.log_id
             WHERE ?1 IS NULL OR r.topic_id > ?1 ORDER BY r.topic_id LIMIT ?2",
        )
        .bind(after)
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("read retained to check")?;
        Ok(rows
            .into_iter()
            .map(
                |(
                    topic_id,
                    number,
                    tenant,
                    name,
                    owner,
                    owned,
                    offset,
                    message_id,
                    logged,
                    sender,
                    sealed,
                )| {
                    RetainedRow {
                        topic_id,
                        tenant: tenant.unwrap_or_else(|| stand_in(number)),
                        name,
                        topic: owner.zip(owned),
                        offset,
                        message_id,
                        logged,
                        sender,
                        sealed: sealed.into(),
                    }
                },
            )
            .collect())
    }

    async fn kept_wills(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<WillRow>, StoreError> {
        let rows: Vec<(Uuid, i64, Option<Uuid>, bool, bool, String, Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT w.message_id, w.session_id, n.tenant_id, s.session_id IS NOT NULL, w.due_at_ms IS NOT NULL,
                    w.topic, w.sender, w.sealed
             FROM wills AS w LEFT JOIN tenants AS n USING (tenant_no)
             LEFT JOIN sessions AS s ON s.session_id = w.session_id
             WHERE ?1 IS NULL OR w.message_id > ?1 ORDER BY w.message_id LIMIT ?2",
        )
        .bind(after)
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("read wills to check")?;
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
    }

    async fn push_tokens(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<PushTokenRow>, StoreError> {
        let rows: Vec<(Uuid, i64, Option<Uuid>, Vec<u8>)> = sqlx::query_as(
            "SELECT r.device_id, r.tenant_no, n.tenant_id, r.sealed_token
             FROM push_registrations AS r LEFT JOIN tenants AS n USING (tenant_no)
             WHERE ?1 IS NULL OR r.device_id > ?1 ORDER BY r.device_id LIMIT ?2",
        )
        .bind(after)
        .bind(count_to_row(limit))
        .fetch_all(&self.readers)
        .await
        .during("read push tokens to check")?;
        Ok(rows
            .into_iter()
            .map(|(device, number, tenant, sealed)| PushTokenRow {
                device,
                tenant: tenant.unwrap_or_else(|| stand_in(number)),
                sealed: sealed.into(),
            })
            .collect())
    }
}

impl SqliteStore {
    /// The number of a tenant, or of what stands in for one that is not there.
    async fn number_to_check(&self, tenant: Uuid) -> Result<i64, StoreError> {
        let number: Option<i64> = sqlx::query_scalar("SELECT tenant_no FROM tenants WHERE tenant_id = ?")
            .bind(tenant)
            .fetch_optional(&self.readers)
            .await
            .during("find tenant")?;
        let (_, stands_for) = tenant.as_u64_pair();
        Ok(number.unwrap_or_else(|| i64::try_from(stands_for).unwrap_or(i64::MAX)))
    }
}

/// Names a number that no tenant has: an id that is never drawn.
fn stand_in(number: i64) -> Uuid {
    Uuid::from_u64_pair(0, number.unsigned_abs())
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

/// What SQLite says of its own file: pages, indexes and foreign keys.
async fn check_file(
    connection: &mut SqliteConnection,
    judge: &mut Judge,
    thorough: bool,
) -> Result<(), StoreError> {
    let check = if thorough { "integrity_check" } else { "quick_check" };
    let said: Vec<(String,)> = sqlx::query_as(&format!("PRAGMA {check}({FILE_FAULTS_MAX})"))
        .fetch_all(&mut *connection)
        .await
        .during(OPERATION)?;
    let faults = said.iter().filter(|(line,)| line != "ok").count();
    if faults > 0 {
        judge.found(FindingKind::DatabaseDamaged, None, Subject::Count(count_to_row(faults)));
    }
    let broken: i64 = sqlx::query_scalar("SELECT count(*) FROM pragma_foreign_key_check")
        .fetch_one(connection)
        .await
        .during(OPERATION)?;
    if broken > 0 {
        judge.found(FindingKind::ForeignKey, None, Subject::Count(broken));
    }
    Ok(())
}

async fn check_logs(connection: &mut SqliteConnection, judge: &mut Judge) -> Result<(), StoreError> {
    {
        let mut rows = sqlx::query_as::<_, (i64, Option<Uuid>, Option<i64>, i64, i64, Option<i64>, Option<i64>)>(
            "SELECT coalesce(t.tenant_no, m.tenant_no), t.tenant_id, c.head, coalesce(c.start, 0), coalesce(m.messages, 0),
                    m.first & 0xfffffffffff, m.last & 0xfffffffffff
             FROM tenants AS t LEFT JOIN counters AS c ON c.tenant_no = t.tenant_no
             FULL JOIN (SELECT log_id >> 44 AS tenant_no, count(*) AS messages, min(log_id) AS first,
                               max(log_id) AS last
                        FROM messages GROUP BY 1) AS m ON m.tenant_no = t.tenant_no",
        )
        .fetch(&mut *connection);
        while let Some((number, tenant, head, start, messages, first, last)) =
            rows.try_next().await.during(OPERATION)?
        {
            let known = tenant.is_some();
            let tenant = tenant.unwrap_or_else(|| stand_in(number));
            judge.tenant(&TenantRow { tenant, known, head, start, messages, extent: first.zip(last) });
        }
    }
    let last_batch: Option<(i64, Vec<u8>, i64)> = sqlx::query_as(
        "SELECT batch_number, offsets, (SELECT coalesce(max(head), 0) FROM counters) FROM log_writer",
    )
    .fetch_optional(&mut *connection)
    .await
    .during(OPERATION)?;
    match last_batch {
        Some((number, offsets, head_max)) => {
            let (offsets, rest) = offsets.as_chunks::<8>();
            let given = 1..=head_max.unsigned_abs();
            let astray = offsets.iter().filter(|&&bytes| !given.contains(&u64::from_be_bytes(bytes)));
            let counters_ahead = count_to_row(astray.count() + rest.len());
            let placed = count_to_row(offsets.len());
            judge.last_batch(&LastBatchRow { number, records: placed, placed, counters_ahead });
        }
        None => judge.found(FindingKind::LastBatch, None, Subject::Whole),
    }
    let mut topics = sqlx::query_as::<_, (i64, Option<Uuid>, String, i64, Option<Uuid>)>(
        "SELECT p.topic_id, t.tenant_id, p.name, p.scope_kind, p.scope_id
         FROM topics AS p LEFT JOIN tenants AS t USING (tenant_no)",
    )
    .fetch(connection);
    while let Some((topic_id, tenant, name, kind, scope)) = topics.try_next().await.during(OPERATION)? {
        // A scope without its id is one that no name has.
        let scope_id = Some(scope.unwrap_or_default());
        let (conversation, inbox) = match kind {
            0 => (scope, scope),
            1 => (scope_id, None),
            2 => (None, scope_id),
            _ => (scope_id, scope_id),
        };
        judge.topic(&TopicRow { topic_id, tenant, name, conversation, inbox });
    }
    Ok(())
}

async fn check_sessions(connection: &mut SqliteConnection, judge: &mut Judge) -> Result<(), StoreError> {
    {
        let mut sessions = sqlx::query_as::<_, (i64, Option<Uuid>, bool, bool, i64, Vec<u8>)>(
            "SELECT s.session_id, t.tenant_id, s.user_id = ? OR u.user_id IS NOT NULL,
                    s.device_id IS NULL OR d.device_id IS NOT NULL, s.cursor, s.inflight
             FROM sessions AS s LEFT JOIN tenants AS t ON t.tenant_no = s.tenant_no
             LEFT JOIN users AS u ON u.tenant_no = s.tenant_no AND u.user_id = s.user_id
             LEFT JOIN devices AS d ON d.tenant_no = s.tenant_no AND d.device_id = s.device_id",
        )
        .bind(Uuid::nil())
        .fetch(&mut *connection);
        while let Some((session_id, tenant, user_known, device_known, cursor, inflight)) =
            sessions.try_next().await.during(OPERATION)?
        {
            let inflight = decode_inflight(&inflight).ok();
            judge.session(&SessionRow { session_id, tenant, user_known, device_known, cursor, inflight });
        }
    }
    {
        let mut subscriptions = sqlx::query_as::<_, (i64, Option<Uuid>, String, i64, Option<i64>, i64)>(
            "SELECT b.session_id, t.tenant_id, b.filter, b.options, b.identifier, b.since
                 FROM subscriptions AS b LEFT JOIN sessions AS s USING (session_id)
                 LEFT JOIN tenants AS t ON t.tenant_no = s.tenant_no",
        )
        .fetch(&mut *connection);
        while let Some((session_id, tenant, filter, options, identifier, since)) =
            subscriptions.try_next().await.during(OPERATION)?
        {
            judge.subscription(&SubscriptionRow { session_id, tenant, filter, options, identifier, since });
        }
    }
    {
        let mut received = sqlx::query_as::<_, (i64, bool)>(
            "SELECT r.session_id, s.session_id IS NULL
             FROM exactly_once_received AS r LEFT JOIN sessions AS s USING (session_id)
             WHERE s.session_id IS NULL OR r.packet_id NOT BETWEEN 1 AND 65535",
        )
        .fetch(&mut *connection);
        while let Some((session_id, dangling)) = received.try_next().await.during(OPERATION)? {
            let kind =
                if dangling { FindingKind::ReceivedOfNoSession } else { FindingKind::ReceivedPacketId };
            judge.found(kind, None, Subject::Session(session_id));
        }
    }
    let mut memberships = sqlx::query_as::<_, (i64, Option<Uuid>, Uuid, i64, bool)>(
        "SELECT m.tenant_no, t.tenant_id, m.user_id, m.since,
                c.conversation_id IS NULL OR u.user_id IS NULL
         FROM memberships AS m LEFT JOIN tenants AS t USING (tenant_no)
         LEFT JOIN conversations AS c
             ON c.tenant_no = m.tenant_no AND c.conversation_id = m.conversation_id
         LEFT JOIN users AS u ON u.tenant_no = m.tenant_no AND u.user_id = m.user_id",
    )
    .fetch(connection);
    while let Some((number, tenant, user, since, dangling)) =
        memberships.try_next().await.during(OPERATION)?
    {
        let tenant = tenant.unwrap_or_else(|| stand_in(number));
        judge.membership(tenant, user, since);
        if dangling {
            judge.found(FindingKind::MembershipDangling, Some(tenant), Subject::User(user));
        }
    }
    Ok(())
}

async fn check_outbox(connection: &mut SqliteConnection, judge: &mut Judge) -> Result<(), StoreError> {
    let mut rows = sqlx::query_as::<_, (i64, Option<Uuid>, i64, bool)>(
        "SELECT o.outbox_id, t.tenant_id, o.log_id & 0xfffffffffff, m.log_id IS NOT NULL
         FROM outbox AS o LEFT JOIN tenants AS t ON t.tenant_no = o.log_id >> 44
         LEFT JOIN messages AS m ON m.log_id = o.log_id",
    )
    .fetch(connection);
    while let Some((outbox_id, tenant, offset, logged)) = rows.try_next().await.during(OPERATION)? {
        let fits_message = logged.then_some(true);
        judge.outbox(&OutboxRow { outbox_id, tenant, offset, fits_message });
    }
    Ok(())
}

/// What no foreign key holds, and what one does that was switched off for a while.
async fn check_references(connection: &mut SqliteConnection, judge: &mut Judge) -> Result<(), StoreError> {
    let retained: Vec<(Option<Uuid>, i64, Uuid)> = sqlx::query_as(
        "SELECT t.tenant_id, r.log_id & 0xfffffffffff, r.message_id
         FROM retained AS r LEFT JOIN tenants AS t USING (tenant_no)
         LEFT JOIN counters AS c ON c.tenant_no = r.tenant_no
         WHERE (r.log_id & 0xfffffffffff) > coalesce(c.head, 0) OR r.log_id >> 44 <> r.tenant_no LIMIT 1000",
    )
    .fetch_all(&mut *connection)
    .await
    .during(OPERATION)?;
    for (tenant, offset, message_id) in retained {
        judge.found(FindingKind::RetainedOutOfRange, tenant, Subject::Message { offset, message_id });
    }
    let by_device = [
        (
            FindingKind::RegistrationDangling,
            "SELECT t.tenant_id, r.device_id
             FROM push_registrations AS r LEFT JOIN tenants AS t USING (tenant_no)
             LEFT JOIN devices AS d ON d.tenant_no = r.tenant_no AND d.device_id = r.device_id
             WHERE d.device_id IS NULL",
        ),
        (
            FindingKind::WakeDangling,
            "SELECT t.tenant_id, w.device_id
             FROM wakes AS w LEFT JOIN tenants AS t USING (tenant_no)
             LEFT JOIN push_registrations AS r ON r.tenant_no = w.tenant_no AND r.device_id = w.device_id
             WHERE r.device_id IS NULL",
        ),
        (
            FindingKind::WakeMisfiled,
            "SELECT t.tenant_id, w.device_id
             FROM wakes AS w LEFT JOIN tenants AS t USING (tenant_no)
             JOIN push_registrations AS r ON r.tenant_no = w.tenant_no AND r.device_id = w.device_id
             WHERE (w.platform, w.app) <> (r.platform, r.app)",
        ),
    ];
    for (kind, statement) in by_device {
        let mut rows = sqlx::query_as::<_, (Option<Uuid>, Uuid)>(statement).fetch(&mut *connection);
        while let Some((tenant, device)) = rows.try_next().await.during(OPERATION)? {
            judge.found(kind, tenant, Subject::Device(device));
        }
    }
    {
        let mut rows = sqlx::query_as::<_, (Uuid, i64)>(
            "SELECT e.tenant_id, e.epoch FROM epoch_keys AS e LEFT JOIN tenants AS t USING (tenant_id)
             WHERE t.tenant_id IS NULL",
        )
        .fetch(&mut *connection);
        while let Some((tenant, epoch)) = rows.try_next().await.during(OPERATION)? {
            let subject = Subject::Epoch(u32::try_from(epoch).unwrap_or_default());
            judge.found(FindingKind::EpochKeyOfNoTenant, Some(tenant), subject);
        }
    }
    let mut rows = sqlx::query_as::<_, (Uuid, Uuid)>(
        "SELECT k.tenant_id, k.key_id FROM data_keys AS k LEFT JOIN epoch_keys AS e USING (tenant_id, epoch)
         WHERE e.epoch IS NULL",
    )
    .fetch(connection);
    while let Some((tenant, key)) = rows.try_next().await.during(OPERATION)? {
        judge.found(FindingKind::DataKeyOfNoEpochKey, Some(tenant), Subject::Key(key));
    }
    Ok(())
}
