//! docs/conformance.md names every statement of both specifications, and tests that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const STATEMENTS: &str = include_str!("statements.txt");
const TABLE: &str = include_str!("../../../docs/conformance.md");

/// A row's statements and its last cell.
struct Row {
    statements: Vec<&'static str>,
    shown_by: &'static str,
}

/// By specification.
fn statements() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    by_heading(STATEMENTS, "# ", |line| line.starts_with("MQTT-").then(|| vec![line]))
        .into_iter()
        .map(|(specification, lines)| (specification, lines.into_iter().flatten().collect()))
        .collect()
}

fn rows() -> BTreeMap<&'static str, Vec<Row>> {
    by_heading(TABLE, "## MQTT ", |line| {
        let mut cells = line.strip_prefix("| MQTT-")?.trim_end_matches('|').rsplit(" | ");
        let shown_by = cells.next()?.trim();
        Some(Row { statements: ids(line.split(" | ").next()?), shown_by })
    })
}

fn clients_only() -> BTreeMap<&'static str, Vec<Vec<&'static str>>> {
    by_heading(TABLE, "## MQTT ", |line| line.strip_prefix("Clients only: ").map(ids))
}

fn ids(text: &'static str) -> Vec<&'static str> {
    text.split_whitespace().filter(|word| word.starts_with("MQTT-")).collect()
}

fn by_heading<T>(
    text: &'static str,
    heading: &str,
    read: impl Fn(&'static str) -> Option<T>,
) -> BTreeMap<&'static str, Vec<T>> {
    let mut found = BTreeMap::new();
    let mut section = None;
    for line in text.lines() {
        if line.starts_with(heading) {
            section = Some(line.trim_start_matches("# ").trim_start_matches("## "));
        } else if let (Some(section), Some(item)) = (section, read(line)) {
            found.entry(section).or_insert_with(Vec::new).push(item);
        }
    }
    found
}

#[test]
fn every_statement_has_one_row_or_binds_clients_alone() {
    let (rows, clients_only) = (rows(), clients_only());
    assert_eq!(statements().values().map(BTreeSet::len).collect::<Vec<_>>(), [141, 251]);
    for (specification, statements) in statements() {
        let of_servers = rows[specification].iter().flat_map(|row| &row.statements);
        let listed: Vec<&str> =
            of_servers.chain(clients_only[specification].iter().flatten()).copied().collect();
        for statement in &statements {
            let times = listed.iter().filter(|listed| *listed == statement).count();
            assert_eq!(times, 1, "{specification}: {statement} stands {times} times");
        }
        for statement in listed {
            assert!(statements.contains(statement), "{specification} has no {statement}");
        }
    }
}

#[test]
fn every_row_names_tests_that_are_there_or_says_how_the_broker_differs() {
    for row in rows().into_values().flatten() {
        if row.shown_by.strip_prefix("differs: ").is_some_and(|reason| !reason.is_empty()) {
            continue;
        }
        let names: Vec<&str> = row.shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{:?}: no test", row.statements);
        for name in names {
            assert!(is_test(name), "{:?}: there is no test {name}", row.statements);
        }
    }
}

/// `module::name` here, or `file::name` from the root of the repository.
fn is_test(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Some((place, function)) = name.split_once("::") else { return false };
    let file: PathBuf = if place.contains('/') {
        root.join(place)
    } else {
        root.join("broker/tests/conformance").join(place).with_extension("rs")
    };
    let source = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{name}: no {}", file.display()));
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let defined = ["fn ", "async fn "].iter().any(|fun| {
            line.strip_prefix(fun)
                .and_then(|rest| rest.strip_prefix(function))
                .is_some_and(|rest| rest.starts_with('('))
        });
        // Journeys that run on both stores are listed for that.
        let listed = source.split("on_both_stores!").nth(1).is_some_and(|list| list.contains(function));
        defined && (listed || lines[at.saturating_sub(3)..at].iter().any(|line| is_test_attribute(line)))
    })
}

fn is_test_attribute(line: &str) -> bool {
    line == "#[test]" || line.starts_with("#[tokio::test")
}
