//! Every bound that more than one crate must agree on, in one place, with its unit.
//!
//! The constants hold for every node. [`ClientLimits`](crate::ClientLimits) is what one node allows its
//! clients within them.

use std::time::Duration;

/// Longest Client Identifier accepted, bytes of UTF-8.
pub const CLIENT_ID_BYTES_MAX: usize = 256;
/// Longest topic name or filter, bytes of UTF-8.
pub const TOPIC_BYTES_MAX: usize = 1024;
/// Deepest topic name or filter, levels.
pub const TOPIC_LEVELS_MAX: usize = 256;
/// Largest MQTT packet accepted and announced, bytes, fixed header included.
pub const PACKET_BYTES_MAX: u32 = 1024 * 1024;
/// Largest packet accepted before authentication (CONNECT), bytes.
pub const CONNECT_PACKET_BYTES_MAX: u32 = 96 * 1024;
/// Unacknowledged QoS 1 and 2 PUBLISH packets accepted from one client (our Receive Maximum).
pub const RECEIVE_MAXIMUM: u16 = 128;
/// Unacknowledged QoS 1 and 2 PUBLISH packets sent to one client, whatever it would take.
pub const INFLIGHT_MAX: u16 = 128;
/// Topic Aliases that a client may set on one connection (our Topic Alias Maximum).
pub const TOPIC_ALIAS_MAXIMUM: u16 = 32;
/// Topic Aliases set towards one client, whatever it would take.
pub const TOPIC_ALIASES_SENT_MAX: u16 = 16;
/// Subscriptions one session may hold.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 1024;
/// Sessions one tenant may have, connected or stored.
pub const SESSIONS_PER_TENANT_MAX: usize = 10_000_000;
/// Topic filters in one SUBSCRIBE or UNSUBSCRIBE.
pub const FILTERS_PER_PACKET_MAX: usize = 1024;
/// User properties in one packet.
pub const USER_PROPERTIES_MAX: usize = 64;
/// Longest session expiry granted, seconds (180 days).
pub const SESSION_EXPIRY_SECONDS_MAX: u32 = 180 * 24 * 3600;
/// Devices one user may have.
pub const DEVICES_PER_USER_MAX: usize = 32;
/// Members one conversation may have.
pub const CONVERSATION_MEMBERS_MAX: usize = 10_000;
/// Access rules that one tenant may have in the store, and again in the configuration.
pub const ACL_RULES_PER_TENANT_MAX: usize = 256;
/// Shared subscriptions (groups) one tenant may have.
pub const SHARES_PER_TENANT_MAX: usize = 10_000;
/// Sessions that may share one subscription.
pub const SHARE_MEMBERS_MAX: usize = 1024;
/// Messages of one shared subscription that are handed out, or came back, and are not done.
pub const SHARE_PENDING_MAX: usize = 1024;
/// Bytes of those messages past which no more are handed out.
pub const SHARE_PENDING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages of shared subscriptions that wait for one session to send them; no more than its client has room
/// for.
pub const SHARE_LOANS_WAITING_MAX: usize = 64;

/// How long a publication id is remembered at least: as long as a phone that was offline may publish again what
/// it has not heard of.
pub const PUBLICATION_ID_WINDOW: Duration = Duration::from_hours(72);
/// Topics with a retained message that a node knows of; with more, it asks the store for every subscription.
pub const RETAINED_TOPICS_KNOWN_MAX: usize = 262_144;
/// Messages in one commit.
pub const BATCH_RECORDS_MAX: usize = 1024;
/// Sealed bytes in one commit.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that may wait for a commit on this node.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Changes to stored sessions in one transaction.
pub const SESSION_BATCH_OPS_MAX: usize = 512;
/// Bytes of changes to stored sessions that may wait on this node: once for those that a connection waits
/// for, once for the others.
pub const SESSION_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Records a mailbox holds before its session falls behind.
pub const MAILBOX_RECORDS_MAX: usize = 65_536;
/// Bytes a mailbox holds before its session falls behind.
pub const MAILBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Records in one page of a catch-up read.
pub const PAGE_RECORDS_MAX: usize = 128;
/// Bytes of payload in one page of a catch-up read (the first record is returned whatever its size).
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of recent log kept in memory on this node.
pub const TAIL_BYTES_MAX: usize = 64 * 1024 * 1024;
