//! Why the database did not open.

use crate::fault::{code_of, kind_of};

/// Why the store did not open. The URL and the server's texts stay out of it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database URL cannot be read: postgres://user@host:port/database is expected")]
    BadUrl,
    #[error("database cannot be reached ({code})")]
    Unreachable { code: String },
    #[error("database refused ({code})")]
    Refused { code: String },
    #[error("database schema is newer than this program: it has migration {0}")]
    NewerSchema(i64),
    #[error("database schema was altered: migration {0} is not this program's")]
    AlteredSchema(i64),
}

impl OpenError {
    pub(crate) fn unreachable(error: &sqlx::Error) -> Self {
        Self::Unreachable { code: kind_of(error).into() }
    }

    pub(crate) fn from_sql(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                Self::Refused { code: code_of(error.as_ref()).unwrap_or_else(|| "no code".into()) }
            }
            error => Self::unreachable(error),
        }
    }
}
