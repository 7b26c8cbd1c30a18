//! Work that waits for a commit, in order, and is taken a batch at a time.
//!
//! There is no linger time: whoever commits takes what is there, and while that commit runs the next
//! batch grows.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::batch::BatchBound;

/// The committer is shutting down: what was handed in comes back.
#[derive(Debug, thiserror::Error)]
#[error("closed for new work")]
pub struct Closed<T>(pub T);

/// The many ends that hand work in.
pub(crate) struct GroupSender<T>(Arc<Shared<T>>);

/// The one end that commits.
pub(crate) struct GroupReceiver<T> {
    shared: Arc<Shared<T>>,
    /// Taken off the shared queue and not yet in a batch.
    taken: VecDeque<T>,
    bound: BatchBound,
    bytes_of: fn(&T) -> usize,
}

struct Shared<T> {
    /// Locked by senders for one push, and by the receiver for one swap.
    queue: Mutex<Queue<T>>,
    work: Notify,
    /// True once the receiver is gone.
    done: watch::Sender<bool>,
}

struct Queue<T> {
    /// Bounded by what senders must reserve before they push.
    entries: VecDeque<T>,
    open: bool,
}

/// Two ends of a queue. What bounds it is the sender's reservation.
pub(crate) fn group_commit<T>(
    bound: BatchBound,
    bytes_of: fn(&T) -> usize,
) -> (GroupSender<T>, GroupReceiver<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue { entries: VecDeque::new(), open: true }),
        work: Notify::new(),
        done: watch::Sender::new(false),
    });
    (GroupSender(shared.clone()), GroupReceiver { shared, taken: VecDeque::new(), bound, bytes_of })
}

impl<T> GroupSender<T> {
    /// Never waits. The order of calls is the order of commits.
    pub(crate) fn push(&self, entry: T) -> Result<(), Closed<T>> {
        let mut queue = self.0.queue.lock();
        if !queue.open {
            return Err(Closed(entry));
        }
        queue.entries.push_back(entry);
        drop(queue);
        self.0.work.notify_one();
        Ok(())
    }

    /// Refuses new work. What is queued is still committed.
    pub(crate) fn close(&self) {
        self.0.queue.lock().open = false;
        self.0.work.notify_one();
    }

    /// Returns when the receiver is gone, with all work done or abandoned.
    pub(crate) async fn finished(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.0.done.subscribe().wait_for(|done| *done).await;
    }
}

impl<T> Clone for GroupSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> GroupReceiver<T> {
    /// The next batch; `None` once the queue is closed and empty. Losing the future loses no work.
    pub(crate) async fn next_batch(&mut self) -> Option<Vec<T>> {
        loop {
            if self.taken.len() < self.bound.records && !self.refill() && self.taken.is_empty() {
                return None;
            }
            let batch = self.bound.take(&mut self.taken, self.bytes_of);
            if !batch.is_empty() {
                return Some(batch);
            }
            self.shared.work.notified().await;
        }
    }

    /// Drops what waits and is no longer wanted.
    pub(crate) fn retain(&mut self, wanted: impl FnMut(&T) -> bool) {
        self.refill();
        self.taken.retain(wanted);
    }

    /// Takes what senders have pushed; false once they push no more.
    fn refill(&mut self) -> bool {
        let mut queue = self.shared.queue.lock();
        if self.taken.is_empty() {
            std::mem::swap(&mut self.taken, &mut queue.entries);
        } else {
            self.taken.append(&mut queue.entries);
        }
        queue.open
    }
}

impl<T> Drop for GroupReceiver<T> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.open = false;
        // Abandoned work gives its reservations back.
        let abandoned = std::mem::take(&mut queue.entries);
        drop(queue);
        drop(abandoned);
        self.shared.done.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(records: usize) -> (GroupSender<u32>, GroupReceiver<u32>) {
        group_commit(BatchBound { records, bytes: usize::MAX }, |_| 1)
    }

    #[tokio::test]
    async fn a_batch_grows_while_the_one_before_it_is_committed() {
        let (sender, mut receiver) = queue(100);
        sender.push(1).expect("open");
        assert_eq!(receiver.next_batch().await, Some(vec![1]));
        for entry in 2..=5 {
            sender.push(entry).expect("open");
        }
        assert_eq!(receiver.next_batch().await, Some(vec![2, 3, 4, 5]));
    }

    #[tokio::test]
    async fn a_full_batch_leaves_the_rest_for_the_next_in_order() {
        let (sender, mut receiver) = queue(2);
        for entry in 1..=3 {
            sender.push(entry).expect("open");
        }
        assert_eq!(receiver.next_batch().await, Some(vec![1, 2]));
        sender.push(4).expect("open");
        assert_eq!(receiver.next_batch().await, Some(vec![3, 4]));
    }

    #[tokio::test]
    async fn what_was_queued_before_the_close_is_still_taken() {
        let (sender, mut receiver) = queue(1);
        sender.push(1).expect("open");
        sender.push(2).expect("open");
        sender.close();
        assert!(matches!(sender.push(3), Err(Closed(3))));
        assert_eq!(receiver.next_batch().await, Some(vec![1]));
        assert_eq!(receiver.next_batch().await, Some(vec![2]));
        assert_eq!(receiver.next_batch().await, None);
        drop(receiver);
        sender.finished().await;
    }

    #[tokio::test]
    async fn a_waiting_receiver_is_woken_by_work() {
        let (sender, mut receiver) = queue(10);
        let waiting = tokio::spawn(async move { receiver.next_batch().await });
        tokio::task::yield_now().await;
        sender.push(7).expect("open");
        assert_eq!(waiting.await.expect("no panic"), Some(vec![7]));
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_refuses_work() {
        let (sender, receiver) = queue(10);
        sender.push(1).expect("open");
        drop(receiver);
        assert!(sender.push(2).is_err());
    }
}
