//! Sessions whose stored progress is older than theirs.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::session_entry::SessionEntry;

#[derive(Default)]
pub(crate) struct Unsaved {
    /// Each session once. Locked by sessions to enter, and by the sweep.
    entries: Mutex<Vec<Weak<SessionEntry>>>,
}

impl Unsaved {
    pub(crate) fn add(&self, entry: &Arc<SessionEntry>) {
        if entry.set_unsaved() {
            self.entries.lock().push(Arc::downgrade(entry));
        }
    }

    /// Wakes each that is still unsaved, to see to it.
    pub(crate) fn wake(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        let kept: Vec<_> = entries
            .into_iter()
            .filter(|entry| entry.upgrade().is_some_and(|entry| entry.stays_unsaved()))
            .collect();
        for entry in kept.iter().filter_map(Weak::upgrade) {
            entry.wake();
        }
        self.entries.lock().extend(kept);
    }
}
