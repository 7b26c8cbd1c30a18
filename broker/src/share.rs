//! Shared subscriptions: `$share/<name>/<filter>`, each message to one member of the group.
//!
//! A group is routed to like a session: it has an entry with the filter as its subscription and a mailbox,
//! falls behind and reads the log like one, and is stored like one while a member's session is. What it comes
//! by it lends to its members, who say when a message is done.
//!
//! ```text
//! router ─▶ the group's mailbox ─▶ Distribution ─▶ a member's Desk ─▶ its connection ─▶ client
//!           or the log                   ▲                                │
//!                                        └──────── Ticket: done ──────────┘
//!                                                  or given back
//! ```

pub(crate) mod desk;
pub(crate) mod distribution;
pub(crate) mod driver;
pub(crate) mod group;
pub(crate) mod groups;
mod intake;
pub(crate) mod name;
pub(crate) mod storing;
pub(crate) mod ticket;
