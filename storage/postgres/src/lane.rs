//! A lane: a few connections of one purpose, opened when needed, given up at the first doubt.
//!
//! A connection leaves the lane while it is used and comes back only when its operation has ended well
//! enough. A caller that is cancelled, a time-out, a broken stream: the connection is dropped, and the
//! next caller opens another. So nothing ever runs behind an unfinished query, and the store recovers by
//! itself when the server has been away.

use std::time::Duration;

use parking_lot::Mutex;
use sotto_storage::StoreError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::fault::Fault;
use crate::limits::{CONNECT_TIMEOUT, LANE_TIMEOUT, OPERATION_TIMEOUT};

pub(crate) struct Lane {
    options: PgConnectOptions,
    /// Locked for a push or a pop, never across an await.
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
}

/// One connection, out of its lane.
pub(crate) struct Held<'a> {
    lane: &'a Lane,
    connection: PgConnection,
    opened_now: bool,
    operation: &'static str,
    _permit: SemaphorePermit<'a>,
}

impl Lane {
    pub(crate) fn new(options: PgConnectOptions, connections: usize) -> Self {
        Self {
            options,
            idle: Mutex::new(Vec::with_capacity(connections)),
            permits: Semaphore::new(connections),
        }
    }

    pub(crate) async fn hold(&self, operation: &'static str) -> Result<Held<'_>, StoreError> {
        let permit = match timeout(LANE_TIMEOUT, self.permits.acquire()).await {
            Ok(permit) => permit.expect("a lane's semaphore is never closed"),
            Err(_) => return Err(StoreError::Unavailable { operation, code: "all connections busy".into() }),
        };
        let idle = self.idle.lock().pop();
        let (connection, opened_now) = match idle {
            Some(connection) => (connection, false),
            None => (self.open().await.map_err(|fault| fault.named(operation))?, true),
        };
        Ok(Held { lane: self, connection, opened_now, operation, _permit: permit })
    }

    pub(crate) async fn open(&self) -> Result<PgConnection, Fault> {
        timeout(CONNECT_TIMEOUT, self.options.connect())
            .await
            .map_err(|_| Fault::timed_out())?
            .map_err(Fault::Sql)
    }
}

impl Held<'_> {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Nothing has used this connection before.
    pub(crate) fn opened_now(&self) -> bool {
        self.opened_now
    }

    /// Ends the operation: names its failure, and puts the connection back where it may be used again.
    pub(crate) fn settle<T>(self, result: Result<T, Fault>) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                self.lane.idle.lock().push(self.connection);
                Ok(value)
            }
            Err(fault) => {
                let operation = self.operation;
                if fault.spares_connection() {
                    self.lane.idle.lock().push(self.connection);
                } else {
                    // The others of the lane were opened to the same server: they are no better.
                    self.lane.idle.lock().clear();
                }
                Err(fault.named(operation))
            }
        }
    }
}

/// Bounds an operation's whole time: a server that does not answer is as good as none.
pub(crate) async fn within<T>(operation: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    within_time(OPERATION_TIMEOUT, operation).await
}

pub(crate) async fn within_time<T>(
    time: Duration,
    operation: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(time, operation).await.map_err(|_| Fault::timed_out())?
}
