//! Which member of a group gets which message: pure, and told by the caller who has room.
//!
//! ```text
//!          add                hand_out               done
//! (new) ────────▶ waiting ──────────────▶ lent ─────────────▶ (gone)
//!                    ▲                     │
//!                    └─────────────────────┘
//!                           give_back
//! ```
//!
//! Messages are handed out in their order; one that comes back is older than those that wait, and goes first.

use std::collections::BTreeMap;

use crate::share::ticket::Sequence;

pub(crate) struct Distribution<M, T> {
    members: Vec<M>,
    /// Index of the member whose turn it is.
    turn: usize,
    waiting: BTreeMap<Sequence, Held<T>>,
    lent: BTreeMap<Sequence, Held<T>>,
    next: Sequence,
    bytes: usize,
}

struct Held<T> {
    message: T,
    bytes: usize,
}

/// What a member said to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// Not now.
    Full,
    /// Never: the member may not have it.
    Denied,
}

/// What a round of offers to all members came to.
enum Round {
    TakenBy(usize),
    /// Nobody who may have it has room.
    Waits {
        /// Somebody may not have it: another message may find a taker.
        some_denied: bool,
    },
    /// No member may have it.
    Denied,
}

impl<M, T> Distribution<M, T> {
    pub(crate) fn new() -> Self {
        Self {
            members: Vec::new(),
            turn: 0,
            waiting: BTreeMap::new(),
            lent: BTreeMap::new(),
            next: Sequence(0),
            bytes: 0,
        }
    }

    pub(crate) fn members(&self) -> &[M] {
        &self.members
    }

    pub(crate) fn members_mut(&mut self) -> &mut [M] {
        &mut self.members
    }

    pub(crate) fn join(&mut self, member: M) {
        self.members.push(member);
    }

    pub(crate) fn leave(&mut self, is_it: impl Fn(&M) -> bool) -> Option<M> {
        let at = self.members.iter().position(is_it)?;
        // Whose turn it is stays, unless it was this one's.
        if at < self.turn {
            self.turn -= 1;
        }
        Some(self.members.remove(at))
    }

    pub(crate) fn add(&mut self, message: T, bytes: usize) {
        let sequence = self.next;
        self.next = Sequence(sequence.0 + 1);
        self.bytes += bytes;
        self.waiting.insert(sequence, Held { message, bytes });
    }

    /// Offers what waits to the members, each beginning with the member after the one that took the last.
    /// Returns the messages that no member may have.
    pub(crate) fn hand_out(&mut self, mut offer: impl FnMut(&M, Sequence, &T) -> Offered) -> Vec<T> {
        let mut denied = Vec::new();
        let mut from = Sequence(0);
        while let Some((&sequence, held)) = self.waiting.range(from..).next() {
            from = Sequence(sequence.0 + 1);
            match round(&self.members, self.turn, |member| offer(member, sequence, &held.message)) {
                Round::TakenBy(member) => {
                    self.turn = member + 1;
                    let held = self.waiting.remove(&sequence).expect("just found");
                    self.lent.insert(sequence, held);
                }
                Round::Waits { some_denied: true } => {}
                Round::Waits { some_denied: false } => break,
                Round::Denied => {
                    let held = self.waiting.remove(&sequence).expect("just found");
                    self.bytes -= held.bytes;
                    denied.push(held.message);
                }
            }
        }
        denied
    }

    /// False for a message that is not lent.
    pub(crate) fn done(&mut self, sequence: Sequence) -> bool {
        let Some(held) = self.lent.remove(&sequence) else { return false };
        self.bytes -= held.bytes;
        true
    }

    pub(crate) fn give_back(&mut self, sequence: Sequence) {
        if let Some(held) = self.lent.remove(&sequence) {
            self.waiting.insert(sequence, held);
        }
    }

    /// Messages that are not done.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.lent.len()
    }

    /// Of the messages that are not done.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is not done, in order.
    pub(crate) fn pending(&self) -> Vec<&T> {
        let mut pending: Vec<(&Sequence, &Held<T>)> = self.waiting.iter().chain(&self.lent).collect();
        pending.sort_by_key(|(sequence, _)| **sequence);
        pending.into_iter().map(|(_, held)| &held.message).collect()
    }
}

/// Offers one message to all members in turn, until one takes it.
fn round<M>(members: &[M], turn: usize, mut offer: impl FnMut(&M) -> Offered) -> Round {
    let mut denied = 0;
    for step in 0..members.len() {
        let at = (turn + step) % members.len();
        match offer(&members[at]) {
            Offered::Taken => return Round::TakenBy(at),
            Offered::Full => {}
            Offered::Denied => denied += 1,
        }
    }
    if denied > 0 && denied == members.len() {
        Round::Denied
    } else {
        Round::Waits { some_denied: denied > 0 }
    }
}

#[cfg(test)]
mod tests;
