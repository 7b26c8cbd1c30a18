//! The PostgreSQL backend.
//!
//! Every trait of `sotto-storage`, over five lanes of connections: one that appends to the log, one for
//! session changes, a few that read, a few for the rest; and one, now and then, that deletes. Statements are written for lookups by index and
//! for few round trips; what they must guarantee is said beside them.

mod append;
mod audit;
mod batch_columns;
mod claims;
mod column;
mod dead_letters;
mod directory;
mod directory_snapshot;
mod fault;
mod key_store;
mod lag;
mod lane;
mod limits;
mod log_read;
mod low_watermark;
mod message_log;
mod migrations;
mod open_error;
mod outbox;
mod push_registry;
mod read_queue;
mod restoration;
mod retention;
mod session_fold;
mod session_store;
mod settlements;
mod store;
mod store_check;
mod topics;
mod wake_check;
mod wake_due;
mod weeks;
mod wills;
mod writer;

#[cfg(feature = "testing")]
pub mod testing;

pub use open_error::OpenError;
pub use store::{PostgresOptions, PostgresStore};
