//! Work that several ask for and one does.

use std::collections::HashMap;
use std::hash::Hash;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// Whoever asks for a key while its work is under way waits for that work. It goes on as long as one of
/// them waits: each drives it.
pub(crate) struct SingleFlight<K, V: Clone> {
    flights_max: usize,
    /// Locked to join or leave; no work is done under it.
    flights: Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>,
}

/// `flights_max` pieces of work are under way.
#[derive(Debug)]
pub(crate) struct Full;

impl<K: Eq + Hash + Clone, V: Clone> SingleFlight<K, V> {
    pub(crate) fn new(flights_max: usize) -> Self {
        Self { flights_max, flights: Mutex::new(HashMap::new()) }
    }

    pub(crate) async fn join(&self, key: K, work: impl FnOnce() -> BoxFuture<'static, V>) -> Result<V, Full> {
        let flight = self.board(&key, work)?;
        let value = flight.clone().await;
        let mut flights = self.flights.lock();
        // A later flight of the same key is not this one's to end.
        let ended = flights.get(&key).and_then(WeakShared::upgrade).is_none_or(|held| held.ptr_eq(&flight));
        if ended {
            flights.remove(&key);
        }
        Ok(value)
    }

    fn board(
        &self,
        key: &K,
        work: impl FnOnce() -> BoxFuture<'static, V>,
    ) -> Result<Shared<BoxFuture<'static, V>>, Full> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(key).and_then(WeakShared::upgrade) {
            return Ok(flight);
        }
        if flights.len() >= self.flights_max {
            // Those whose waiters all went away.
            flights.retain(|_, flight| flight.upgrade().is_some());
        }
        if flights.len() >= self.flights_max {
            return Err(Full);
        }
        let flight = work().shared();
        flights.insert(key.clone(), flight.downgrade().expect("not polled yet, so not finished"));
        Ok(flight)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_is_done_once_for_all_who_wait_and_anew_for_who_comes_later() {
        let flights = SingleFlight::new(8);
        let runs = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let work = || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            async move {
                let _open = gate.acquire().await.expect("never closed");
                runs.fetch_add(1, Ordering::SeqCst)
            }
            .boxed()
        };
        let mut waiters = futures::future::join_all((0..10).map(|_| flights.join("key", work)));
        assert!(futures::poll!(&mut waiters).is_pending());
        gate.add_permits(1);
        assert!(waiters.await.into_iter().all(|value| value.expect("room") == 0));
        assert_eq!(flights.join("key", work).await.expect("room"), 1);
        assert!(flights.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn abandoned_work_leaves_room_and_is_begun_anew() {
        let flights = SingleFlight::new(1);
        let mut abandoned = Box::pin(flights.join(1, || futures::future::pending().boxed()));
        assert!(futures::poll!(&mut abandoned).is_pending());
        assert!(flights.join(2, || async {}.boxed()).await.is_err());
        drop(abandoned);
        assert!(flights.join(2, || async {}.boxed()).await.is_ok());
    }
}
