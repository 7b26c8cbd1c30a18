//! Bytes that may wait for a commit: reserved before the work is built, given back when it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a reservation adds to its bytes, so that empty messages are bounded too: about what one entry
/// occupies beside its payload.
pub const RESERVATION_OVERHEAD_BYTES: usize = 512;

#[derive(Clone)]
pub(crate) struct Budget(Arc<Inner>);

struct Inner {
    bytes_max: usize,
    bytes_taken: AtomicUsize,
    /// Someone was refused since bytes were last freed.
    starved: AtomicBool,
    /// Rung when bytes are freed while someone starves.
    freed: Notify,
}

/// A share of the bytes that may wait. Given back when dropped.
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner {
            bytes_max,
            bytes_taken: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
            freed: Notify::new(),
        }))
    }

    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let bytes = bytes.saturating_add(RESERVATION_OVERHEAD_BYTES);
        self.take(bytes).or_else(|| {
            self.0.starved.store(true, Ordering::SeqCst);
            // Whoever freed bytes before the flag stood has not rung; from here on everyone does.
            self.take(bytes)
        })
    }

    pub(crate) fn bytes_taken(&self) -> usize {
        self.0.bytes_taken.load(Ordering::Relaxed)
    }

    /// Returns once bytes have been freed after someone was refused.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    fn take(&self, bytes: usize) -> Option<Reservation> {
        self.0
            .bytes_taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                taken.checked_add(bytes).filter(|taken| *taken <= self.0.bytes_max)
            })
            .ok()
            .map(|_| Reservation { budget: self.clone(), bytes })
    }
}

impl Reservation {
    /// Reserved, the overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let inner = &self.budget.0;
        inner.bytes_taken.fetch_sub(self.bytes, Ordering::SeqCst);
        if inner.starved.swap(false, Ordering::SeqCst) {
            inner.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn bytes_are_refused_beyond_the_bound_and_come_back() {
        let budget = Budget::new(4 * KIB);
        let first = budget.try_reserve(2 * KIB).expect("fits");
        assert!(budget.try_reserve(2 * KIB).is_none(), "overhead counts");
        assert_eq!(budget.bytes_taken(), 2 * KIB + RESERVATION_OVERHEAD_BYTES);
        drop(first);
        assert_eq!(budget.bytes_taken(), 0);
        assert!(budget.try_reserve(2 * KIB).is_some());
    }

    #[tokio::test]
    async fn whoever_was_refused_is_told_when_bytes_are_free() {
        let budget = Budget::new(4 * KIB);
        let first = budget.try_reserve(3 * KIB).expect("fits");
        assert!(budget.try_reserve(3 * KIB).is_none());
        drop(first);
        budget.freed().await;
    }

    #[tokio::test]
    async fn nobody_is_told_while_nobody_was_refused() {
        let budget = Budget::new(4 * KIB);
        drop(budget.try_reserve(KIB));
        let freed = tokio::time::timeout(std::time::Duration::from_millis(10), budget.freed());
        assert!(freed.await.is_err());
    }
}
