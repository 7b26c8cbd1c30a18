//! What all clients of a crew do, wherever they do it.

use crate::worker::Role;

/// Processes of one run share nothing else, so it says everything; it can be sent to another.
pub(crate) trait Script: Clone + Send + 'static {
    type Role: Role;

    /// Clients that publish; the others come after them.
    fn publishers(&self) -> u32 {
        0
    }

    /// What makes the role of each thread of this process. What the threads share is made here, once.
    fn cast(self) -> impl Fn() -> Self::Role + Clone + Send + 'static;
}
