//! What the conformance tests stand on: the broker's process, and a client that is written from the
//! specification, not from the product's codec.

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod packet;
pub(crate) mod write;
