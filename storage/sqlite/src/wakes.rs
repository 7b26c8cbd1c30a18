//! Which devices sleep and have something to wake for.
//!
//! A wakeup can be lost between the two that may make it due: the relay, which passes over a connected
//! session, and the close of that session, which passes over a message that it does not see yet. Here
//! neither can miss the other. Both decide and write in one transaction under the write lock, and so does
//! every append: a message is committed either before the close, which sees it, or after, and then the
//! relay that takes its outbox row finds the session disconnected.

use std::cmp::Reverse;

use sotto_model::{DeviceId, UnixMillis, Urgency};
use sotto_storage::StoreError;
use sotto_storage::outbox::PUSH_TTL;
use sotto_storage::wakeup_quota::{Booked, WakeupQuota};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::{from_row, to_row, urgency};

/// Whether the device of `wakes` sleeps at `?1`: it has a stored session that may yet be taken up, and
/// none that is connected.
macro_rules! asleep {
    () => {
        "(EXISTS (SELECT 1 FROM sessions AS stored
                  WHERE stored.tenant_no = wakes.tenant_no AND stored.device_id = wakes.device_id
                    AND stored.connected = 0
                    AND (stored.expires_at_ms IS NULL OR stored.expires_at_ms > ?1))
          AND NOT EXISTS (SELECT 1 FROM sessions AS live
                  WHERE live.tenant_no = wakes.tenant_no AND live.device_id = wakes.device_id
                    AND live.connected = 1))"
    };
}
pub(crate) use asleep;

/// How a wakeup that is outstanding takes another: it stands, unless it is less urgent or went out of date at `$sent`.
macro_rules! stands {
    ($now:literal, $sent:literal) => {
        concat!(
            "ON CONFLICT DO UPDATE SET platform = excluded.platform, app = excluded.app,
                 urgency = max(urgency, excluded.urgency), due_since_at_ms = excluded.due_since_at_ms,
                 attempts = 0, lease = 0, sent = 0, next_attempt_at_ms = ",
            $now,
            " WHERE urgency < excluded.urgency OR (sent = 1 AND next_attempt_at_ms <= ",
            $sent,
            ")"
        )
    };
}
pub(crate) use stands;

/// What a device is to be woken for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) tenant: TenantNo,
    pub(crate) device: DeviceId,
    pub(crate) urgency: Urgency,
    pub(crate) due_since: UnixMillis,
}

/// What was sent at or before it has gone out of date.
pub(crate) fn out_of_date(now: UnixMillis) -> i64 {
    to_row(now.0).saturating_sub(i64::try_from(PUSH_TTL.as_millis()).expect("a day"))
}

/// Makes a wakeup due for the device of a session that has just been marked disconnected, if it is behind:
/// something is in flight, or a message that wakes was committed after its cursor, by somebody else, to a
/// conversation or the inbox of its user.
pub(crate) async fn wake_if_behind(
    connection: &mut SqliteConnection,
    session_id: i64,
    quota: WakeupQuota,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let behind: Option<(i64, Uuid, Option<i64>)> = sqlx::query_as(BEHIND)
        .bind(session_id)
        .bind(to_row(now.0))
        .fetch_optional(&mut *connection)
        .await
        .during("look for what a session is behind")?;
    let Some((tenant, device, Some(how))) = behind else { return Ok(()) };
    let wanted = Wanted {
        tenant: TenantNo::from_row(tenant)?,
        device: DeviceId(device),
        urgency: urgency(how)?,
        due_since: now,
    };
    make_due(connection, &wanted, quota, now).await?;
    Ok(())
}

