//! Wakes a loop that would otherwise look only now and then.

use std::sync::Arc;

use tokio::sync::Notify;

/// Rung as often as one likes, heard once.
#[derive(Clone, Default)]
pub struct Signal(Arc<Notify>);

impl Signal {
    /// Never waits. What is rung while nobody listens is heard later.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn heard(&self) {
        self.0.notified().await;
    }
}
