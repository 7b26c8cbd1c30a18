//! What the two specifications demand of a server, statement by statement: docs/conformance.md names these
//! tests, and `table` holds it to that.

mod connect;
mod connect_malformed;
mod delivery;
mod errors;
mod expiry;
mod flow_control;
mod keep_alive;
mod packet_size;
mod properties;
mod publish;
mod retained;
mod sessions;
mod subscribe;
mod support;
mod table;
mod topics;
mod wills;
