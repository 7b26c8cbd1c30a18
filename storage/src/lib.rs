//! The storage traits, group commit, the in-memory tail, and the conformance suite for every backend.
