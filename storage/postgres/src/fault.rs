//! From what sqlx says to what the store's callers may know: a kind and a code, never a text of the
//! database, which may quote a row.

use sotto_storage::StoreError;
use sqlx::error::DatabaseError;

/// How an operation failed, before it has a name.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(sqlx::Error),
    /// What a row holds cannot be.
    Inconsistent(&'static str),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    /// The time for the whole operation is over.
    pub(crate) fn timed_out() -> Self {
        Self::Sql(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }

    /// The server answered, so the connection can go on being used; anything else leaves it in doubt.
    pub(crate) fn spares_connection(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => {
                !code_of(error.as_ref()).is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
            }
            Self::Sql(sqlx::Error::RowNotFound) | Self::Inconsistent(_) => true,
            Self::Sql(_) => false,
        }
    }

    pub(crate) fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// No week of `messages` takes the row.
    pub(crate) fn is_missing_week(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.is_check_violation())
    }

    /// A lock was not to be had in time.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        matches!(self, Self::Sql(sqlx::Error::Database(error))
            if code_of(error.as_ref()).as_deref() == Some(LOCK_NOT_AVAILABLE))
    }

    pub(crate) fn named(self, operation: &'static str) -> StoreError {
        match self {
            Self::Inconsistent(fact) => StoreError::Inconsistent(fact),
            Self::Sql(sqlx::Error::Database(error)) => match code_of(error.as_ref()) {
                Some(code) if is_about_the_statement(&code) => StoreError::Refused { operation, code },
                Some(code) => StoreError::Unavailable { operation, code },
                None => StoreError::Unavailable { operation, code: "no code".into() },
            },
            Self::Sql(sqlx::Error::RowNotFound) => StoreError::Inconsistent("a row that must be is missing"),
            Self::Sql(
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_),
            ) => StoreError::Inconsistent("a column cannot be read"),
            Self::Sql(sqlx::Error::Encode(_)) => {
                StoreError::Refused { operation, code: "cannot be encoded".into() }
            }
            Self::Sql(error) => StoreError::Unavailable { operation, code: kind_of(&error).into() },
        }
    }
}

/// Sending it again will fail again: bad data, a broken rule, a statement that does not fit the schema.
/// Everything else (a server that starts, stops, is full, became read-only, lost a privilege) is about
/// the server, and no message may be blamed for it.
fn is_about_the_statement(code: &str) -> bool {
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "22" | "23" | "42" | "P0" | "SO") && code != INSUFFICIENT_PRIVILEGE
}

pub(crate) fn kind_of(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => "timed out",
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused"
        }
        sqlx::Error::Io(_) => "connection lost",
        sqlx::Error::Tls(_) => "tls",
        sqlx::Error::Configuration(_) => "configuration",
        sqlx::Error::Protocol(_) => "protocol",
        _ => "driver",
    }
}

pub(crate) fn code_of(error: &dyn DatabaseError) -> Option<String> {
    error.code().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_repetition_cannot_mend_is_refused() {
        for code in ["22021", "23505", "23502", "42P01", "SO001"] {
            assert!(is_about_the_statement(code), "{code}");
        }
        for code in ["57P01", "53100", "40P01", "25006", "42501", "28P01", "08006", "57014", "55P03", ""] {
            assert!(!is_about_the_statement(code), "{code}");
        }
    }
}
