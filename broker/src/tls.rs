//! TLS: what the listener offers, and one connection's record layer.

mod config;
mod lean_aead;
mod record_layer;

pub(crate) use config::server_config;
pub(crate) use record_layer::{RecordLayer, TlsFailure};
