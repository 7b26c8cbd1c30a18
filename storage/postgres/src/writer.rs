//! The log's one writer and its claim.
//!
//! A process holds the log by a session-level advisory lock on the writer's connection, and by
//! a random claim in the row of `writers` that every batch compares. The lock keeps a second process
//! away; the claim notices, after the connection was lost, whether somebody else has had the log since.

use parking_lot::Mutex;
use sotto_storage::StoreError;
use sotto_storage::message_log::{Batch, Placed};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::time::sleep;
use uuid::Uuid;

use crate::append::{Appended, append};
use crate::column;
use crate::fault::Fault;
use crate::lane::{Lane, within};
use crate::limits::{CLAIM_POLL, CLAIM_WAIT};
use crate::topics::TopicIds;
use crate::weeks;

/// "sotto" in ASCII; advisory locks are numbered per database.
const WRITER_LOCK: i64 = 0x73_6f_74_74_6f;

pub(crate) struct Writer {
    lane: Lane,
    /// Set by `claim`; locked for a look or a store.
    claim: Mutex<Option<Uuid>>,
}

impl Writer {
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Self { lane: Lane::new(options, 1), claim: Mutex::new(None) }
    }

    pub(crate) async fn claim(&self) -> Result<u64, StoreError> {
        const OPERATION: &str = "claim writer";
        let mut held = self.lane.hold(OPERATION).await?;
        let claim = Uuid::new_v4();
        let result = within(take_claim(held.connection(), claim)).await;
        if let Ok(None) = result {
            // The connection has no claim, so it does not go back to the lane.
            drop(held);
            return Err(StoreError::Refused {
                operation: OPERATION,
                code: "another process holds the log".into(),
            });
        }
        let last_batch = held.settle(result)?.unwrap_or_default();
        *self.claim.lock() = Some(claim);
        Ok(last_batch)
    }

    pub(crate) async fn append(&self, batch: &Batch, cache: &TopicIds) -> Result<Vec<Placed>, StoreError> {
        const OPERATION: &str = "append";
        let Some(claim) = *self.claim.lock() else {
            return Err(StoreError::Refused { operation: OPERATION, code: "the log is not claimed".into() });
        };
        let mut held = self.lane.hold(OPERATION).await?;
        if held.opened_now() {
            let result = within(renew_claim(held.connection(), claim)).await;
            match result {
                Ok(Renewed::Ours) => {}
                other => {
                    // The connection has no claim, so it may not come back to the lane.
                    let code = match other {
                        Ok(Renewed::StillHeld) => "the connection before still ends",
                        Ok(_) => "another process has claimed the log",
                        Err(fault) => return Err(fault.named(OPERATION)),
                    };
                    // Not the fault of any message: nothing is refused, and readiness says that it is bad.
                    return Err(StoreError::Unavailable { operation: OPERATION, code: code.into() });
                }
            }
        }
        let mut result = within(append(held.connection(), batch, claim, cache)).await;
        if matches!(&result, Err(fault) if fault.is_missing_week()) {
            // Nothing was written. Weeks are made ahead of time, but a clock may be set to any.
            result = within(async {
                weeks::ensure(held.connection(), batch.committed_at).await?;
                append(held.connection(), batch, claim, cache).await
            })
            .await;
        }
        match held.settle(result)? {
            Appended::At(placed) => Ok(placed),
            Appended::TakenByAnother => Err(StoreError::Unavailable {
                operation: OPERATION,
                code: "another process has claimed the log".into(),
            }),
        }
    }
}

/// The number of the last batch; `None` while another process holds the log.
async fn take_claim(connection: &mut PgConnection, claim: Uuid) -> Result<Option<u64>, Fault> {
    // A process that has just ended is noticed by its server within moments: worth a short wait.
    let polls = CLAIM_WAIT.as_millis() / CLAIM_POLL.as_millis();
    let mut locked = try_lock(connection).await?;
    for _ in 0..polls {
        if locked {
            break;
        }
        sleep(CLAIM_POLL).await;
        locked = try_lock(connection).await?;
    }
    if !locked {
        return Ok(None);
    }
    let last_batch =
        sqlx::query_scalar("UPDATE writers SET claim = $1 WHERE writer_id = 1 RETURNING batch_number")
            .bind(claim)
            .fetch_one(connection)
            .await?;
    column::unsigned(last_batch).map(Some)
}

/// True where this connection holds the lock, however often it asks: a session may take it again.
async fn try_lock(connection: &mut PgConnection) -> Result<bool, Fault> {
    let held: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
             AND (classid::bigint << 32) | objid::bigint = $1) \
         OR pg_try_advisory_lock($1)",
    )
    .bind(WRITER_LOCK)
    .fetch_one(connection)
    .await?;
    Ok(held)
}

enum Renewed {
    Ours,
    /// Our own connection before this one has not ended yet.
    StillHeld,
    TakenByAnother,
}

async fn renew_claim(connection: &mut PgConnection, claim: Uuid) -> Result<Renewed, Fault> {
    if !is_claimed_by(connection, claim).await? {
        return Ok(Renewed::TakenByAnother);
    }
    if !try_lock(connection).await? {
        // The claim is ours, so the lock is held by our own connection before this one, cut off or hung.
        // Whatever it was committing is then either committed or not, and the batch number tells.
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND (classid::bigint << 32) | objid::bigint = $1",
        )
        .bind(WRITER_LOCK)
        .execute(&mut *connection)
        .await?;
        sleep(CLAIM_POLL).await;
        if !try_lock(connection).await? {
            return Ok(Renewed::StillHeld);
        }
    }
    // Between the look and the lock another process may have come and gone.
    Ok(if is_claimed_by(connection, claim).await? { Renewed::Ours } else { Renewed::TakenByAnother })
}

async fn is_claimed_by(connection: &mut PgConnection, claim: Uuid) -> Result<bool, Fault> {
    let ours: Option<bool> = sqlx::query_scalar("SELECT claim = $1 FROM writers WHERE writer_id = 1")
        .bind(claim)
        .fetch_one(connection)
        .await?;
    Ok(ours.unwrap_or(false))
}
