//! Passwords wait to be hashed, a few at a time; a client that would wait for too long is told at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Half of what an opening may take at all: the session's row comes after the password.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// However fast they are hashed.
const WAITING_MAX: usize = 4096;
/// What a hash is taken to cost until the first was timed.
const FIRST_COST: Duration = Duration::from_millis(30);
/// The last hash counts for one in so many.
const COST_WEIGHT: u64 = 8;

pub(crate) struct PasswordQueue {
    /// Permits for argon2id: each holds 19 MiB while it runs.
    permits: Arc<Semaphore>,
    permits_max: usize,
    waiting: AtomicUsize,
    cost_micros: AtomicU64,
}

/// One password's turn to be hashed.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    /// Others were hashed meanwhile.
    pub(crate) waited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("passwords are hashed for {} s to come", .wait.as_secs())]
pub(crate) struct TooMany {
    pub(crate) wait: Duration,
}

impl PasswordQueue {
    /// Hashes `permits_max` at a time.
    pub(crate) fn new(permits_max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            waiting: AtomicUsize::new(0),
            cost_micros: AtomicU64::new(micros(FIRST_COST)),
        }
    }

    pub(crate) async fn enter(&self) -> Result<Turn, TooMany> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(Turn { _permit: permit, waited: false });
        }
        let wait = self.wait();
        let waiting = Waiting::begin(&self.waiting);
        if wait > WAIT_MAX || waiting.before >= WAITING_MAX {
            return Err(TooMany { wait });
        }
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        Ok(Turn { _permit: permit, waited: true })
    }

    /// For who comes last.
    pub(crate) fn wait(&self) -> Duration {
        let ahead = self.waiting.load(Ordering::Relaxed) as u64;
        let cost = self.cost_micros.load(Ordering::Relaxed);
        Duration::from_micros(ahead.saturating_mul(cost) / (self.permits_max as u64).max(1))
    }

    pub(crate) fn note_cost(&self, cost: Duration) {
        let known = self.cost_micros.load(Ordering::Relaxed);
        let mean = (known * (COST_WEIGHT - 1) + micros(cost)) / COST_WEIGHT;
        self.cost_micros.store(mean, Ordering::Relaxed);
    }
}

/// Counted for as long as it lives: a connection that ends while it waits does not wait any more.
struct Waiting<'q> {
    count: &'q AtomicUsize,
    before: usize,
}

impl<'q> Waiting<'q> {
    fn begin(count: &'q AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_would_wait_too_long_is_told_at_once_and_for_how_long() {
        let queue = PasswordQueue::new(2);
        for _ in 0..100 {
            queue.note_cost(Duration::from_secs(1));
        }
        let first = [(); 2].map(|()| queue.enter().now_or_never().expect("at once").expect("room"));
        assert!(first.iter().all(|turn| !turn.waited));
        let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(queue.enter())).collect();
        let refused = waiting.iter_mut().filter_map(FutureExt::now_or_never).filter(Result::is_err);
        assert_eq!(refused.count(), 3, "seventeen wait for eight seconds, two at a time");
    }

    #[test]
    fn who_gives_up_waiting_is_not_counted_and_the_next_has_its_turn() {
        let queue = PasswordQueue::new(1);
        let first = queue.enter().now_or_never().expect("at once").expect("room");
        let mut gives_up = Box::pin(queue.enter());
        let mut second = Box::pin(queue.enter());
        assert!(gives_up.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(queue.wait(), 2 * FIRST_COST);
        drop(gives_up);
        assert_eq!(queue.wait(), FIRST_COST);
        drop(first);
        let turn = second.as_mut().now_or_never().expect("its turn").expect("room");
        assert!(turn.waited);
        drop(second);
        assert_eq!(queue.wait(), Duration::ZERO);
    }
}
