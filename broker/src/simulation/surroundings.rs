//! What a client sees of the life that it is in.

use tokio::io::DuplexStream;

use crate::simulation::oracle::{MessageNo, Oracle};

pub(super) const PASSWORD: &str = "simulated password";
/// What the store refuses, whoever publishes it.
pub(super) const POISON: &str = "a/poison";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything happens.
    Busy,
    /// Some are offline.
    Sleep,
    /// And nobody publishes.
    Hush,
    /// Nothing goes wrong any more, and nobody publishes.
    Calm,
    /// Everybody is connected and publishes a last few.
    Last,
}

pub(super) trait Surroundings: Send + Sync {
    fn phase(&self) -> Phase;

    /// Things go wrong, also by clients' own doing.
    fn is_busy(&self) -> bool {
        self.phase() == Phase::Busy
    }

    fn note(&self, what: std::fmt::Arguments<'_>);

    /// A line to the node; nobody listens at its other end where the node is stopping.
    fn dial(&self) -> DuplexStream;

    fn oracle(&self) -> &Oracle;

    fn payload(&self, message: MessageNo) -> String;

    /// Has everything that the user was told is published on the topic been committed?
    fn is_durable(&self, user: Option<usize>, topic: &str) -> Result<(), String>;
}
