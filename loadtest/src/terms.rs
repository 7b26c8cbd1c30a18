//! In which way the clients of a crew connect.

use serde::{Deserialize, Serialize};

/// What differs between the crews of a run; all else is as its command line says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// Which of the run's ways to the broker.
    pub(crate) way: usize,
    /// Connections begun per second by all of the crew.
    pub(crate) connect_rate: f64,
    /// Of all of the crew.
    pub(crate) connect_in_flight: usize,
    /// Sessions carry little: TLS is to cost as little memory as it can.
    pub(crate) lean: bool,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry_seconds: u32,
}
