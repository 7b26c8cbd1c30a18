//! How a wakeup becomes due: the end of every statement that makes one so.
//!
//! ```text
//! wanted ──▶ candidates ──▶ booked ──▶ placed ──▶ due
//! devices    those that     quotas     when       rows of wakes
//!            are changed
//! ```
//!
//! Locks are taken in one order: quotas by tenant, then registrations and their wakeups by device.

use sotto_model::UnixMillis;
use sotto_storage::outbox::PUSH_TTL;
use sotto_storage::wakeup_quota::{BOOKED_AHEAD_MAX, WakeupQuota};

use crate::column::bigint;

/// A statement in two forms, with and without a quota. `$before` ends with `wanted`, which has a row a device:
/// `device_id`, `urgency` and `due_since_ms`; `$after` may count `due`. `$1` to `$5` are [`Terms`].
macro_rules! makes_due {
    ($before:expr, $after:expr) => {
        $crate::wake_due::MakesDue {
            free: concat!(
                $before,
                $crate::wake_due::candidates!(),
                "
), placed AS (
    SELECT device_id, urgency, due_since_ms, $1 AS due_at_ms FROM candidates
",
                $crate::wake_due::due!(),
                $after
            ),
            within_quota: concat!(
                $before,
                $crate::wake_due::candidates!(),
                "
), booked AS (
    INSERT INTO wake_quotas AS q (tenant_id, urgent_next_us, next_us)
    SELECT tenant_id, $1 * 1000 + $3 * count(*) FILTER (WHERE urgency = 2), $1 * 1000 + $3 * count(*)
    FROM candidates GROUP BY tenant_id ORDER BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET
        urgent_next_us = LEAST(GREATEST(q.urgent_next_us, $1 * 1000), $5)
            + excluded.urgent_next_us - $1 * 1000,
        next_us = LEAST(GREATEST(q.next_us, $1 * 1000), $5) + excluded.next_us - $1 * 1000
    RETURNING tenant_id, urgent_next_us, next_us
), placed AS (
    -- Counted from the last place taken: the newest has it.
    SELECT c.device_id, c.urgency, c.due_since_ms, GREATEST($1, (
        CASE c.urgency WHEN 2 THEN b.urgent_next_us ELSE b.next_us END - $4 - $3 * row_number() OVER (
            PARTITION BY c.tenant_id, c.urgency ORDER BY c.due_since_ms DESC, c.device_id
        )
    ) / 1000) AS due_at_ms
    FROM candidates c JOIN booked b USING (tenant_id)
",
                $crate::wake_due::due!(),
                $after
            ),
        }
    };
}
pub(crate) use makes_due;

/// What stands as it is costs a quota nothing and is not locked.
macro_rules! candidates {
    () => {
        "
), candidates AS MATERIALIZED (
    SELECT p.device_id, p.tenant_id, n.urgency, n.due_since_ms
    FROM wanted n JOIN push_registrations p USING (device_id) LEFT JOIN wakes w USING (device_id)
    WHERE NOT EXISTS (SELECT FROM sessions s WHERE s.device_id = p.device_id AND s.connected)
        AND (w.device_id IS NULL OR w.urgency < n.urgency OR w.sent AND w.due_at_ms <= $2)
"
    };
}
pub(crate) use candidates;

macro_rules! due {
    () => {
        "
), due AS (
    INSERT INTO wakes AS w (device_id, tenant_id, platform, app, urgency, due_since_ms, due_at_ms)
    SELECT p.device_id, p.tenant_id, p.platform, p.app, n.urgency, n.due_since_ms, n.due_at_ms
    FROM placed n JOIN push_registrations p USING (device_id)
    ORDER BY p.device_id
    -- The registration stays, and in its lane, until the wakeup is committed.
    FOR KEY SHARE OF p
    ON CONFLICT (device_id) DO UPDATE SET
        platform = excluded.platform, app = excluded.app, urgency = GREATEST(w.urgency, excluded.urgency),
        due_since_ms = excluded.due_since_ms, attempts = 0, lease = NULL, sent = false,
        due_at_ms = CASE WHEN w.sent THEN excluded.due_at_ms ELSE LEAST(w.due_at_ms, excluded.due_at_ms) END
    WHERE w.urgency < excluded.urgency OR w.sent AND w.due_at_ms <= $2
    RETURNING 1
)
"
    };
}
pub(crate) use due;

pub(crate) struct MakesDue {
    pub(crate) free: &'static str,
    pub(crate) within_quota: &'static str,
}

/// `$1` to `$5`.
pub(crate) struct Terms {
    pub(crate) now_ms: i64,
    /// What was sent at or before it has gone out of date.
    pub(crate) out_of_date_ms: i64,
    pub(crate) interval_us: Option<i64>,
    pub(crate) tolerance_us: i64,
    /// Where bookings begin at the latest.
    pub(crate) latest_us: i64,
}

impl MakesDue {
    pub(crate) fn statement(&self, terms: &Terms) -> &'static str {
        if terms.interval_us.is_some() { self.within_quota } else { self.free }
    }
}

impl Terms {
    pub(crate) fn of(quota: WakeupQuota, now: UnixMillis) -> Self {
        let now_ms = bigint(now.0);
        let ahead_us = i64::try_from(BOOKED_AHEAD_MAX.as_micros()).expect("a bound of hours");
        Self {
            now_ms,
            out_of_date_ms: now_ms.saturating_sub(i64::try_from(PUSH_TTL.as_millis()).expect("a day")),
            interval_us: quota.interval_us().map(bigint),
            tolerance_us: bigint(quota.tolerance_us()),
            latest_us: now_ms.saturating_mul(1000).saturating_add(ahead_us),
        }
    }
}
