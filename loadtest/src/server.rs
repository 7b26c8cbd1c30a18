//! What the broker uses, from wherever it can be seen: its process on this machine, or its own metrics.

use crate::server_metrics::ServerMetrics;
use crate::server_process::{ServerProcess, ServerSample};

#[derive(Clone, Debug)]
pub(crate) enum Server {
    Process(ServerProcess),
    Metrics(ServerMetrics),
}

impl Server {
    /// `None` when it has gone, or does not answer.
    pub(crate) fn sample(&self) -> Option<ServerSample> {
        match self {
            Self::Process(process) => process.sample().ok(),
            Self::Metrics(metrics) => metrics.sample().ok(),
        }
    }
}
