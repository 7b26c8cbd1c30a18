//! A log and a session store whose database fails on demand, and real sealed messages to put there.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod clock;
pub(crate) mod log;
pub(crate) mod sealer;
pub(crate) mod sessions;
