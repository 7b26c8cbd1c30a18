//! From outbox rows to wakeups, and what becomes of those.

use async_trait::async_trait;
use sotto_model::{DeviceId, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::outbox::{
    ClaimedWakeup, DeadLetter, DeadLetterSelector, Outbox, OutboxLag, Relayed, Replayed, Settlement,
};
use sotto_storage::push_registry::Lane;
use sotto_storage::wakeup_quota::WakeupQuota;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::limits::RELAY_MEMBERS_MAX;
use crate::log_id::TenantNo;
use crate::number::{count_to_row, millis, to_row, urgency};
use crate::store::SqliteStore;
use crate::wakes::{Wanted, asleep, out_of_date, put_off, stands};
use crate::{claims, dead_letters, lag, settlements};

#[async_trait]
impl Outbox for SqliteStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        // Asked of a reader first: polling an empty outbox takes no write lock.
        let (any,): (bool,) = sqlx::query_as("SELECT EXISTS (SELECT 1 FROM outbox)")
            .fetch_one(&self.readers)
            .await
            .during("relay")?;
        if !any {
            return Ok(Relayed::default());
        }
        let mut transaction = self.writer.begin("relay").await?;
        let result = relay(transaction.connection(), limit, self.wakeup_quota.quota(), now).await;
        transaction.finish(result).await
    }

    async fn claim(
        &self,
        lane: &Lane,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        let (any,): (bool,) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM wakes
                 WHERE platform = ? AND app = ? AND sent = 0 AND next_attempt_at_ms <= ?)",
        )
        .bind(lane.platform as u8)
        .bind(&*lane.app)
        .bind(to_row(now.0))
        .fetch_one(&self.readers)
        .await
        .during("claim")?;
        if !any {
            return Ok(Vec::new());
        }
        let mut transaction = self.writer.begin("claim").await?;
        let result = claims::claim(transaction.connection(), lane, limit, now, lease_until).await;
        transaction.finish(result).await
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        let (due,): (bool,) = sqlx::query_as(concat!(
            "SELECT EXISTS (SELECT 1 FROM wakes JOIN tenants USING (tenant_no)
                 WHERE tenants.tenant_id = ?2 AND wakes.device_id = ?3
                   AND wakes.lease = ?4 AND wakes.sent = 0 AND ",
            asleep!(),
            ")"
        ))
        // No clock here: a session that expires in this very moment may cost one needless push.
        .bind(0_i64)
        .bind(wakeup.tenant.0)
        .bind(wakeup.device.0)
        .bind(to_row(wakeup.lease))
        .fetch_one(&self.readers)
        .await
        .during("check wakeup")?;
        Ok(due)
    }

    async fn settle_many(
        &self,
        settlements: &[(ClaimedWakeup, Settlement)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin("settle").await?;
        let connection = transaction.connection();
        let result = settlements::settle_many(connection, &self.tenants, settlements, now).await;
        transaction.finish(result).await
    }

    fn set_wakeup_quota(&self, quota: WakeupQuota) {
        self.wakeup_quota.set(quota);
    }

    async fn lag(&self, now: UnixMillis) -> Result<OutboxLag, StoreError> {
        lag::lag(&self.readers, now).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        dead_letters::latest(&self.readers, limit).await
    }

    async fn replay_dead_letters(
        &self,
        selector: DeadLetterSelector,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Replayed, StoreError> {
        let quota = self.wakeup_quota.quota();
        let mut transaction = self.writer.begin("replay dead letters").await?;
        let result = dead_letters::replay(transaction.connection(), selector, limit, quota, now).await;
        transaction.finish(result).await
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut transaction = self.writer.begin("purge dead letters").await?;
        let result = dead_letters::purge(transaction.connection(), before, limit).await;
        transaction.finish(result).await
    }
}

/// Messages are taken until those of their conversations' members that are counted are many: what a turn does is
/// bounded, however large conversations are.
async fn relay(
    connection: &mut SqliteConnection,
    limit: usize,
    quota: WakeupQuota,
    now: UnixMillis,
) -> Result<Relayed, StoreError> {
    const OPERATION: &str = "relay";
    let (last, cut): (Option<i64>, bool) = sqlx::query_as(
        "WITH picked AS MATERIALIZED (
             SELECT outbox.outbox_id, messages.topic_id
             FROM (SELECT outbox_id, log_id FROM outbox ORDER BY outbox_id LIMIT ?1) AS outbox
             LEFT JOIN messages ON messages.log_id = outbox.log_id),
         first AS MATERIALIZED (
             SELECT topic_id, min(outbox_id) AS outbox_id FROM picked GROUP BY topic_id ORDER BY 2),
         reach (outbox_id, members) AS MATERIALIZED (
             SELECT max(outbox_id), count(*) FROM (
                 SELECT first.outbox_id
                 FROM first CROSS JOIN topics ON topics.topic_id = first.topic_id
                 LEFT JOIN memberships ON topics.scope_kind = 1 AND memberships.tenant_no = topics.tenant_no
                     AND memberships.conversation_id = topics.scope_id
                 LIMIT ?2))
         SELECT CASE WHEN reach.members = ?2 THEN reach.outbox_id ELSE (SELECT max(outbox_id) FROM picked) END,
                reach.members = ?2
         FROM reach",
    )
    .bind(count_to_row(limit))
    .bind(count_to_row(RELAY_MEMBERS_MAX))
    .fetch_one(&mut *connection)
    .await
    .during(OPERATION)?;
    let Some(last) = last else { return Ok(Relayed::default()) };
    let wakeups = if quota.interval_us().is_none() {
        let made_due = sqlx::query(MAKE_DUE)
            .bind(last)
            .bind(to_row(now.0))
            .bind(out_of_date(now))
            .execute(&mut *connection)
            .await
            .during(OPERATION)?;
        made_due.rows_affected()
    } else {
        let made_due: Vec<DueRow> = sqlx::query_as(MAKE_DUE_AND_SAY)
            .bind(last)
            .bind(to_row(now.0))
            .bind(out_of_date(now))
            .fetch_all(&mut *connection)
            .await
            .during(OPERATION)?;
        let count = made_due.len() as u64;
        let made_due = made_due.into_iter().map(wanted).collect::<Result<Vec<_>, _>>()?;
        put_off(connection, made_due, quota, now).await?;
        count
    };
    let rows = sqlx::query("DELETE FROM outbox WHERE outbox_id <= ?")
        .bind(last)
        .execute(connection)
        .await
        .during(OPERATION)?;
    Ok(Relayed { messages: rows.rows_affected(), wakeups, full: cut || rows.rows_affected() >= limit as u64 })
}

