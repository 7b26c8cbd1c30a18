//! A message's place in the one table that holds every tenant's log.
//!
//! ```text
//! bit  63   62            44 43                                        0
//!      ┌────┬───────────────┬───────────────────────────────────────────┐
//!      │ 0  │ tenant_no, 19 │ offset, 44                                │
//!      └────┴───────────────┴───────────────────────────────────────────┘
//! ```
//!
//! One tenant's messages lie together in the order of its log, with no index beside the table's own.

use std::ops::RangeInclusive;

use sotto_model::Offset;
use sotto_storage::StoreError;

const OFFSET_BITS: u32 = 44;
const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;
const TENANT_NOS: RangeInclusive<i64> = 1..=(1 << 19) - 1;

/// A tenant's number in this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TenantNo(i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogId(i64);

impl TenantNo {
    pub(crate) fn from_row(number: i64) -> Result<Self, StoreError> {
        if TENANT_NOS.contains(&number) {
            Ok(Self(number))
        } else {
            Err(StoreError::Inconsistent("tenant_no"))
        }
    }

    pub(crate) fn to_row(self) -> i64 {
        self.0
    }
}

/// A log has offsets up to 2^44 - 1.
pub(crate) fn is_within_log(offset: Offset) -> bool {
    offset.0 <= OFFSET_MAX
}

impl LogId {
    /// `None` when the tenant's log is full, after 2^44 messages.
    pub(crate) fn new(tenant: TenantNo, offset: Offset) -> Option<Self> {
        is_within_log(offset).then(|| Self::clamped(tenant, offset))
    }

    /// As a bound: an offset beyond the last possible one means the last.
    pub(crate) fn clamped(tenant: TenantNo, offset: Offset) -> Self {
        let offset = i64::try_from(offset.0.min(OFFSET_MAX)).expect("44 bits fit");
        Self(tenant.0 << OFFSET_BITS | offset)
    }

    pub(crate) fn from_row(number: i64) -> Self {
        Self(number)
    }

    pub(crate) fn to_row(self) -> i64 {
        self.0
    }

    pub(crate) fn offset(self) -> Offset {
        Offset(self.0.unsigned_abs() & OFFSET_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_by_tenant_then_by_offset() {
        let (first, last) = (TenantNo(1), TenantNo(*TENANT_NOS.end()));
        let ends = [
            LogId::new(first, Offset(0)),
            LogId::new(first, Offset(OFFSET_MAX)),
            LogId::new(last, Offset(0)),
            LogId::new(last, Offset(OFFSET_MAX)),
        ];
        assert!(ends.is_sorted());
        assert_eq!(ends[3].map(LogId::to_row), Some(i64::MAX));
        assert_eq!(ends[1].map(LogId::offset), Some(Offset(OFFSET_MAX)));
    }

    #[test]
    fn a_full_log_is_noticed() {
        assert_eq!(LogId::new(TenantNo(1), Offset(OFFSET_MAX + 1)), None);
        assert_eq!(LogId::clamped(TenantNo(1), Offset(u64::MAX)).offset(), Offset(OFFSET_MAX));
    }

    #[test]
    fn a_tenant_number_out_of_range_is_refused() {
        assert!(TenantNo::from_row(0).is_err());
        assert!(TenantNo::from_row(1 << 19).is_err());
    }
}
