//! Envelope encryption at rest.
