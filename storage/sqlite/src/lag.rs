//! How much waits in the outbox and in each lane.
//!
//! Lanes are found by skipping from one to the next in the index, and counted up to a bound each: a look costs no
//! more with a million sleeping devices than with that many.

use sotto_model::UnixMillis;
use sotto_storage::StoreError;
use sotto_storage::outbox::{LAG_COUNT_MAX, LANES_MAX, LaneLag, OutboxLag};
use sotto_storage::push_registry::Lane;
use sqlx::SqlitePool;

use crate::error::During;
use crate::number::{count_to_row, from_row, millis, platform, to_row};

const OPERATION: &str = "read lag";

pub(crate) async fn lag(readers: &SqlitePool, now: UnixMillis) -> Result<OutboxLag, StoreError> {
    let (messages, oldest, dead_letters): (i64, Option<i64>, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox),
                (SELECT messages.committed_at_ms FROM outbox JOIN messages USING (log_id)
                 ORDER BY outbox.outbox_id LIMIT 1),
                (SELECT count(*) FROM dead_letters)",
    )
    .fetch_one(readers)
    .await
    .during(OPERATION)?;
    let rows: Vec<LaneRow> = sqlx::query_as(LANES)
        .bind(to_row(now.0))
        .bind(count_to_row(LAG_COUNT_MAX))
        .bind(count_to_row(LANES_MAX))
        .fetch_all(readers)
        .await
        .during(OPERATION)?;
    let lanes = rows.into_iter().map(lane_lag).collect::<Result<Vec<_>, _>>()?;
    Ok(OutboxLag {
        messages: from_row(messages, "count")?,
        oldest: oldest.map(millis).transpose()?,
        wakeups_due: lanes.iter().map(|lane| lane.due + lane.waiting + lane.leased).sum(),
        dead_letters: from_row(dead_letters, "count")?,
        lanes,
    })
}

type LaneRow = (i64, String, i64, i64, i64, i64, Option<i64>);

fn lane_lag(row: LaneRow) -> Result<LaneLag, StoreError> {
    let (of, app, due, waiting, leased, sent, oldest_due) = row;
    Ok(LaneLag {
        lane: Lane { platform: platform(of)?, app: app.into() },
        due: from_row(due, "count")?,
        waiting: from_row(waiting, "count")?,
        leased: from_row(leased, "count")?,
        sent: from_row(sent, "count")?,
        oldest_due: oldest_due.map(millis).transpose()?,
    })
}

const LANES: &str = "
WITH RECURSIVE lane (platform, app) AS (
    SELECT * FROM (SELECT platform, app FROM wakes ORDER BY platform, app LIMIT 1)
    UNION ALL
    SELECT coalesce(same.platform, next.platform), coalesce(same.app, next.app)
    FROM lane
    -- The next app of this platform, or else the first of the next platform.
    LEFT JOIN wakes AS same ON (same.tenant_no, same.device_id) = (
        SELECT tenant_no, device_id FROM wakes WHERE platform = lane.platform AND app > lane.app
        ORDER BY app LIMIT 1)
    LEFT JOIN wakes AS next ON same.platform IS NULL AND (next.tenant_no, next.device_id) = (
        SELECT tenant_no, device_id FROM wakes WHERE platform > lane.platform
        ORDER BY platform, app LIMIT 1)
    WHERE same.platform IS NOT NULL OR next.platform IS NOT NULL
    LIMIT ?3
)
SELECT platform, app,
    (SELECT count(*) FROM (SELECT 1 FROM wakes WHERE wakes.platform = lane.platform AND wakes.app = lane.app
        AND sent = 0 AND next_attempt_at_ms <= ?1 LIMIT ?2)),
    (SELECT count(*) FROM (SELECT 1 FROM wakes WHERE wakes.platform = lane.platform AND wakes.app = lane.app
        AND sent = 0 AND next_attempt_at_ms > ?1 AND lease = 0 LIMIT ?2)),
    (SELECT count(*) FROM (SELECT 1 FROM wakes WHERE wakes.platform = lane.platform AND wakes.app = lane.app
        AND sent = 0 AND next_attempt_at_ms > ?1 AND lease <> 0 LIMIT ?2)),
    (SELECT count(*) FROM (SELECT 1 FROM wakes WHERE wakes.platform = lane.platform AND wakes.app = lane.app
        AND sent = 1 LIMIT ?2)),
    (SELECT min(next_attempt_at_ms) FROM wakes WHERE wakes.platform = lane.platform AND wakes.app = lane.app
        AND sent = 0 AND next_attempt_at_ms <= ?1)
FROM lane
";
