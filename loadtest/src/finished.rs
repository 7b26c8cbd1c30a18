//! What a run has come to, whoever did its work.

use crate::counters::Totals;
use crate::worker::ConnectTally;

/// What has been counted when all is over.
pub(crate) struct Finished<T> {
    pub(crate) connects: ConnectTally,
    /// Of clients that came back.
    pub(crate) returns: ConnectTally,
    /// Of each thread.
    pub(crate) outcomes: Vec<T>,
    pub(crate) totals: Totals,
}
