//! A real store, a real committer, and a push service of the tests' own: HTTPS on loopback.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "../../src/testing.rs"]
pub(crate) mod clock;
pub(crate) mod flaky_outbox;
pub(crate) mod house;
pub(crate) mod log;
pub(crate) mod push_service;
