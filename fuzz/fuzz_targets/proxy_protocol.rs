//! Whatever is sent as a PROXY protocol header is understood or refused.
//!
//! `cargo +nightly fuzz run proxy_protocol fuzz/corpus/proxy_protocol broker/tests/corpus/proxy_protocol -- -max_len=2100`
//!
//! An input that fails belongs into `broker/tests/corpus/proxy_protocol`, where the tests replay it.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../broker/src/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../../broker/src/proxy_protocol/soundness.rs"]
mod soundness;

fuzz_target!(|input: &[u8]| soundness::check_input(input));
