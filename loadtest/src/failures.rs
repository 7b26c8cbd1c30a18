//! What went wrong, how often.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// The reasons come from a closed set: they name neither clients nor what a broker wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Failures(BTreeMap<String, u64>);

impl Failures {
    pub(crate) fn count(&mut self, reason: &impl Display) {
        self.count_many(reason, 1);
    }

    pub(crate) fn count_many(&mut self, reason: &impl Display, count: u64) {
        *self.0.entry(reason.to_string()).or_default() += count;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            *self.0.entry(reason.clone()).or_default() += count;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_two_threads_add_up_by_reason() {
        let (mut a, mut b) = (Failures::default(), Failures::default());
        a.count(&"closed");
        b.count(&"closed");
        b.count(&"refused");
        a.add(&b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [("closed", 2), ("refused", 1)]);
        assert_eq!(a.total(), 3);
    }
}
