//! What goes into the next commit.

use std::collections::VecDeque;

/// How much one commit may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchBound {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl BatchBound {
    /// Takes from the front of `queue` what one commit may hold. An entry larger than the whole bound goes
    /// alone: it would never leave otherwise.
    pub(crate) fn take<T>(self, queue: &mut VecDeque<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<T> {
        let mut bytes = 0usize;
        let fitting = queue
            .iter()
            .take(self.records.max(1))
            .take_while(|entry| {
                bytes = bytes.saturating_add(bytes_of(entry));
                bytes <= self.bytes
            })
            .count();
        let taken = fitting.max(1).min(queue.len());
        queue.drain(..taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_oversized_entry_goes_alone() {
        let mut queue = VecDeque::from([9, 100, 1]);
        let bound = BatchBound { records: 10, bytes: 10 };
        assert_eq!(bound.take(&mut queue, |bytes| *bytes), [9]);
        assert_eq!(bound.take(&mut queue, |bytes| *bytes), [100]);
        assert_eq!(bound.take(&mut queue, |bytes| *bytes), [1]);
        assert!(bound.take(&mut queue, |bytes| *bytes).is_empty());
    }

    proptest! {
        #[test]
        fn batches_keep_the_order_lose_nothing_and_stay_within_the_bound(
            entries in prop::collection::vec(0usize..2000, 0..300),
            records in 1usize..50,
            bytes in 1usize..5000,
        ) {
            let bound = BatchBound { records, bytes };
            let mut queue: VecDeque<_> = entries.iter().copied().enumerate().collect();
            let mut seen = Vec::new();
            while !queue.is_empty() {
                let batch = bound.take(&mut queue, |(_, bytes)| *bytes);
                prop_assert!(!batch.is_empty() && batch.len() <= records);
                let size: usize = batch.iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(size <= bytes || batch.len() == 1);
                // It is as large as it may be: the entry behind it would not have fitted.
                if let Some((_, next)) = queue.front() {
                    prop_assert!(batch.len() == records || size + next > bytes);
                }
                seen.extend(batch);
            }
            prop_assert_eq!(seen, entries.into_iter().enumerate().collect::<Vec<_>>());
        }
    }
}
