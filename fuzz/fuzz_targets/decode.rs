//! Whatever decodes can be walked, and means the same when it is encoded and decoded again.
//!
//! `cargo +nightly fuzz run decode fuzz/corpus/decode mqtt/tests/corpus/decode -- -max_len=4096`
//!
//! The first byte is the version, the rest the packet. An input that fails belongs into
//! `mqtt/tests/corpus/decode`, where the tests replay it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../mqtt/tests/common/soundness.rs"]
mod soundness;

fuzz_target!(|input: &[u8]| soundness::check_input(input));
