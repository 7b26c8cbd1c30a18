//! Which devices sleep and have something to wake for.
//!
//! A wakeup can be lost between the two that may make it due: the relay, which passes over a connected
//! session, and the close of that session, which passes over a message that it does not see yet. Here
//! neither can miss the other. Both decide and write in one transaction under the write lock, and so does
//! every append: a message is committed either before the close, which sees it, or after, and then the
//! relay that takes its outbox row finds the session disconnected.

use sotto_model::{DeviceId, UnixMillis};
use sotto_storage::StoreError;
use sqlx::SqliteConnection;

use crate::error::During;
use crate::log_id::TenantNo;
use crate::number::to_row;

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

/// Makes a wakeup due for the device of a session that has just been marked disconnected, if it is behind:
/// something is in flight, or a message that wakes was committed after its cursor, by somebody else, to a
/// conversation or the inbox of its user.
pub(crate) async fn wake_if_behind(
    connection: &mut SqliteConnection,
    session_id: i64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO wakes (tenant_no, device_id, due_since_at_ms, next_attempt_at_ms)
         SELECT ended.tenant_no, ended.device_id, ?2, ?2
         FROM sessions AS ended CROSS JOIN push_registrations AS registration
         ON registration.tenant_no = ended.tenant_no AND registration.device_id = ended.device_id
         WHERE ended.session_id = ?1 AND ended.connected = 0
           AND (ended.expires_at_ms IS NULL OR ended.expires_at_ms > ?2)
           AND NOT EXISTS (SELECT 1 FROM sessions AS live
                   WHERE live.tenant_no = ended.tenant_no AND live.device_id = ended.device_id
                     AND live.connected = 1)
           AND (length(ended.inflight) > 0
                OR EXISTS (SELECT 1
                   FROM memberships AS membership
                   CROSS JOIN topics AS topic
                     ON topic.tenant_no = membership.tenant_no AND topic.scope_kind = 1
                    AND topic.scope_id = membership.conversation_id
                   CROSS JOIN messages AS message
                     ON message.topic_id = topic.topic_id
                    AND message.log_id > (membership.tenant_no << 44) + max(membership.since, ended.cursor)
                   WHERE membership.tenant_no = ended.tenant_no AND membership.user_id = ended.user_id
                     AND message.wakes = 1 AND message.sender <> ended.user_id
                     AND (message.expires_at_ms IS NULL OR message.expires_at_ms > ?2))
                OR EXISTS (SELECT 1
                   FROM topics AS topic
                   CROSS JOIN messages AS message
                     ON message.topic_id = topic.topic_id
                    AND message.log_id > (topic.tenant_no << 44) + ended.cursor
                   WHERE topic.tenant_no = ended.tenant_no AND topic.scope_kind = 2
                     AND topic.scope_id = ended.user_id
                     AND message.wakes = 1 AND message.sender <> ended.user_id
                     AND (message.expires_at_ms IS NULL OR message.expires_at_ms > ?2)))
         ON CONFLICT DO NOTHING",
    )
    .bind(session_id)
    .bind(to_row(now.0))
    .execute(connection)
    .await
    .during("make wakeup due")?;
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
