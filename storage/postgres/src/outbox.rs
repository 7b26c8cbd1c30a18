//! From a committed message to the devices that sleep.
//!
//! Several processes may relay and claim at once: each takes rows that no other has locked.

use async_trait::async_trait;
use sotto_model::UnixMillis;
use sotto_storage::StoreError;
use sotto_storage::outbox::{
    ClaimedWakeup, DeadLetter, DeadLetterSelector, Outbox, OutboxLag, Relayed, Replayed, Settlement,
};
use sotto_storage::push_registry::Lane;
use sotto_storage::wakeup_quota::WakeupQuota;
use sqlx::PgConnection;

use crate::column;
use crate::fault::Fault;
use crate::lane::within;
use crate::limits::RELAY_MEMBERS_MAX;
use crate::low_watermark::LowWatermark;
use crate::store::PostgresStore;
use crate::wake_due::{MakesDue, Terms, makes_due};
use crate::{claims, dead_letters, lag, settlements, wake_check};

#[async_trait]
impl Outbox for PostgresStore {
    async fn relay(&self, limit: usize, now: UnixMillis) -> Result<Relayed, StoreError> {
        let terms = self.terms(now);
        let mut held = self.control.hold("relay outbox").await?;
        let result = within(relay(held.connection(), &self.outbox_scan, limit, now, &terms)).await;
        held.settle(result)
    }

    async fn claim(
        &self,
        lane: &Lane,
        limit: usize,
        now: UnixMillis,
        lease_until: UnixMillis,
    ) -> Result<Vec<ClaimedWakeup>, StoreError> {
        let scan = self.wake_scans.of(lane);
        let mut held = self.control.hold("claim wakeups").await?;
        let claimed = claims::claim(held.connection(), &scan, lane, limit, now, lease_until);
        let result = within(claimed).await;
        held.settle(result)
    }

    async fn still_due(&self, wakeup: &ClaimedWakeup) -> Result<bool, StoreError> {
        let mut held = self.control.hold("check wakeup").await?;
        let result = within(claims::still_due(held.connection(), wakeup)).await;
        held.settle(result)
    }

    async fn settle_many(
        &self,
        settlements: &[(ClaimedWakeup, Settlement)],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut held = self.control.hold("settle wakeups").await?;
        let result = within(settlements::settle_many(held.connection(), settlements, now)).await;
        held.settle(result)
    }

    fn set_wakeup_quota(&self, quota: WakeupQuota) {
        self.wakeup_quota.set(quota);
    }

    async fn lag(&self, now: UnixMillis) -> Result<OutboxLag, StoreError> {
        let mut held = self.control.hold("read outbox lag").await?;
        let result = within(lag::lag(held.connection(), now)).await;
        held.settle(result)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut held = self.control.hold("read dead letters").await?;
        let result = within(dead_letters::latest(held.connection(), limit)).await;
        held.settle(result)
    }

