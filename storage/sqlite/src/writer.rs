//! The one connection that writes.

use sotto_storage::StoreError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};

use crate::error::During;

pub(crate) struct Writer {
    options: SqliteConnectOptions,
    /// Locked for the length of one transaction, by whoever writes: the committer, the session writer, the
    /// relay, the administration.
    slot: Mutex<Slot>,
}

struct Slot {
    /// `None` after it failed; the next transaction connects again.
    connection: Option<SqliteConnection>,
    /// A transaction was begun and its end is not known: its future was dropped, or its COMMIT failed.
    unfinished: bool,
    closed: bool,
}

/// Holds the write lock from its first statement on. Dropped unfinished, it is rolled back before the
/// next one begins.
pub(crate) struct Transaction<'a> {
    slot: MutexGuard<'a, Slot>,
    operation: &'static str,
}

impl Writer {
    pub(crate) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        let slot = Slot { connection: Some(connection), unfinished: false, closed: false };
        Self { options, slot: Mutex::new(slot) }
    }

    pub(crate) async fn begin(&self, operation: &'static str) -> Result<Transaction<'_>, StoreError> {
        let mut slot = self.slot.lock().await;
        if slot.closed {
            return Err(StoreError::Unavailable { operation, code: "closed".into() });
        }
        slot.settle().await;
        if slot.connection.is_none() {
            slot.connection = Some(self.options.connect().await.during(operation)?);
        }
        slot.unfinished = true;
        let mut transaction = Transaction { slot, operation };
        let begun = transaction.connection().execute("BEGIN IMMEDIATE").await.during(operation);
        if let Err(error) = begun {
            transaction.slot.settle().await;
            return Err(error);
        }
        Ok(transaction)
    }

    /// Moves the write-ahead log into the database file and lets go of it.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        const OPERATION: &str = "close";
        let mut slot = self.slot.lock().await;
        slot.settle().await;
        slot.closed = true;
        let Some(mut connection) = slot.connection.take() else { return Ok(()) };
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.during(OPERATION)?;
        connection.close().await.during(OPERATION)
    }
}

impl Slot {
    /// Ends what was left unfinished. SQLite may have rolled back by itself (a full disk, say), and then
    /// refuses ROLLBACK; a connection that is in doubt for any reason is given up.
    async fn settle(&mut self) {
        if !self.unfinished {
            return;
        }
        if let Some(connection) = &mut self.connection
            && connection.execute("ROLLBACK").await.is_err()
        {
            self.connection = None;
        }
        self.unfinished = false;
    }
}

impl Transaction<'_> {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        self.slot.connection.as_mut().expect("begin connects, and nothing else gives a connection up")
    }

    /// Commits what succeeded and rolls back what did not.
    pub(crate) async fn finish<T, E: From<StoreError>>(mut self, result: Result<T, E>) -> Result<T, E> {
        let operation = self.operation;
        match result {
            Ok(value) => match self.connection().execute("COMMIT").await.during(operation) {
                Ok(_) => {
                    self.slot.unfinished = false;
                    Ok(value)
                }
                Err(error) => {
                    self.slot.settle().await;
                    Err(error.into())
                }
            },
            Err(error) => {
                self.slot.settle().await;
                Err(error)
            }
        }
    }
}
