//! A connection's name.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a connection for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(NonZeroU64);

impl ConnectionId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroU64::new(next).expect("they begin with 1, and 2^64 are not made"))
    }
}
