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

#[cfg(test)]
mod tests {
    use sotto_model::{TenantId, TopicPolicy, UnixMillis};
    use sotto_storage::directory::{Directory, DirectoryError, Tenant};
    use uuid::Uuid;

    use super::*;
    use crate::store::SqliteStore;

    async fn create(store: &SqliteStore, name: &str) -> Result<(), DirectoryError> {
        let tenant = Tenant { id: TenantId(Uuid::new_v4()), name: name.into(), topics: TopicPolicy::Open };
        store.create_tenant(&tenant, UnixMillis(0)).await
    }

    async fn pragma(store: &SqliteStore, sql: &str) {
        let mut slot = store.writer.slot.lock().await;
        let connection = slot.connection.as_mut().expect("connected");
        connection.execute(sql).await.expect("set the size");
    }

    #[tokio::test]
    async fn a_full_disk_fails_what_is_under_way_and_nothing_after_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
        // The size that it has: SQLite answers as for a full disk.
        pragma(&store, "PRAGMA max_page_count = 1").await;
        let name = "n".repeat(100_000);
        let failed = create(&store, &name).await;
        let Err(DirectoryError::Store(StoreError::Unavailable { code, .. })) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(code, "sqlite 13");
        assert!(store.snapshot().await.expect("snapshot").tenants.is_empty());
        pragma(&store, "PRAGMA max_page_count = 1000000").await;
        create(&store, &name).await.expect("there is room again");
        assert_eq!(store.snapshot().await.expect("snapshot").tenants.len(), 1);
    }

    #[tokio::test]
    async fn a_transaction_that_was_dropped_is_rolled_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
        let mut transaction = store.writer.begin("test").await.expect("begin");
        let raised = transaction.connection().execute("UPDATE directory_revision SET revision = 99").await;
        raised.expect("update");
        drop(transaction);
        create(&store, "clinic").await.expect("the next one begins");
        assert_eq!(store.revision().await.expect("revision"), 1);
    }

    #[tokio::test]
    async fn a_lost_connection_is_made_anew() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
        store.writer.slot.lock().await.connection = None;
        create(&store, "clinic").await.expect("connects");
    }
}
