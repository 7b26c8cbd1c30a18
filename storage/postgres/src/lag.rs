//! How much waits in the outbox and in each lane.
//!
//! Lanes are found by skipping from one to the next in the index, and counted up to a bound each: a look costs no
//! more with a million sleeping devices than with that many. Of what may be claimed later the rows are read, to tell
//! those under a lease; the rest is counted in the index.

use sotto_model::UnixMillis;
use sotto_storage::outbox::{LAG_COUNT_MAX, LANES_MAX, LaneLag, OutboxLag};
use sotto_storage::push_registry::Lane;
use sqlx::PgConnection;

use crate::column::{self, bigint};
use crate::fault::Fault;

pub(crate) async fn lag(connection: &mut PgConnection, now: UnixMillis) -> Result<OutboxLag, Fault> {
    let (messages, oldest, dead_letters): (i64, Option<i64>, i64) = sqlx::query_as(
        "SELECT (SELECT COALESCE(sum(cardinality(ordinals)), 0)::bigint FROM outbox), \
             (SELECT min(committed_at_ms) FROM outbox), (SELECT count(*) FROM dead_letters)",
    )
    .fetch_one(&mut *connection)
    .await?;
    let rows: Vec<LaneRow> = sqlx::query_as(LANES)
        .bind(bigint(now.0))
        .bind(column::limit(LAG_COUNT_MAX))
        .bind(column::limit(LANES_MAX))
        .fetch_all(connection)
        .await?;
    let lanes = rows.into_iter().map(lane_lag).collect::<Result<Vec<_>, _>>()?;
    Ok(OutboxLag {
        messages: column::unsigned(messages)?,
        oldest: oldest.map(column::time).transpose()?,
        wakeups_due: lanes.iter().map(|lane| lane.due + lane.waiting + lane.leased).sum(),
        dead_letters: column::unsigned(dead_letters)?,
        lanes,
    })
}

type LaneRow = (i16, String, i64, i64, i64, i64, Option<i64>);

fn lane_lag(row: LaneRow) -> Result<LaneLag, Fault> {
    let (platform, app, due, waiting, leased, sent, oldest_due) = row;
    Ok(LaneLag {
        lane: Lane { platform: column::platform(platform)?, app: app.into() },
        due: column::unsigned(due)?,
        waiting: column::unsigned(waiting)?,
        leased: column::unsigned(leased)?,
        sent: column::unsigned(sent)?,
        oldest_due: oldest_due.map(column::time).transpose()?,
    })
}

const LANES: &str = "
WITH RECURSIVE lanes AS (
    (SELECT platform, app FROM wakes ORDER BY platform, app LIMIT 1)
    UNION ALL
    SELECT next.platform, next.app
    FROM lanes l CROSS JOIN LATERAL (
        SELECT w.platform, w.app FROM wakes w WHERE (w.platform, w.app) > (l.platform, l.app)
        ORDER BY w.platform, w.app LIMIT 1
    ) next
)
SELECT l.platform, l.app,
    (SELECT count(*) FROM (
        SELECT FROM wakes w WHERE w.platform = l.platform AND w.app = l.app AND NOT w.sent AND w.due_at_ms <= $1
        LIMIT $2
    ) d),
    later.waiting, later.leased,
    (SELECT count(*) FROM (
        SELECT FROM wakes w WHERE w.platform = l.platform AND w.app = l.app AND w.sent LIMIT $2
    ) s),
    (SELECT min(w.due_at_ms) FROM wakes w
        WHERE w.platform = l.platform AND w.app = l.app AND NOT w.sent AND w.due_at_ms <= $1)
FROM (SELECT platform, app FROM lanes LIMIT $3) l
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE lease IS NULL) AS waiting, count(*) FILTER (WHERE lease IS NOT NULL) AS leased
    FROM (
        SELECT w.lease FROM wakes w
        WHERE w.platform = l.platform AND w.app = l.app AND NOT w.sent AND w.due_at_ms > $1
        LIMIT $2
    ) r
) later
";
