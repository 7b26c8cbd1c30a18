//! What Sotto keeps, as traits; how commits are grouped; the recent tail of the log in memory; and the
//! conformance suite that every backend must pass.

pub mod audit;
mod batch;
pub mod budget;
pub mod committer;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod directory;
pub mod error;
pub mod group_commit;
pub mod message_log;
pub mod outbox;
pub mod publication_key;
pub mod push_registry;
pub mod restoration;
pub mod retention;
pub mod session_store;
pub mod session_writer;
pub mod store_check;
pub mod tail;
pub mod wakeup_quota;
pub mod wills;

use sotto_keyring::KeyStore;

pub use budget::Reservation;
pub use committer::{CommitSink, Committed, Committer};
pub use error::StoreError;
pub use session_writer::SessionWriter;
pub use tail::{Tail, TailPage, TailRecord, TenantLog};

/// One backend: everything that the broker keeps in one database.
pub trait Store:
    message_log::MessageLog
    + retention::Retention
    + session_store::SessionStore
    + wills::Wills
    + directory::Directory
    + push_registry::PushRegistry
    + outbox::Outbox
    + audit::AuditLog
    + KeyStore
{
}

impl<T> Store for T where
    T: message_log::MessageLog
        + retention::Retention
        + session_store::SessionStore
        + wills::Wills
        + directory::Directory
        + push_registry::PushRegistry
        + outbox::Outbox
        + audit::AuditLog
        + KeyStore
{
}
