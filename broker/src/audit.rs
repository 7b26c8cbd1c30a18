//! Audit rows of refusals, written behind the connections that caused them.
//!
//! Changes by operators write their row in their own transaction; a refusal changes nothing, so its row may
//! follow. The queue is bounded; what finds no room is counted, so that a flood of refusals is seen and
//! cannot hold up anybody.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use sotto_storage::Store;
use sotto_storage::audit::AuditEvent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Events waiting to be written.
const QUEUE_EVENTS_MAX: usize = 8192;
/// Events in one write.
const WRITE_EVENTS_MAX: usize = 256;
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Audit {
    queue: mpsc::Sender<AuditEvent>,
}

impl Audit {
    pub(crate) fn start(store: Arc<dyn Store>, tasks: &TaskTracker, shutdown: CancellationToken) -> Self {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS_MAX);
        tasks.spawn(write(store, events, shutdown));
        Self { queue }
    }

    pub(crate) fn record(&self, event: AuditEvent) {
        if self.queue.try_send(event).is_err() {
            counter!("sotto_audit_lost_total").increment(1);
        }
    }
}

async fn write(store: Arc<dyn Store>, mut events: mpsc::Receiver<AuditEvent>, shutdown: CancellationToken) {
    let mut batch = Vec::with_capacity(WRITE_EVENTS_MAX);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                while let Ok(event) = events.try_recv() {
                    batch.push(event);
                }
                if !batch.is_empty() && store.record(&batch).await.is_err() {
                    counter!("sotto_audit_lost_total").increment(batch.len() as u64);
                }
                return;
            }
            taken = events.recv_many(&mut batch, WRITE_EVENTS_MAX) => if taken == 0 { return },
        }
        while store.record(&batch).await.is_err() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
        batch.clear();
    }
}
