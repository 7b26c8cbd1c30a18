//! Who may connect, publish, subscribe and receive.
//!
//! Everything here is decided in memory and at once: nothing awaits, does I/O or reads a clock. The
//! permits that it hands out are what later steps demand instead of asking again.

pub mod permit;

pub use permit::{Denied, PublishPermit};
