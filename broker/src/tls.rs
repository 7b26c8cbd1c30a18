//! TLS: what the listener offers, and one connection's record layer.

mod config;
mod files;
mod lean_aead;
mod live;
mod record_layer;
mod tickets;
mod validity;

pub(crate) use files::{ClientCertificate, TlsFiles};
pub(crate) use live::LiveTls;
pub(crate) use record_layer::{RecordLayer, TlsFailure};
pub(crate) use tickets::TicketRoot;
