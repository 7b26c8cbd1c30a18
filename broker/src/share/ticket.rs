//! A message lent to a member of a shared subscription: it is done with, or it goes back.

use std::sync::Arc;

/// Names a message within its group, in the order in which the group came by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(pub(crate) u64);

/// A group of subscribers, as its members see it.
pub(crate) trait Lender: Send + Sync {
    /// The message needs no delivery any more.
    fn done(&self, sequence: Sequence);
    /// The message is kept with a member's session, and is the group's no longer: that is to be stored soon.
    fn handed_over(&self, sequence: Sequence);
    /// The message is for another member.
    fn give_back(&self, sequence: Sequence);
    /// A member has room. Takes no lock.
    fn wake(&self);
}

/// Dropped before it is done, it gives the message back: however a connection ends, nothing is lost with it.
pub(crate) struct Ticket {
    /// Gone once the ticket is used.
    lender: Option<Arc<dyn Lender>>,
    sequence: Sequence,
}

impl Ticket {
    pub(crate) fn new(lender: Arc<dyn Lender>, sequence: Sequence) -> Self {
        Self { lender: Some(lender), sequence }
    }

    pub(crate) fn done(mut self) {
        if let Some(lender) = self.lender.take() {
            lender.done(self.sequence);
        }
    }

    pub(crate) fn handed_over(mut self) {
        if let Some(lender) = self.lender.take() {
            lender.handed_over(self.sequence);
        }
    }

    /// The loan did not come about.
    pub(crate) fn void(mut self) {
        self.lender = None;
    }

    pub(crate) fn is_of(&self, lender: &Arc<dyn Lender>) -> bool {
        self.lender.as_ref().is_some_and(|own| Arc::ptr_eq(own, lender))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(lender) = self.lender.take() {
            lender.give_back(self.sequence);
        }
    }
}
