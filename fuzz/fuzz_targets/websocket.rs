//! Whatever a client sends, before the upgrade or after it, a WebSocket stays sound.
//!
//! `cargo +nightly fuzz run websocket fuzz/corpus/websocket broker/tests/corpus/websocket -- -max_len=4096`
//!
//! An input that fails belongs into `broker/tests/corpus/websocket`, where the tests replay it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../broker/src/websocket/soundness.rs"]
mod soundness;
#[path = "../../broker/src/websocket.rs"]
mod websocket;

fuzz_target!(|input: &[u8]| soundness::check_input(input));
