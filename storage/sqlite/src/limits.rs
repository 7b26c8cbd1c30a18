//! The bounds of this backend, with their units.

use std::time::Duration;

/// Connections that read.
pub const READERS_MAX: u32 = 4;
/// How long a read waits for a connection.
pub const READER_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a connection waits for a lock that another process holds, such as the command line's.
pub const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Time between checkpoints beside the writer.
pub const CHECKPOINT_EVERY: Duration = Duration::from_millis(250);
/// Pages of the write-ahead log at which the writer itself makes a checkpoint: 80 MiB.
pub const WAL_CHECKPOINT_PAGES: u32 = 20_000;
/// What the write-ahead log is cut down to after a checkpoint, bytes.
pub const WAL_KEPT_BYTES_MAX: u32 = 128 * 1024 * 1024;
/// Page cache of the writer, KiB.
pub const WRITER_CACHE_KIB_MAX: u32 = 64 * 1024;
/// Page cache of one reader, KiB.
pub const READER_CACHE_KIB_MAX: u32 = 8 * 1024;

/// Faults of the file that SQLite names before it stops looking.
pub const FILE_FAULTS_MAX: usize = 1000;

/// Members of the conversations of one turn of the relay, but for those of its last message: commits wait for it.
pub const RELAY_MEMBERS_MAX: usize = 20_000;
/// Rows in one INSERT of messages.
pub const INSERT_ROWS_MAX: usize = 64;
/// Topic names whose number is held in memory.
pub const TOPIC_CACHE_ENTRIES_MAX: usize = 65_536;
/// Topics looked at for the wildcards of one read: each costs as many places as a page has records. Wider
/// ones read the log itself, in slices.
pub const READ_TOPICS_MAX: usize = 1024;
/// Places in the log looked at by one read of a wide wildcard.
pub const SCAN_RECORDS_MAX: usize = 8192;
/// Topic names fetched at a time.
pub const TOPIC_PAGE_NAMES: usize = 1024;
/// Topic names looked at for one page of retained messages.
pub const RETAINED_NAMES_MAX: usize = 8192;
/// Sessions marked disconnected in one transaction at start.
pub const RECOVER_SESSIONS_MAX: usize = 256;
