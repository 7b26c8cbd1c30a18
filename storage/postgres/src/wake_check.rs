//! Whether a session that was closed leaves its device behind, so that it is to be woken.
//!
//! A close is two steps. The first marks the session disconnected and `wake_check`, and commits; the second
//! looks for messages after the cursor, makes the wakeup due and clears the mark. In one step a wakeup
//! could be lost between a close and the relay:
//!
//! ```text
//! close: begins, finds no message after the cursor
//!                                                     writer: commits a message and its outbox row
//!                                                     relay: takes the row, sees the session connected, wakes nobody
//! close: commits, disconnected and not woken
//! ```
//!
//! In two, the look comes after everybody can see that the session is disconnected. A message is then
//! either committed before the look, which finds it; or after it, and then its outbox row is relayed after
//! that too, and the relay sees the session disconnected. A process that dies in between leaves the mark,
//! and the next start or the next turn of the relay finishes it.

use sqlx::PgConnection;

use crate::column;
use crate::fault::Fault;
use crate::limits::WAKE_CHECKS_PER_TURN;
use crate::wake_due::{MakesDue, Terms, makes_due};
use crate::weeks::week_since;

/// Decides for marked sessions, some at a time. Returns how many.
pub(crate) async fn finish(connection: &mut PgConnection, terms: &Terms) -> Result<u64, Fault> {
    let checked = sqlx::query_scalar(FINISH.statement(terms))
        .bind(terms.now_ms)
        .bind(terms.out_of_date_ms)
        .bind(terms.interval_us)
        .bind(terms.tolerance_us)
        .bind(terms.latest_us)
        .bind(column::limit(WAKE_CHECKS_PER_TURN))
        .fetch_one(connection)
        .await?;
    column::unsigned(checked)
}

/// Whether the session `c` is behind a message that wakes: in one of its user's conversations, or in the inbox.
macro_rules! is_behind {
    ($message:literal, $membership:literal) => {
        concat!(
            "(EXISTS (
            SELECT FROM memberships mb
            JOIN topics t ON t.conversation_id = mb.conversation_id AND t.tenant_id = mb.tenant_id
            CROSS JOIN LATERAL (
                SELECT FROM messages m
                WHERE m.topic_id = t.topic_id AND m.log_offset > GREATEST(c.cursor_offset, mb.since_offset)
                    AND m.committed_at_ms >= since.week_ms AND m.wakes ",
            $message,
            " AND m.sender_id <> c.user_id
                    AND (m.expires_at_ms IS NULL OR m.expires_at_ms > $1)
                LIMIT 1
            ) m
            WHERE mb.user_id = c.user_id AND mb.tenant_id = c.tenant_id ",
            $membership,
            "
        )
        OR EXISTS (
            SELECT FROM topics t
            CROSS JOIN LATERAL (
                SELECT FROM messages m
                WHERE m.topic_id = t.topic_id AND m.log_offset > c.cursor_offset
                    AND m.committed_at_ms >= since.week_ms AND m.wakes ",
            $message,
            " AND m.sender_id <> c.user_id
                    AND (m.expires_at_ms IS NULL OR m.expires_at_ms > $1)
                LIMIT 1
            ) m
            WHERE t.user_id = c.user_id AND t.tenant_id = c.tenant_id
        ))"
        )
    };
}

/// One statement, so one look: marks, messages and registrations are all of the same moment. What is not urgent is
/// looked for only where nothing urgent was found.
const FINISH: MakesDue = makes_due!(
    concat!(
        "
WITH checked AS (
    SELECT session_id, tenant_id, user_id, device_id, cursor_offset, expires_at_ms,
        octet_length(inflight) > 0 AS unacknowledged
    FROM sessions WHERE wake_check ORDER BY session_id LIMIT $6
    FOR NO KEY UPDATE SKIP LOCKED
), behind AS (
    SELECT c.device_id, CASE WHEN c.unacknowledged OR ",
        is_behind!("AND NOT m.low", "AND NOT mb.muted"),
        " THEN 2 WHEN ",
        is_behind!("", ""),
        " THEN 1 END AS urgency
    FROM checked c JOIN push_registrations p USING (device_id)
    -- The weeks in which something after the cursor may be.
    CROSS JOIN LATERAL (
        SELECT ",
        week_since!("c.tenant_id", "c.cursor_offset"),
        " AS week_ms
    ) since
    WHERE (c.expires_at_ms IS NULL OR c.expires_at_ms > $1)
), wanted AS (
    SELECT device_id, max(urgency) AS urgency, $1::bigint AS due_since_ms
    FROM behind WHERE urgency IS NOT NULL GROUP BY device_id
"
    ),
    ", cleared AS (
    UPDATE sessions s SET wake_check = false FROM checked c WHERE s.session_id = c.session_id
)
SELECT count(*) FROM checked
"
);
