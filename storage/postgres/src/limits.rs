//! The bounds of this backend, with their units.

use std::time::Duration;

/// Connections that read the log, unless the options say otherwise.
pub(crate) const READERS_DEFAULT: usize = 4;
/// Connections for the directory, keys, wakeups and the audit.
pub(crate) const CONTROL_CONNECTIONS: usize = 2;
/// A connection must be open, authenticated and set up within this time.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller waits this long for one of a lane's connections to be free.
pub(crate) const LANE_TIMEOUT: Duration = Duration::from_secs(10);
/// One operation may take this long, network included; then its connection is given up.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
/// The server gives up a statement before the client gives up the operation, milliseconds.
pub(crate) const STATEMENT_TIMEOUT_MS: u32 = 10_000;
/// The server gives up a lock before it gives up the statement, milliseconds.
pub(crate) const LOCK_TIMEOUT_MS: u32 = 5_000;
/// A transaction whose client fell silent is rolled back, milliseconds.
pub(crate) const IDLE_IN_TRANSACTION_TIMEOUT_MS: u32 = 30_000;
/// Memory of one sort or tuple store on the writer's connection, kibibytes: a whole batch with room.
pub(crate) const WRITER_WORK_MEM_KIB: u32 = 32 * 1024;
/// Members of the conversations of one turn of the relay, but for those of its last outbox row: a fraction of a
/// second.
pub(crate) const RELAY_MEMBERS_MAX: usize = 20_000;
/// Messages in one outbox row: a kilobyte, so that it stays in its page uncompressed.
pub(crate) const OUTBOX_ROW_MESSAGES_MAX: usize = 32;
/// All migrations together may take this long.
pub(crate) const MIGRATION_TIMEOUT: Duration = Duration::from_hours(1);
/// Everything but the messages may take this long to be looked through.
pub(crate) const STATE_CHECK_TIMEOUT: Duration = Duration::from_hours(1);
/// What a restored store needs may take this long.
pub(crate) const RESTORATION_TIMEOUT: Duration = Duration::from_hours(1);
/// How long a claim of the log waits for a process that is just ending.
pub(crate) const CLAIM_WAIT: Duration = Duration::from_secs(3);
/// Time between two attempts while it waits.
pub(crate) const CLAIM_POLL: Duration = Duration::from_millis(50);
/// Topic ids kept in memory.
pub(crate) const TOPIC_CACHE_ENTRIES_MAX: usize = 200_000;
/// Topics read from the directory in one query while a wildcard is expanded.
pub(crate) const TOPICS_PER_PAGE: usize = 4096;
/// Topic names looked at for one page of retained messages.
pub(crate) const RETAINED_NAMES_MAX: usize = 8192;
/// Topics of one session whose messages one query reads; a read of more makes several queries and merges them.
pub(crate) const TOPICS_PER_READ: usize = 4096;
/// Topics of all sessions that one query reads for.
pub(crate) const TOPICS_PER_QUERY: usize = 8192;
/// Rows that a topic gives to a page at least, where it has them; and by how many times its even share at most.
pub(crate) const ROWS_PER_TOPIC_MIN: usize = 16;
pub(crate) const TOPIC_SHARES: usize = 4;
/// Sessions for which one query reads a page.
pub(crate) const READS_PER_QUERY_MAX: usize = 64;
/// Times that a read is asked for again, because who asked for it together with others went away.
pub(crate) const READ_TURNS_MAX: usize = 8;
/// Sessions marked disconnected in one transaction by `recover`.
pub(crate) const RECOVER_SESSIONS_PER_TURN: usize = 5_000;
/// Disconnected sessions for which one statement decides whether a wakeup is due.
pub(crate) const WAKE_CHECKS_PER_TURN: usize = 1_000;
/// A queue is scanned from its beginning this often, milliseconds; in between from where it was left.
pub(crate) const QUEUE_RESCAN_MS: u64 = 2_000;
/// Times that session changes are tried again after another process made the same session.
pub(crate) const SESSION_RACES_MAX: usize = 3;
/// Weeks of the log made ahead of the one that it is.
pub(crate) const WEEKS_AHEAD: u64 = 2;
/// How long the lock that closes an old week is waited for, milliseconds: readers of it would wait behind.
pub(crate) const WEEK_LOCK_TIMEOUT_MS: u32 = 100;
