//! The embedded SQLite backend: one file, one writer, a few readers.
//!
//! ```text
//! store ── writer                       the one connection that writes; a transaction at a time
//!   │      readers                      a pool; each sees the last commit
//!   ├── message_log ── append · read · retained ── topics
//!   ├── session_store ── inflight · wakes · wills
//!   ├── outbox ── claims · settlements · dead_letters · lag · wakes
//!   └── directory · push_registry · audit · key_store
//! ```
//!
//! SQLite has one writer at a time, so a transaction that holds the write lock sees everything committed
//! before it and is seen by everything after it; nothing runs beside it.

mod append;
mod audit;
mod backup;
mod claims;
mod dead_letters;
mod directory;
mod directory_snapshot;
mod error;
mod inflight;
mod key_store;
mod lag;
pub mod limits;
mod log_id;
mod message_log;
mod message_row;
mod migrations;
mod number;
mod open_error;
mod outbox;
mod publications;
mod push_registry;
mod read;
mod restoration;
mod retained;
mod retention;
mod session_store;
mod settlements;
mod store;
mod store_check;
mod tenants;
mod topics;
mod wakes;
mod wills;
mod writer;

pub use backup::BackupError;
pub use open_error::OpenError;
pub use store::SqliteStore;
