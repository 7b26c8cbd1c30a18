//! A store in memory, for tests: it keeps nothing past its life, reads no clock, draws no random numbers, and
//! answers in the same order every time.
//!
//! ```text
//! store ── state                        everything, under one lock: a call is a transaction
//!   ├── message_log
//!   ├── session_store ── wakes · wills
//!   ├── outbox ── wakes
//!   ├── retention ── directory
//!   └── directory · push_registry · audit · key_store
//! faulty_store ── faults                the same, through calls that fail, wait, or commit and say that they failed
//! ```

mod audit;
mod directory;
pub mod faults;
pub mod faulty_store;
mod key_store;
mod message_log;
mod outbox;
mod push_registry;
mod retention;
mod session_store;
mod state;
mod store;
mod wakes;
mod wills;

pub use faults::FaultRates;
pub use faulty_store::FaultyStore;
pub use store::{MemoryStore, SessionView};
