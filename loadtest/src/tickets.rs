//! TLS tickets that the broker has given to earlier connections, for later ones.
//!
//! Clients of a run are alike to the broker's TLS, so any of them may offer any ticket: a phone's reconnect
//! is told by what the broker does, not by whose ticket it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::limits::TICKETS_MAX;

/// What the connections of a run share. Two stores stand before it: one that offers, one that only keeps.
#[derive(Debug, Default)]
struct Pool {
    /// Each is offered once. [RFC 8446, C.4]
    tls13: VecDeque<Tls13ClientSessionValue>,
    tls12: Option<Tls12ClientSessionValue>,
    kx_hint: Option<NamedGroup>,
}

#[derive(Debug)]
pub(crate) struct Tickets {
    offers: bool,
    /// Locked by every handshake and by every ticket that arrives, for a push or a pop.
    pool: Arc<Mutex<Pool>>,
}

impl Tickets {
    /// The store that offers what has been kept, and the one that only keeps.
    pub(crate) fn offering_and_keeping() -> (Self, Self) {
        let pool = Arc::<Mutex<Pool>>::default();
        (Self { offers: true, pool: Arc::clone(&pool) }, Self { offers: false, pool })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Nothing that is done under the lock can leave it half done.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.pool().kx_hint = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.pool().kx_hint
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.pool().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.offers.then(|| self.pool().tls12.clone()).flatten()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.pool().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut pool = self.pool();
        if pool.tls13.len() == TICKETS_MAX {
            pool.tls13.pop_front();
        }
        pool.tls13.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.offers.then(|| self.pool().tls13.pop_front()).flatten()
    }
}
