//! What the load is doing.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Publishers send nothing new, and see through what they sent; subscribers take what is left.
    Draining,
    Over,
}

/// The phase from here on, once it changes.
pub(crate) async fn changed(phase: &mut watch::Receiver<Phase>) -> Phase {
    match phase.changed().await {
        Ok(()) => *phase.borrow_and_update(),
        Err(_) => Phase::Over,
    }
}