/// Whether there is a message after the cursor of `ended`, of those that `$message` and `$membership` leave.
macro_rules! is_behind {
    ($message:literal, $membership:literal) => {
        concat!(
            "(EXISTS (SELECT 1
                   FROM memberships AS membership
                   CROSS JOIN topics AS topic
                     ON topic.tenant_no = membership.tenant_no AND topic.scope_kind = 1
                    AND topic.scope_id = membership.conversation_id
                   CROSS JOIN messages AS message
                     ON message.topic_id = topic.topic_id
                    AND message.log_id > (membership.tenant_no << 44) + max(membership.since, ended.cursor)
                   WHERE membership.tenant_no = ended.tenant_no AND membership.user_id = ended.user_id
                     AND message.sender <> ended.user_id AND ",
            $message,
            " AND ",
            $membership,
            "        AND (message.expires_at_ms IS NULL OR message.expires_at_ms > ?2))
              OR EXISTS (SELECT 1
                   FROM topics AS topic
                   CROSS JOIN messages AS message
                     ON message.topic_id = topic.topic_id
                    AND message.log_id > (topic.tenant_no << 44) + ended.cursor
                   WHERE topic.tenant_no = ended.tenant_no AND topic.scope_kind = 2
                     AND topic.scope_id = ended.user_id
                     AND message.sender <> ended.user_id AND ",
            $message,
            "        AND (message.expires_at_ms IS NULL OR message.expires_at_ms > ?2)))"
        )
    };
}

/// What is not urgent is looked for only where nothing urgent was found.
const BEHIND: &str = concat!(
    "SELECT ended.tenant_no, ended.device_id, CASE WHEN length(ended.inflight) > 0 OR ",
    is_behind!("message.wakes = 1", "membership.muted = 0"),
    " THEN 2 WHEN ",
    is_behind!("message.wakes <> 0", "true"),
    " THEN 1 END
     FROM sessions AS ended CROSS JOIN push_registrations AS registration
     ON registration.tenant_no = ended.tenant_no AND registration.device_id = ended.device_id
     WHERE ended.session_id = ?1 AND ended.connected = 0
       AND (ended.expires_at_ms IS NULL OR ended.expires_at_ms > ?2)
       AND NOT EXISTS (SELECT 1 FROM sessions AS live
               WHERE live.tenant_no = ended.tenant_no AND live.device_id = ended.device_id
                 AND live.connected = 1)"
);

/// For a device that sleeps. False where it has no registration, or a wakeup that stands.
pub(crate) async fn make_due(
    connection: &mut SqliteConnection,
    wanted: &Wanted,
    quota: WakeupQuota,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let made_due = sqlx::query(concat!(
        "INSERT INTO wakes (tenant_no, device_id, platform, app, urgency, due_since_at_ms, next_attempt_at_ms)
         SELECT tenant_no, device_id, platform, app, ?3, ?4, ?5
         FROM push_registrations WHERE tenant_no = ?1 AND device_id = ?2 ",
        stands!("?5", "?6")
    ))
    .bind(wanted.tenant.to_row())
    .bind(wanted.device.0)
    .bind(wanted.urgency as u8)
    .bind(to_row(wanted.due_since.0))
    .bind(to_row(now.0))
    .bind(out_of_date(now))
    .execute(&mut *connection)
    .await
    .during("make wakeup due")?;
    if made_due.rows_affected() == 0 {
        return Ok(false);
    }
    put_off(connection, vec![*wanted], quota, now).await?;
    Ok(true)
}

/// Books wakeups that have just been made due at `now`, and makes those wait that are over their tenant's quota.
pub(crate) async fn put_off(
    connection: &mut SqliteConnection,
    mut made_due: Vec<Wanted>,
    quota: WakeupQuota,
    now: UnixMillis,
) -> Result<(), StoreError> {
    const OPERATION: &str = "book wakeups";
    let Some(interval_us) = quota.interval_us() else { return Ok(()) };
    let order = |wanted: &Wanted| (wanted.tenant, Reverse(wanted.urgency), wanted.due_since, wanted.device);
    made_due.sort_unstable_by_key(order);
    for of_tenant in made_due.chunk_by(|a, b| a.tenant == b.tenant) {
        let tenant = of_tenant[0].tenant.to_row();
        let urgent = of_tenant.partition_point(|wanted| wanted.urgency == Urgency::High);
        let known: Option<(i64, i64)> =
            sqlx::query_as("SELECT urgent_next_us, next_us FROM wake_quotas WHERE tenant_no = ?")
                .bind(tenant)
                .fetch_optional(&mut *connection)
                .await
                .during(OPERATION)?;
        let (urgent_next_us, next_us) = known.unwrap_or_default();
        let mut booked = Booked {
            urgent_next_us: from_row(urgent_next_us, "urgent_next_us")?,
            next_us: from_row(next_us, "next_us")?,
        };
        let (urgent_us, others_us) =
            booked.take(urgent as u64, (of_tenant.len() - urgent) as u64, interval_us, now.0 * 1000);
        sqlx::query(
            "INSERT INTO wake_quotas (tenant_no, urgent_next_us, next_us) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET urgent_next_us = excluded.urgent_next_us, next_us = excluded.next_us",
        )
        .bind(tenant)
        .bind(to_row(booked.urgent_next_us))
        .bind(to_row(booked.next_us))
        .execute(&mut *connection)
        .await
        .during(OPERATION)?;
        for (from_us, wakeups) in [(urgent_us, &of_tenant[..urgent]), (others_us, &of_tenant[urgent..])] {
            let places = (from_us..).step_by(usize::try_from(interval_us).expect("at most a second"));
            for (wanted, place_us) in wakeups.iter().zip(places) {
                let due_at_ms = place_us.saturating_sub(quota.tolerance_us()) / 1000;
                if due_at_ms > now.0 {
                    wait(connection, wanted, due_at_ms).await?;
                }
            }
        }
    }
    Ok(())
}

async fn wait(connection: &mut SqliteConnection, wanted: &Wanted, until_ms: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE wakes SET next_attempt_at_ms = ? WHERE tenant_no = ? AND device_id = ?")
        .bind(to_row(until_ms))
        .bind(wanted.tenant.to_row())
        .bind(wanted.device.0)
        .execute(connection)
        .await
        .during("make wakeup wait")?;
    Ok(())
}

/// The device is back, or has nowhere to be woken.
pub(crate) async fn forget_wake(
    connection: &mut SqliteConnection,
    tenant: TenantNo,
    device: DeviceId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM wakes WHERE tenant_no = ? AND device_id = ?")
        .bind(tenant.to_row())
        .bind(device.0)
        .execute(connection)
        .await
        .during("forget wakeup")?;
    Ok(())
}
