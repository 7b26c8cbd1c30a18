//! SQLite's integers are signed; ours are not.

use sotto_model::{Offset, UnixMillis, Urgency};
use sotto_storage::StoreError;
use sotto_storage::push_registry::Platform;

/// A number to store. What does not fit is stored as the largest that does: a time that far away is
/// never, and no offset is.
pub(crate) fn to_row(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count or a limit to bind.
pub(crate) fn count_to_row(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A number that was stored; `column` names the culprit when it cannot have been.
pub(crate) fn from_row(number: i64, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Inconsistent(column))
}

/// The same for the narrower types.
pub(crate) fn narrow<T: TryFrom<i64>>(number: i64, column: &'static str) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| StoreError::Inconsistent(column))
}

pub(crate) fn offset(number: i64) -> Result<Offset, StoreError> {
    from_row(number, "offset").map(Offset)
}

pub(crate) fn millis(number: i64) -> Result<UnixMillis, StoreError> {
    from_row(number, "time").map(UnixMillis)
}

pub(crate) fn urgency(number: i64) -> Result<Urgency, StoreError> {
    Urgency::from_code(narrow(number, "urgency")?).ok_or(StoreError::Inconsistent("urgency"))
}

pub(crate) fn platform(number: i64) -> Result<Platform, StoreError> {
    Platform::from_code(narrow(number, "platform")?).ok_or(StoreError::Inconsistent("platform"))
}
