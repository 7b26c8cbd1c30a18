//! Kept wills on their way into the log.

use std::collections::HashMap;

use parking_lot::Mutex;
use sotto_model::MessageId;

/// Kept wills that were submitted to the log and may still be found in the store.
#[derive(Default)]
pub(crate) struct WillsUnderWay {
    /// Locked for a look or a change, by connections that end, the committer and the task that publishes.
    wills: Mutex<HashMap<MessageId, Stage>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Submitted,
    /// Found no more by a look that begins from here on.
    Committed,
    /// To be removed from the store, which will not take it.
    Refused,
}

impl WillsUnderWay {
    pub(crate) fn submitted(&self, will: MessageId) {
        self.wills.lock().insert(will, Stage::Submitted);
    }

    pub(crate) fn committed(&self, will: MessageId) {
        self.wills.lock().insert(will, Stage::Committed);
    }

    pub(crate) fn refused(&self, will: MessageId) {
        self.wills.lock().insert(will, Stage::Refused);
    }

    /// It was not submitted after all.
    pub(crate) fn withdrawn(&self, will: MessageId) {
        self.wills.lock().remove(&will);
    }

    pub(crate) fn is_under_way(&self, will: MessageId) -> bool {
        self.wills.lock().contains_key(&will)
    }

    /// Before a look: drops what it will not find, and returns what was refused.
    pub(crate) fn settle(&self) -> Vec<MessageId> {
        let mut refused = Vec::new();
        self.wills.lock().retain(|will, stage| {
            if *stage == Stage::Refused {
                refused.push(*will);
            }
            *stage == Stage::Submitted
        });
        refused
    }
}
