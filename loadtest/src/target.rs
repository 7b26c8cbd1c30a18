//! What a run was made against.

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) address: String,
    /// TLS version and suite.
    pub(crate) transport: String,
    pub(crate) protocol: &'static str,
}
