//! The changes that arrive while a whole set is being loaded, so that swapping it in undoes none.

use crate::limits::JOURNAL_CHANGES_MAX;

/// A load that has begun. Begin before the first row is read: what changes from then on is applied over
/// the rows.
#[must_use = "a load takes effect when it is swapped in"]
pub struct Load(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("a later load has begun")]
    Superseded,
    #[error("more than {JOURNAL_CHANGES_MAX} changes arrived during the load")]
    Overrun,
}

/// Records changes while a load is under way; of several loads only the last counts.
pub(crate) struct Journal<C> {
    latest: u64,
    /// `None` while nothing is loaded, or once there were too many.
    changes: Option<Vec<C>>,
}

impl<C> Journal<C> {
    pub(crate) fn new() -> Self {
        Self { latest: 0, changes: None }
    }

    pub(crate) fn begin(&mut self) -> Load {
        self.latest += 1;
        self.changes = Some(Vec::new());
        Load(self.latest)
    }

    pub(crate) fn record(&mut self, change: C) {
        if let Some(changes) = &mut self.changes {
            if changes.len() < JOURNAL_CHANGES_MAX {
                changes.push(change);
            } else {
                self.changes = None;
            }
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a load is finished once")]
    pub(crate) fn finish(&mut self, load: Load) -> Result<Vec<C>, LoadError> {
        if load.0 != self.latest {
            return Err(LoadError::Superseded);
        }
        self.changes.take().ok_or(LoadError::Overrun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_given_what_changed_since_it_began() {
        let mut journal = Journal::new();
        journal.record(1);
        let load = journal.begin();
        journal.record(2);
        journal.record(3);
        assert_eq!(journal.finish(load), Ok(vec![2, 3]));
        journal.record(4);
        let load = journal.begin();
        assert_eq!(journal.finish(load), Ok(vec![]));
    }

    #[test]
    fn an_earlier_load_yields_to_a_later_one() {
        let mut journal = Journal::new();
        let first = journal.begin();
        journal.record(1);
        let second = journal.begin();
        assert_eq!(journal.finish(first), Err(LoadError::Superseded));
        assert_eq!(journal.finish(second), Ok(vec![]));
    }

    #[test]
    fn a_load_that_takes_too_long_is_refused() {
        let mut journal = Journal::new();
        let load = journal.begin();
        for change in 0..=JOURNAL_CHANGES_MAX {
            journal.record(change);
        }
        assert_eq!(journal.finish(load), Err(LoadError::Overrun));
    }
}
