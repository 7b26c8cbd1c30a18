//! What is to go wrong, with which request.

use std::collections::VecDeque;

use h2::Reason;
use parking_lot::Mutex;

use crate::request::Answer;

#[derive(Clone, Debug)]
pub enum Fault {
    /// This, whatever the request is.
    Answer(Answer),
    /// RST_STREAM.
    Reset(Reason),
    /// The request is never answered; others on its connection are.
    Stall,
    /// GOAWAY with this request as the last one. It is answered, those before it too; those after it on the
    /// connection are not looked at.
    GoAway(Reason),
    /// The connection neither reads nor writes any more.
    Freeze,
}

/// The faults of the requests to come, in their order.
#[derive(Default)]
pub struct Script(Mutex<VecDeque<Option<Fault>>>);

impl Script {
    /// With the next request that has none yet.
    pub fn add(&self, fault: Fault) {
        self.0.lock().push_back(Some(fault));
    }

    /// Nothing goes wrong with so many requests.
    pub fn pass(&self, requests: usize) {
        self.0.lock().extend(std::iter::repeat_n(None, requests));
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }

    pub(crate) fn next(&self) -> Option<Fault> {
        self.0.lock().pop_front().flatten()
    }
}
