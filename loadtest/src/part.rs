//! Which of a run's clients belong to one process.

use serde::{Deserialize, Serialize};

/// Client k of either group, counted from 0, belongs to part k mod parts: publishers and subscribers of a topic
/// are in one process where the number of topics is a multiple of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) index: u32,
    pub(crate) parts: u32,
    /// Clients that publish; the others come after them.
    pub(crate) publishers: u32,
}

impl Part {
    /// Of a run that is not spread.
    pub(crate) const WHOLE: Self = Self { index: 0, parts: 1, publishers: 0 };

    pub(crate) fn owns(self, client: u32) -> bool {
        let number = client.checked_sub(self.publishers).unwrap_or(client);
        number % self.parts == self.index
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demand::Demand;
    use crate::ledger::Layout;

    proptest! {
        #[test]
        fn every_client_belongs_to_one_part(parts in 1..9_u32, publishers in 0..50_u32, others in 0..50_u32) {
            let clients = publishers + others;
            let all: Vec<_> = (0..parts).map(|index| Part { index, parts, publishers }).collect();
            for client in 0..clients {
                prop_assert_eq!(all.iter().filter(|part| part.owns(client)).count(), 1);
            }
            // Within what is kept in reserve, each has its share.
            let share = Demand::of(clients.into()).share(1, parts).connections;
            for part in &all {
                let owned = (0..clients).filter(|client| part.owns(*client)).count() as u64;
                prop_assert!(owned <= share + 1, "{} of {}", owned, share);
            }
        }

        #[test]
        fn pairs_that_are_said_to_be_together_are(
            parts in 1..6_u32, publishers in 1..30_u32, subscribers in 1..30_u32, topics in 1..30_u32,
        ) {
            let layout = Layout { publishers, subscribers, topics, all_topics: false, shared: false };
            prop_assume!(layout.is_together(parts));
            let owner = |client| (0..parts).find(|index| Part { index: *index, parts, publishers }.owns(client));
            for publisher in 0..publishers {
                for subscriber in (0..subscribers).filter(|s| s % topics == publisher % topics) {
                    prop_assert_eq!(owner(publisher), owner(publishers + subscriber));
                }
            }
        }
    }
}
