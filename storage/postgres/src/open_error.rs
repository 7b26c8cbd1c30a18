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
    /// Only where it may not be brought up to date.
    #[error("database schema {found} is older than this program, which works with {known}: start it once")]
    OlderSchema { found: i64, known: i64 },
    #[error("database schema was altered: migration {0} is not this program's")]
    AlteredSchema(i64),
}

impl OpenError {
    /// The server is away, starts, stops, is full or takes no more connections: the same call may succeed
    /// later. Not so what somebody has to mend: a name, a password, a privilege.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code } => is_of_the_moment(code),
            Self::BadUrl | Self::NewerSchema(_) | Self::OlderSchema { .. } | Self::AlteredSchema(_) => false,
        }
    }

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

/// By SQLSTATE class: connection, transaction state (read-only), serialization, resources, object state,
/// operator intervention, system.
fn is_of_the_moment(code: &str) -> bool {
    matches!(code.get(..2).unwrap_or_default(), "08" | "25" | "40" | "53" | "55" | "57" | "58")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_starts_or_is_full_may_open_later_and_a_wrong_password_may_not() {
        let refused = |code: &str| OpenError::Refused { code: code.into() };
        for code in ["57P03", "57P01", "53300", "53100", "25006", "08006"] {
            assert!(refused(code).is_transient(), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "42P01", "migration", ""] {
            assert!(!refused(code).is_transient(), "{code}");
        }
        assert!(OpenError::Unreachable { code: "connection refused".into() }.is_transient());
        assert!(!OpenError::BadUrl.is_transient());
    }
}
