//! What can go wrong in every backend.

/// Names the operation and the kind of fault; never a value from a row or the database's own text, which
/// may quote one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be asked at the moment; the same call may succeed later.
    #[error("store unavailable: {operation} ({code})")]
    Unavailable { operation: &'static str, code: String },
    /// The database refused a statement: a fault of ours or of its schema.
    #[error("store refused: {operation} ({code})")]
    Refused { operation: &'static str, code: String },
    /// The database answered what cannot be.
    #[error("store inconsistent: {0}")]
    Inconsistent(&'static str),
}

impl StoreError {
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
