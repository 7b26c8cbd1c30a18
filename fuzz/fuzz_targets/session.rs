//! A session keeps its promises whatever its client sends and however its driver answers.
//!
//! `cargo +nightly fuzz run session fuzz/corpus/session mqtt/tests/corpus/session -- -max_len=1024`
//!
//! An input that fails belongs into `mqtt/tests/corpus/session`, where the tests replay it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../mqtt/tests/common/session_soundness.rs"]
mod session_soundness;

fuzz_target!(|input: &[u8]| session_soundness::check_input(input));
