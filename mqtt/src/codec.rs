//! The wire: bytes to packets and back.
//!
//! The decoder takes packets of both directions and refuses whatever the specifications call malformed or
//! a protocol error by looking at one packet alone. What needs memory of the connection (whether a packet
//! may come from this side, topic aliases, packet identifiers in use) is the session's business; so is
//! everything that is answered for one topic or filter rather than by closing: their length and depth, and
//! the Client Identifier.

pub mod decode;
pub mod encode;
pub mod packet_type;
pub mod properties;
pub mod property;

mod connect;
mod decode_error;
mod filters;
mod fixed_header;
mod primitive;
mod topic_filter;
mod topic_name;

pub use connect::connect_version;
pub use decode::decode;
pub use decode_error::DecodeError;
pub use fixed_header::{check_from_client, packet_len};
