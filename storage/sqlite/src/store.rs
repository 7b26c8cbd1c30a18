//! The open database.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use sotto_storage::StoreError;
use sotto_storage::wakeup_quota::SharedWakeupQuota;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use crate::error::During;
use crate::limits::{
    BUSY_WAIT_MAX, READER_CACHE_KIB_MAX, READER_WAIT_MAX, READERS_MAX, WAL_CHECKPOINT_PAGES,
    WAL_KEPT_BYTES_MAX, WRITER_CACHE_KIB_MAX,
};
use crate::migrations::{check_schema, migrate};
use crate::open_error::{OpenError, open_error};
use crate::tenants::TenantNumbers;
use crate::topics::TopicCache;
use crate::writer::Writer;

/// Everything that the broker keeps, in one SQLite file.
///
/// One process opens it at a time; whoever starts the process sees to that with a lock on the folder.
pub struct SqliteStore {
    pub(crate) writer: Writer,
    pub(crate) readers: SqlitePool,
    pub(crate) tenants: TenantNumbers,
    pub(crate) topics: TopicCache,
    pub(crate) wakeup_quota: SharedWakeupQuota,
}

impl SqliteStore {
    /// Opens the database file at `path`, makes it if there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        create_private(path)?;
        let shared = shared_options(path);
        let writing = shared
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            // FULL makes every commit durable before it returns; NORMAL would lose the last ones to a
            // power cut.
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", WAL_CHECKPOINT_PAGES.to_string())
            .pragma("journal_size_limit", WAL_KEPT_BYTES_MAX.to_string())
            .pragma("cache_size", format!("-{WRITER_CACHE_KIB_MAX}"));
        let reading =
            shared.pragma("query_only", "on").pragma("cache_size", format!("-{READER_CACHE_KIB_MAX}"));

        let mut connection = writing.connect().await.map_err(|error| open_error(&error))?;
        if let Err(error) = migrate(&mut connection).await {
            // The refusal is what counts; the database was not changed.
            drop(connection.close().await);
            return Err(error);
        }
        let readers = readers(reading).await?;
        Ok(Self {
            writer: Writer::new(writing, connection),
            readers,
            tenants: TenantNumbers::default(),
            topics: TopicCache::default(),
            wakeup_quota: SharedWakeupQuota::default(),
        })
    }

    /// To look through: opened for reading alone, beside a broker or on a copy. The schema must be this program's
    /// as it stands.
    pub async fn open_to_check(path: &Path) -> Result<Self, OpenError> {
        check_private(path)?;
        let reading = shared_options(path)
            .read_only(true)
            .pragma("query_only", "on")
            .pragma("cache_size", format!("-{READER_CACHE_KIB_MAX}"));
        let mut connection = reading.connect().await.map_err(|error| open_error(&error))?;
        check_schema(&mut connection).await?;
        let readers = readers(reading.clone()).await?;
        Ok(Self {
            writer: Writer::new(reading, connection),
            readers,
            tenants: TenantNumbers::default(),
            topics: TopicCache::default(),
            wakeup_quota: SharedWakeupQuota::default(),
        })
    }

    /// Moves what has been committed so far from the write-ahead log into the database file, beside the
    /// writer. To be called every `CHECKPOINT_EVERY`: the writer does it by itself only when the log has
    /// grown to `WAL_CHECKPOINT_PAGES`, and then a commit waits for all of them.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&self.readers).await.during("checkpoint")?;
        Ok(())
    }

    /// Waits for what is under way, moves the write-ahead log into the database file and closes it. Every
    /// call after it is answered with `Unavailable`.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        self.writer.close().await
    }
}

pub(crate) fn shared_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_WAIT_MAX)
        // What SQLite sorts stays out of temporary files.
        .pragma("temp_store", "memory")
        // A logged statement would be as private as its values.
        .disable_statement_logging()
}

async fn readers(options: SqliteConnectOptions) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(READERS_MAX)
        .acquire_timeout(READER_WAIT_MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(|error| open_error(&error))
}

/// SQLite gives `-wal` and `-shm` the mode of the database file, so the one file decides for all three.
fn create_private(path: &Path) -> Result<(), OpenError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match created {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(OpenError::File(error)),
    }
    check_private(path)
}

pub(crate) fn check_private(path: &Path) -> Result<(), OpenError> {
    let mode =
        File::open(path).and_then(|file| file.metadata()).map_err(OpenError::File)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(OpenError::Exposed { mode: mode & 0o777 });
    }
    Ok(())
}