    async fn replay_dead_letters(
        &self,
        selector: DeadLetterSelector,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Replayed, StoreError> {
        let terms = self.terms(now);
        let mut held = self.control.hold("replay dead letters").await?;
        let result = within(dead_letters::replay(held.connection(), selector, limit, &terms)).await;
        held.settle(result)
    }

    async fn purge_dead_letters(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let mut held = self.control.hold("purge dead letters").await?;
        let result = within(dead_letters::purge(held.connection(), before, limit)).await;
        held.settle(result)
    }
}

impl PostgresStore {
    pub(crate) fn terms(&self, now: UnixMillis) -> Terms {
        Terms::of(self.wakeup_quota.quota(), now)
    }
}

async fn relay(
    connection: &mut PgConnection,
    scan: &LowWatermark,
    limit: usize,
    now: UnixMillis,
    terms: &Terms,
) -> Result<Relayed, Fault> {
    // Closes whose second step failed are finished here; there are hardly ever any.
    wake_check::finish(connection, terms).await?;
    let (rows, messages, reached, wakeups, cut): (i64, i64, Option<i64>, i64, bool) =
        sqlx::query_as(RELAY.statement(terms))
            .bind(terms.now_ms)
            .bind(terms.out_of_date_ms)
            .bind(terms.interval_us)
            .bind(terms.tolerance_us)
            .bind(terms.latest_us)
            .bind(scan.start(now))
            .bind(column::limit(limit))
            .bind(column::limit(RELAY_MEMBERS_MAX))
            .fetch_one(connection)
            .await?;
    if let Some(reached) = reached {
        scan.reached(reached);
    }
    Ok(Relayed {
        messages: column::unsigned(messages)?,
        wakeups: column::unsigned(wakeups)?,
        full: rows == column::limit(limit) || cut,
    })
}

/// Rows are taken until those of their conversations' members that are counted are many: what a turn does is bounded,
/// however large conversations are.
///
/// One statement: the outbox rows go in the transaction that makes the wakeups due, and both see the same
/// moment. Of the messages of one sender in one topic only the last matters: who is behind an earlier one
/// is behind the last. Members and sessions are looked up by index, group by group.
const RELAY: MakesDue = makes_due!(
    "
WITH picked AS MATERIALIZED (
    SELECT outbox_id, topic_ids FROM outbox WHERE outbox_id > $6 ORDER BY outbox_id LIMIT $7
    FOR UPDATE SKIP LOCKED
), reach AS MATERIALIZED (
    SELECT max(outbox_id) AS outbox_id, count(*) = $8 AS cut
    FROM (
        SELECT f.outbox_id
        FROM (
            SELECT topic_id, min(outbox_id) AS outbox_id FROM picked CROSS JOIN UNNEST(topic_ids) AS topic_id
            GROUP BY topic_id ORDER BY outbox_id
        ) f
        CROSS JOIN LATERAL (
            SELECT FROM topics t LEFT JOIN memberships mb
                ON mb.tenant_id = t.tenant_id AND mb.conversation_id = t.conversation_id
            WHERE t.topic_id = f.topic_id
        ) m
        LIMIT $8
    ) r
), taken AS (
    DELETE FROM outbox WHERE outbox_id IN (
        SELECT p.outbox_id FROM picked p CROSS JOIN reach r WHERE NOT r.cut OR p.outbox_id <= r.outbox_id
    )
    RETURNING outbox_id, base_offset, ordinals, topic_ids, sender_ids, expiries_ms, urgency, committed_at_ms
), last AS (
    SELECT m.topic_id, m.sender_id, urgency, max(base_offset + m.ordinal) AS log_offset,
        min(committed_at_ms) AS committed_at_ms
    FROM taken CROSS JOIN UNNEST(ordinals, topic_ids, sender_ids, expiries_ms)
        AS m (ordinal, topic_id, sender_id, expires_at_ms)
    WHERE expires_at_ms IS NULL OR expires_at_ms > $1
    GROUP BY topic_id, sender_id, urgency
), behind AS (
    SELECT s.device_id, CASE WHEN mb.muted THEN 1 ELSE l.urgency END AS urgency, l.committed_at_ms
    FROM last l
    JOIN topics t USING (topic_id)
    JOIN memberships mb ON mb.conversation_id = t.conversation_id AND mb.tenant_id = t.tenant_id
    JOIN sessions s ON s.user_id = mb.user_id AND s.tenant_id = t.tenant_id
    WHERE mb.user_id <> l.sender_id AND mb.since_offset < l.log_offset AND s.device_id IS NOT NULL
        AND NOT s.connected AND s.cursor_offset < l.log_offset
        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > $1)
    UNION ALL
    SELECT s.device_id, l.urgency, l.committed_at_ms
    FROM last l
    JOIN topics t USING (topic_id)
    JOIN sessions s ON s.user_id = t.user_id AND s.tenant_id = t.tenant_id
    WHERE t.user_id <> l.sender_id AND s.device_id IS NOT NULL
        AND NOT s.connected AND s.cursor_offset < l.log_offset
        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > $1)
), wanted AS (
    SELECT DISTINCT ON (device_id) device_id, urgency, committed_at_ms AS due_since_ms
    FROM behind ORDER BY device_id, urgency DESC, committed_at_ms
",
    "
SELECT count(*), COALESCE(sum(cardinality(ordinals)), 0)::bigint, max(outbox_id), (SELECT count(*) FROM due),
    (SELECT cut FROM reach)
FROM taken
"
);
