//! What two other codecs make of the same bytes. Each disagreement is of a class that
//! `docs/codec-differences.md` explains, and each class still occurs.

mod class;
mod disagreement;
mod edge_case;
mod oracle;

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::encode::write_remaining_length;
use sotto_mqtt::packet::{Packet, Version};

use class::{CLASSES, Class};
use common::versioned_packet;
use disagreement::{Disagreement, between};
use edge_case::{Verdict, edge_cases};
use oracle::Oracle;

/// Larger than any packet of these tests, bytes.
const PACKET_BYTES_MAX: u32 = 1 << 20;

#[test]
fn every_edge_case_gets_the_verdict_of_the_specification() {
    let mut wrong = Vec::new();
    for case in edge_cases() {
        let verdict = match decode(&case.bytes, case.version, PACKET_BYTES_MAX) {
            Ok(packet) => {
                assert!(packet.is_some(), "{}: not whole", case.name);
                Verdict::Taken
            }
            Err(error) => Verdict::Refused(error.reason),
        };
        if verdict != case.verdict {
            wrong.push(format!("{} in {:?}: {verdict:?}, not {:?}", case.name, case.version, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn edge_cases_are_disagreed_on_for_known_reasons() {
    for case in edge_cases() {
        explain(case.version, &case.bytes);
    }
}

#[test]
fn the_inputs_that_fuzzing_keeps_are_disagreed_on_for_known_reasons() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/decode");
    for entry in fs::read_dir(dir).expect("the corpus is in the repository") {
        let input = fs::read(entry.expect("read the corpus").path()).expect("read an input");
        let Some((&version, bytes)) = input.split_first() else { continue };
        if !bytes.is_empty() {
            explain(if version == 4 { Version::V3 } else { Version::V5 }, bytes);
        }
    }
}

#[test]
fn every_class_of_disagreement_still_occurs() {
    for class in CLASSES {
        for &oracle in class.oracles {
            let disagreement = between(oracle, class.version, class.example)
                .unwrap_or_else(|| panic!("{} agrees about: {}", oracle.name(), class.name));
            let classes: Vec<_> = classes_of(&disagreement).map(|class| class.name).collect();
            assert_eq!(classes, [class.name], "{}: {:?}", oracle.name(), disagreement.kind);
        }
    }
}

#[test]
fn every_class_of_disagreement_is_explained_in_the_documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/codec-differences.md");
    let page = fs::read_to_string(path).expect("the page is in the repository");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert_eq!(rows.len(), CLASSES.len(), "a row for each class, and none besides");
    for (row, class) in rows.into_iter().zip(CLASSES) {
        let example: Vec<_> = class.example.iter().map(|byte| format!("{byte:02x}")).collect();
        let codecs: Vec<_> = class.oracles.iter().map(|oracle| oracle.name()).collect();
        let begins = format!("| {} | {} | `{}` | ", class.name, codecs.join(", "), example.concat());
        assert!(row.starts_with(&begins), "{row}\nshould begin\n{begins}");
    }
}

proptest! {
    #[test]
    fn valid_packets_are_disagreed_on_for_known_reasons((version, packet) in versioned_packet()) {
        explain(version, &encoded(&packet, version));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn broken_packets_are_disagreed_on_for_known_reasons(
        (version, packet) in versioned_packet(),
        changes in vec((any::<prop::sample::Index>(), telling_byte()), 0..3),
        cut in any::<prop::sample::Index>(),
        grown in vec(telling_byte(), 0..4),
        first in prop::option::weighted(0.1, any::<u8>()),
    ) {
        let mut body = encoded(&packet, version);
        let header_len = 2 + body[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count();
        let first = first.unwrap_or(body[0]);
        body.drain(..header_len);
        // Half of the packets keep their length.
        if !grown.is_empty() && cut.index(2) == 0 {
            body.truncate(cut.index(body.len() + 1));
            body.extend(grown);
        }
        for (index, value) in changes {
            if !body.is_empty() {
                let index = index.index(body.len());
                body[index] = value;
            }
        }
        let mut bytes = vec![first];
        write_remaining_length(u32::try_from(body.len()).expect("small"), &mut bytes);
        bytes.extend(body);
        explain(version, &bytes);
    }
}

/// Any byte, and more often one at an edge.
fn telling_byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), 0..=8_u8, Just(b'#'), Just(0x7f), Just(0x80), Just(0xff)]
}

/// Panics at a disagreement that is of no class.
fn explain(version: Version, bytes: &[u8]) {
    for oracle in Oracle::ALL {
        if let Some(disagreement) = between(oracle, version, bytes) {
            assert!(
                classes_of(&disagreement).next().is_some(),
                "{} in {:?}: {:?}\n{:02x?}",
                oracle.name(),
                disagreement.version,
                disagreement.kind,
                disagreement.bytes,
            );
        }
    }
}

fn classes_of<'a>(disagreement: &Disagreement<'_>) -> impl Iterator<Item = &'a Class> {
    CLASSES.iter().filter(|class| class.explains(disagreement))
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}
