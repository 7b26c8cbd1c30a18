//! The folder that holds everything of a node that is not in PostgreSQL.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("make data folder {path}: {reason}")]
    Make { path: String, reason: io::ErrorKind },
    #[error("data folder {0} is in use by another sotto")]
    InUse(String),
    #[error("lock data folder {path}: {reason}")]
    Lock { path: String, reason: io::ErrorKind },
}

/// The paths in a data folder.
#[derive(Clone)]
pub(crate) struct DataDir(PathBuf);

/// Held for as long as the process uses the folder.
pub(crate) struct DataDirLock {
    _file: File,
}

impl DataDir {
    /// Makes the folder, for its owner alone, if there is none.
    pub(crate) fn make(path: &Path) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| DataDirError::Make { path: path.display().to_string(), reason: error.kind() })?;
        Ok(Self(path.into()))
    }

    pub(crate) fn at(path: &Path) -> Self {
        Self(path.into())
    }

    pub(crate) fn lock(&self) -> Result<DataDirLock, DataDirError> {
        let failed = |reason| DataDirError::Lock { path: self.shown(), reason };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.join("lock"))
            .map_err(|error| failed(error.kind()))?;
        match file.try_lock() {
            Ok(()) => Ok(DataDirLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(self.shown())),
            Err(TryLockError::Error(error)) => Err(failed(error.kind())),
        }
    }

    pub(crate) fn shown(&self) -> String {
        self.0.display().to_string()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("sotto.db")
    }

    pub(crate) fn root_key(&self) -> PathBuf {
        self.0.join("root.key")
    }

    pub(crate) fn ca_certificate(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    pub(crate) fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    pub(crate) fn server_certificate(&self) -> PathBuf {
        self.0.join("server.crt")
    }

    pub(crate) fn server_key(&self) -> PathBuf {
        self.0.join("server.key")
    }

    /// What session tickets are sealed by, where no other file is configured.
    pub(crate) fn ticket_key(&self) -> PathBuf {
        self.0.join("ticket.key")
    }

    /// What whoever administers must show.
    pub(crate) fn admin_token(&self) -> PathBuf {
        self.0.join("admin.token")
    }

    /// Where the running broker's private listener is.
    pub(crate) fn private_address(&self) -> PathBuf {
        self.0.join("private.addr")
    }

    pub(crate) fn demo_password(&self, user: &str) -> PathBuf {
        self.0.join("demo").join(format!("{user}.password"))
    }

    pub(crate) fn demo_conversation(&self) -> PathBuf {
        self.0.join("demo").join("conversation")
    }
}

/// Writes a file that its owner alone may read, all of it or nothing.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let unfinished = path.with_extension("new");
    // Left by a process that died half-way.
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}
