//! Where each tenant's log begins, as this process knows it.

use std::collections::HashMap;

use parking_lot::RwLock;
use sotto_model::{Offset, TenantId};
use sotto_storage::message_log::Selector;
use sotto_storage::retention::TenantRetention;

/// Nothing at or before this offset is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogStart(pub(crate) Offset);

/// Tenants that are not in it have logs of which nothing was ever deleted.
#[derive(Default)]
pub(crate) struct LogStarts {
    /// Locked for writing by the retention, after it has deleted something.
    by_tenant: RwLock<HashMap<TenantId, LogStart>>,
}

impl LogStarts {
    pub(crate) fn of(&self, tenant: TenantId) -> LogStart {
        self.by_tenant.read().get(&tenant).copied().unwrap_or_default()
    }

    pub(crate) fn replace(&self, retention: &[TenantRetention]) {
        let begun = retention.iter().filter(|kept| kept.start > Offset(0));
        *self.by_tenant.write() = begun.map(|kept| (kept.tenant, LogStart(kept.start))).collect();
    }
}

impl LogStart {
    /// The first offset that may be held.
    pub(crate) fn first_held(self) -> Offset {
        Offset(self.0.0.saturating_add(1))
    }

    /// How many offsets after `after` that any selector reaches are deleted.
    pub(crate) fn missed(self, selectors: &[Selector], after: Offset) -> u64 {
        let from = selectors.iter().map(|selector| selector.after.max(after)).min();
        from.map_or(0, |from| self.0.0.saturating_sub(from.0))
    }
}

#[cfg(test)]
mod tests {
    use sotto_model::TopicFilter;

    use super::*;

    #[test]
    fn only_what_a_subscription_reaches_is_missed() {
        let selector =
            |after| Selector { filter: TopicFilter::parse("a").expect("filter"), after: Offset(after) };
        let start = LogStart(Offset(100));
        assert_eq!(start.missed(&[selector(0), selector(90)], Offset(40)), 60);
        assert_eq!(start.missed(&[selector(95)], Offset(40)), 5);
        assert_eq!(start.missed(&[selector(100)], Offset(40)), 0);
        assert_eq!(start.missed(&[selector(0)], Offset(200)), 0);
        assert_eq!(start.missed(&[], Offset(0)), 0);
        assert_eq!(start.first_held(), Offset(101));
    }
}
