//! What new handshakes are made with, and its replacement while connections stay.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use rustls::ServerConfig;
use sotto_model::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::tls::files::{Loaded, Stamp, TlsFiles, TlsFilesError};
use crate::tls::tickets::{TicketRoot, Tickets};

/// Between two looks at the files. Changed files are read once they were the same at two looks: a certificate
/// and its key are rarely written at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct LiveTls {
    files: TlsFiles,
    root: Arc<TicketRoot>,
    clock: Arc<dyn Clock>,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl LiveTls {
    pub(crate) fn load(
        files: TlsFiles,
        root: TicketRoot,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsFilesError> {
        let root = Arc::new(root);
        let loaded = files.load(|binding| Tickets::new(root.clone(), clock.clone(), binding))?;
        report(&loaded);
        Ok(Self { files, root, clock, current: watch::Sender::new(loaded.config) })
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.borrow().clone()
    }

    /// Reads the files anew. On an error what was in force stays.
    pub(crate) fn reload(&self) -> Result<Option<u64>, TlsFilesError> {
        let loaded = self.files.load(|binding| Tickets::new(self.root.clone(), self.clock.clone(), binding));
        let result = if loaded.is_ok() { "ok" } else { "failed" };
        counter!("sotto_tls_reloads_total", "result" => result).increment(1);
        let loaded = loaded.inspect_err(|error| {
            tracing::error!(event = "tls_reload_failed", error = %error, "new TLS files are not used");
        })?;
        report(&loaded);
        self.current.send_replace(loaded.config);
        tracing::info!(event = "tls_reloaded", "new handshakes use the TLS files as they are");
        Ok(loaded.not_after)
    }

    /// Reloads when a file has changed, or on SIGHUP.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        let Ok(mut hangup) = hangup else {
            tracing::error!(event = "signal_failed", "SIGHUP cannot be waited for");
            return;
        };
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = Changes::new(self.files.stamp());
        loop {
            let is_due = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = hangup.recv() => true,
                _ = looks.tick() => changes.are_settled(self.files.stamp()),
            };
            if is_due {
                // The error was logged, and the files are looked at again when they change.
                let _ = self.reload();
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact for longer than certificates are made for")]
fn report(loaded: &Loaded) {
    if let Some(seconds) = loaded.not_after {
        gauge!("sotto_tls_certificate_expires_seconds").set(seconds as f64);
    }
}

struct Changes {
    used: Stamp,
    last: Stamp,
}

impl Changes {
    fn new(used: Stamp) -> Self {
        Self { last: used.clone(), used }
    }

    fn are_settled(&mut self, now: Stamp) -> bool {
        let settled = now == self.last && now != self.used;
        if settled {
            self.used = now.clone();
        }
        self.last = now;
        settled
    }
}

#[cfg(test)]
mod tests;
