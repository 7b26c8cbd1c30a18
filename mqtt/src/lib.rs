//! MQTT 3.1.1 and 5.0, sans-io: the codec, and the session as a state machine.
//!
//! Nothing here opens a socket, reads a clock or knows a store.

pub mod codec;
pub mod delivery;
pub mod handshake;
pub mod inflight;
pub mod packet;
pub mod reason;
mod received;
pub mod session;
mod topic_alias;
