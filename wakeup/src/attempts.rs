//! How often, and how far apart, one wakeup is tried.

use std::time::Duration;

use sotto_model::Backoff;

pub(crate) struct Attempts {
    pub(crate) max: u32,
    pub(crate) wait_min: Duration,
    pub(crate) backoff: Backoff,
}
