//! Why the database did not open.

use std::io;

use sotto_storage::StoreError;

use crate::error::store_error;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database file: {}", .0.kind())]
    File(#[source] io::Error),
    /// It holds who writes to whom and when; sealed payloads are the least of it.
    #[error("database file is open to others (mode {mode:03o}); it must be 600")]
    Exposed { mode: u32 },
    #[error("database file is not a database")]
    NotADatabase,
    #[error("database schema {found} is newer than this program, which knows {known}")]
    NewerSchema { found: i64, known: i64 },
    /// Only where it may not be brought up to date.
    #[error("database schema {found} is older than this program, which works with {known}: start it once")]
    OlderSchema { found: i64, known: i64 },
    #[error("database schema {0} is not the one that this program wrote")]
    AlteredSchema(i64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) fn open_error(error: &sqlx::Error) -> OpenError {
    const NOTADB: &str = "26";
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        Some(code) if code == NOTADB => OpenError::NotADatabase,
        _ => store_error(error, "open").into(),
    }
}
