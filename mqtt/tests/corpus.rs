//! Replays the inputs that the fuzz targets keep: what reached new code, and whatever once broke something.

#[path = "common/session_soundness.rs"]
mod session_soundness;
#[path = "common/soundness.rs"]
mod soundness;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn every_packet_of_the_corpus_is_sound_or_refused() {
    replay("decode", soundness::check_input);
}

#[test]
fn a_session_keeps_its_promises_with_every_input_of_the_corpus() {
    replay("session", session_soundness::check_input);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_session_keeps_its_promises_whatever_the_client_sends(input in vec(any::<u8>(), 0..400)) {
        session_soundness::check_input(&input);
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(dir).expect("the corpus is in the repository") {
        let path = entry.expect("read the corpus").path();
        check(&fs::read(path).expect("read an input"));
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is empty");
}
