//! What happened, line by line, with the time at which it did.

use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use sotto_model::UnixMillis;

pub(super) struct Trace {
    /// Locked by whoever notes something, for one line.
    lines: Mutex<Vec<String>>,
    began: UnixMillis,
}

/// A trace to which nothing is added any more.
pub(super) struct Traced(Vec<String>);

impl Trace {
    pub(super) fn new(began: UnixMillis) -> Self {
        Self { lines: Mutex::new(Vec::new()), began }
    }

    pub(super) fn note(&self, now: UnixMillis, what: std::fmt::Arguments<'_>) {
        let ms = now.since(self.began).as_millis();
        self.lines.lock().push(format!("{ms:>7} {what}"));
    }

    pub(super) fn end(&self) -> Traced {
        Traced(std::mem::take(&mut *self.lines.lock()))
    }
}

impl Traced {
    pub(super) fn lines(&self) -> &[String] {
        &self.0
    }

    /// The same for the same trace, in every process.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}
