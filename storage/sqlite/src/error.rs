//! From the driver's error to what may be told.

use sotto_storage::StoreError;

/// Names the operation that an error came from, and leaves the driver's own text behind: it may quote a
/// value.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| store_error(&error, operation))
    }
}

pub(crate) fn store_error(error: &sqlx::Error, operation: &'static str) -> StoreError {
    let unavailable = |code: &str| StoreError::Unavailable { operation, code: code.to_owned() };
    match error {
        sqlx::Error::Database(database) => {
            // SQLite's extended result code: a number.
            let code = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
            let text = format!("sqlite {code}");
            if is_transient(code) {
                unavailable(&text)
            } else {
                StoreError::Refused { operation, code: text }
            }
        }
        sqlx::Error::Io(_) => unavailable("io"),
        sqlx::Error::PoolTimedOut => unavailable("no reader free"),
        sqlx::Error::PoolClosed => unavailable("closed"),
        sqlx::Error::WorkerCrashed => unavailable("connection lost"),
        // What is left is a row that does not decode, or that is not there.
        _ => StoreError::Inconsistent(operation),
    }
}

/// Faults of the machine or of the moment: a lock, memory, the disk. All others are of the statement.
fn is_transient(extended_code: u32) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const NOMEM: u32 = 7;
    const IOERR: u32 = 10;
    const FULL: u32 = 13;
    const CANTOPEN: u32 = 14;
    const PROTOCOL: u32 = 15;
    // The primary code is the low byte.
    matches!(extended_code & 0xff, BUSY | LOCKED | NOMEM | IOERR | FULL | CANTOPEN | PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_transient_and_a_broken_constraint_is_not() {
        assert!(is_transient(13));
        assert!(is_transient(10 + 4 * 256));
        assert!(!is_transient(19 + 8 * 256));
        assert!(!is_transient(11));
    }
}