type DueRow = (i64, Uuid, i64, i64);

fn wanted((tenant, device, how, due_since): DueRow) -> Result<Wanted, StoreError> {
    Ok(Wanted {
        tenant: TenantNo::from_row(tenant)?,
        device: DeviceId(device),
        urgency: urgency(how)?,
        due_since: millis(due_since)?,
    })
}

/// A member is behind if any message of another's is after both bounds, so of each sender's messages
/// to a conversation only the last counts: the join grows with conversations, not with messages.
macro_rules! make_due {
    () => {
        concat!(
            "WITH last_message (tenant_no, scope_kind, scope_id, sender, urgency, log_id, committed_at_ms)
             AS MATERIALIZED (
             SELECT topics.tenant_no, topics.scope_kind, topics.scope_id, messages.sender,
                    CASE messages.wakes WHEN 2 THEN 1 ELSE 2 END, max(messages.log_id),
                    min(messages.committed_at_ms)
             FROM outbox
             CROSS JOIN messages ON messages.log_id = outbox.log_id
             CROSS JOIN topics ON topics.topic_id = messages.topic_id
             WHERE outbox.outbox_id <= ?1 AND topics.scope_kind <> 0
               AND (messages.expires_at_ms IS NULL OR messages.expires_at_ms > ?2)
             GROUP BY 1, 2, 3, 4, 5),
         recipient (tenant_no, user_id, log_id, urgency, committed_at_ms) AS (
             SELECT last_message.tenant_no, memberships.user_id, last_message.log_id,
                    CASE WHEN memberships.muted THEN 1 ELSE last_message.urgency END,
                    last_message.committed_at_ms
             FROM last_message CROSS JOIN memberships
             ON memberships.tenant_no = last_message.tenant_no
                AND memberships.conversation_id = last_message.scope_id
             WHERE last_message.scope_kind = 1 AND memberships.user_id <> last_message.sender
               AND (memberships.tenant_no << 44) + memberships.since < last_message.log_id
             UNION ALL
             SELECT tenant_no, scope_id, log_id, urgency, committed_at_ms FROM last_message
             WHERE scope_kind = 2 AND scope_id <> sender),
         -- The most urgent, and of those the oldest: the other columns are those of the row with the maximum.
         wanted (tenant_no, device_id, platform, app, urgency, committed_at_ms, rank) AS (
             SELECT sessions.tenant_no, sessions.device_id, registration.platform, registration.app,
                    recipient.urgency, recipient.committed_at_ms,
                    max((recipient.urgency << 60) - recipient.committed_at_ms)
             FROM recipient
             CROSS JOIN sessions
                 ON sessions.tenant_no = recipient.tenant_no AND sessions.user_id = recipient.user_id
             CROSS JOIN push_registrations AS registration
                 ON registration.tenant_no = sessions.tenant_no
                AND registration.device_id = sessions.device_id
             WHERE sessions.connected = 0
               AND (sessions.expires_at_ms IS NULL OR sessions.expires_at_ms > ?2)
               AND (sessions.tenant_no << 44) + sessions.cursor < recipient.log_id
               AND NOT EXISTS (SELECT 1 FROM sessions AS live
                       WHERE live.tenant_no = sessions.tenant_no AND live.device_id = sessions.device_id
                         AND live.connected = 1)
             GROUP BY sessions.tenant_no, sessions.device_id)
         INSERT INTO wakes (tenant_no, device_id, platform, app, urgency, due_since_at_ms, next_attempt_at_ms)
         SELECT tenant_no, device_id, platform, app, urgency, committed_at_ms, ?2 FROM wanted WHERE rank > 0 ",
            stands!("?2", "?3")
        )
    };
}

const MAKE_DUE: &str = make_due!();
const MAKE_DUE_AND_SAY: &str =
    concat!(make_due!(), " RETURNING tenant_no, device_id, urgency, due_since_at_ms");
