//! A copy of the database, made beside the process that writes to it.
//!
//! VACUUM INTO copies what one read transaction sees. SQLite's backup interface would begin again whenever
//! another process commits, and so never end beside a broker. The write-ahead log grows while the copy is made: its
//! beginning is still being read.
//!
//! The copy says that it is one (`user_version`), so that whoever serves from it first treats it as restored.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sotto_storage::StoreError;
use sqlx::{ConnectOptions, Connection, Executor};

use crate::error::During;
use crate::open_error::OpenError;
use crate::store::{SqliteStore, check_private, shared_options};

/// The `user_version` of a copy; of every other database it is 0.
pub(crate) const COPY: i64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("backup file: it exists already")]
    Exists,
    #[error("backup file: {}", .0.kind())]
    File(#[source] io::Error),
    #[error("path of the backup file is not UTF-8")]
    Path,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SqliteStore {
    /// Copies the database at `from` to the new file `to`, for its owner alone. Returns its length, bytes. The
    /// file appears under its name when it is whole and on the disk.
    pub async fn back_up(from: &Path, to: &Path) -> Result<u64, BackupError> {
        check_private(from)?;
        if to.try_exists().map_err(BackupError::File)? {
            return Err(BackupError::Exists);
        }
        let unfinished = unfinished(to);
        // Left by a process that died half-way.
        remove(&unfinished)?;
        let result = copy(from, &unfinished).await.and_then(|()| finish(&unfinished, to));
        if result.is_err() {
            remove(&unfinished)?;
        }
        result
    }
}

async fn copy(from: &Path, unfinished: &Path) -> Result<(), BackupError> {
    const OPERATION: &str = "back up";
    let target = unfinished.to_str().ok_or(BackupError::Path)?;
    // SQLite takes an empty file for a new one, and leaves its mode.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(unfinished)
        .map_err(BackupError::File)?;
    let mut source = shared_options(from).read_only(true).connect().await.during(OPERATION)?;
    sqlx::query("VACUUM INTO ?").bind(target).execute(&mut source).await.during(OPERATION)?;
    source.close().await.during(OPERATION)?;
    let mut copy = shared_options(unfinished).connect().await.during(OPERATION)?;
    copy.execute(format!("PRAGMA user_version = {COPY}").as_str()).await.during(OPERATION)?;
    copy.close().await.during(OPERATION)?;
    Ok(())
}

fn finish(unfinished: &Path, to: &Path) -> Result<u64, BackupError> {
    let file = File::open(unfinished).map_err(BackupError::File)?;
    file.sync_all().map_err(BackupError::File)?;
    let bytes = file.metadata().map_err(BackupError::File)?.len();
    fs::rename(unfinished, to).map_err(BackupError::File)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(BackupError::File)?;
    Ok(bytes)
}

fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

fn remove(unfinished: &Path) -> Result<(), BackupError> {
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BackupError::File(error)),
        _ => Ok(()),
    }
}
