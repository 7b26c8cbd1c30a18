//! Replays the seeds of the fuzz target, and every input that once broke the codec.

#[path = "common/soundness.rs"]
mod soundness;

use std::fs;
use std::path::Path;

#[test]
fn every_input_of_the_corpus_is_sound_or_refused() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/decode");
    let mut replayed = 0;
    for entry in fs::read_dir(dir).expect("the corpus is in the repository") {
        let path = entry.expect("read the corpus").path();
        soundness::check_input(&fs::read(path).expect("read an input"));
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is empty");
}
