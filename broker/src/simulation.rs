//! A whole node, its clients and its store in one thread, under a clock that is not the machine's: what a seed
//! decides happens again with the same seed.
//!
//! ```text
//! plan      what a seed decides: who there is, how they behave, how long each life of the node lasts
//! world     lives of one node on one store, each ending in a crash, a stop, or calm
//! client    a phone: line (packets on a pipe) · memory (what it keeps between connections)
//! oracle    who sent, acknowledged and received what; what must hold
//! trace     what happened, to be compared and to be read
//! ```
//!
//! `SOTTO_SIM_SEED=n cargo test -p sotto one_seed_by_name -- --ignored --nocapture` shows one seed's trace,
//! `SOTTO_SIM_SEEDS=FROM..TO cargo test -p sotto every_seed` runs others than the default ones.

mod client;
mod line;
mod memory;
mod oracle;
mod plan;
mod surroundings;
mod trace;
mod world;

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::simulation::world::{Outcome, simulate};

/// Seeds that a plain test run goes through.
const SEEDS: Range<u64> = 0..300;
/// Seeds that have found something, and what.
const FOUND: &[(u64, &str)] = &[
    (10, "a connection panicked at SUBSCRIBE after a retained message that was settled long ago"),
    (14, "an opening that was committed and not answered told its client of a session of its own making"),
    (1550, "of two messages in flight with one place in the log, the second was given up at a resume"),
];

fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("SOTTO_SIM_SEEDS") else { return SEEDS };
    let (from, to) = asked.split_once("..").expect("SOTTO_SIM_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn report(seed: u64, outcome: &Outcome) -> Option<String> {
    (!outcome.violations.is_empty()).then(|| format!("seed {seed}: {}", outcome.violations.join("; ")))
}

#[test]
fn nothing_acknowledged_is_lost_under_every_seed() {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut found: Vec<String> = std::thread::scope(|scope| {
        let turn = || {
            let mut found = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return found;
                }
                found.extend(report(seed, &simulate(seed)));
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(turn)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    found.sort();
    assert!(found.is_empty(), "{} seeds:\n{}", found.len(), found.join("\n"));
}

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    for (seed, what) in FOUND {
        let found = report(*seed, &simulate(*seed));
        assert!(found.is_none(), "{what}: {}", found.unwrap_or_default());
    }
}

#[test]
fn one_seed_run_twice_leaves_the_same_trace() {
    for seed in [1, 2, 3, 4] {
        let (first, second) = (simulate(seed).trace, simulate(seed).trace);
        let differs = first.lines().iter().zip(second.lines()).position(|(a, b)| a != b);
        if let Some(at) = differs {
            let from = at.saturating_sub(5);
            panic!("seed {seed}: {:#?}\nbut {:#?}", &first.lines()[from..=at], &second.lines()[from..=at]);
        }
        assert_eq!(first.lines().len(), second.lines().len(), "seed {seed}");
        assert!(first.lines().len() > 100, "something happens");
    }
}

/// Written to by a child of the test below.
const DIGEST_FILE: &str = "SOTTO_SIM_DIGEST_FILE";

#[test]
fn one_seed_run_in_two_processes_leaves_the_same_trace() {
    const SEED: u64 = 5;
    if let Ok(file) = std::env::var(DIGEST_FILE) {
        let digest = simulate(SEED).trace.digest();
        std::fs::write(file, digest.to_string()).expect("write digest");
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let in_child = |name: &str| {
        let file: PathBuf = folder.path().join(name);
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "simulation::one_seed_run_in_two_processes_leaves_the_same_trace"])
            .env(DIGEST_FILE, &file)
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.expect("runs").success());
        std::fs::read_to_string(file).expect("a digest")
    };
    assert_eq!(in_child("one"), in_child("two"));
}

#[test]
#[ignore = "shows the trace of the seed in SOTTO_SIM_SEED"]
#[expect(clippy::disallowed_macros, reason = "it is there to be read")]
fn one_seed_by_name() {
    let seed = std::env::var("SOTTO_SIM_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    let outcome = simulate(seed);
    println!("{}", outcome.trace.lines().join("\n"));
    assert_eq!(report(seed, &outcome), None);
}
