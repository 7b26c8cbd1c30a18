//! The comparison as Markdown: everything, or the one table that fits a README.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::comparison::{Comparison, Section};
use crate::measure::Metric;
use crate::scenario::grouped;
use crate::spread::Spread;
use crate::summary::{NONE, Summary};

const SUMMARY: &str = "<!-- sotto-peers: summary -->";
const FULL: &str = "<!-- sotto-peers: full -->";
const END: &str = "<!-- sotto-peers: end -->";
/// Puts the tables between the markers that the file has.
pub(crate) fn update(file: &Path, comparison: &Comparison) -> anyhow::Result<()> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("read {name}"))?;
    let mut updated = text.clone();
    for (marker, table) in [(SUMMARY, summary(comparison)), (FULL, full(comparison))] {
        if let Some(replaced) = replace(&updated, marker, &table) {
            updated = replaced;
        }
    }
    ensure!(text.contains(END), "{name} has no markers such as {SUMMARY} and {END}");
    fs::write(file, updated).with_context(|| format!("write {name}"))
}

/// One table, a row a broker, and where its figures come from.
fn summary(comparison: &Comparison) -> String {
    let Summary { columns, rows } = Summary::of(comparison);
    let mut text = format!("| broker | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for (broker, cells) in rows {
        push(&mut text, format_args!("| {} | {} |\n", broker.name(), cells.join(" | ")));
    }
    let of = &comparison.conditions;
    push(
        &mut text,
        format_args!(
            "\nRounds: {}. {}; {} cores ({}), load average {} when it began.\n",
            of.rounds, of.date, of.cores, of.processor, of.load_average
        ),
    );
    text
}

/// Conditions, a table for every scenario, footnotes.
pub(crate) fn full(comparison: &Comparison) -> String {
    let mut text = conditions(comparison);
    for section in &comparison.sections {
        text.push_str(&table(section));
    }
    if !comparison.footnotes.is_empty() {
        text.push('\n');
        for (at, footnote) in comparison.footnotes.iter().enumerate() {
            push(&mut text, format_args!("{} {footnote}  \n", superscript(at + 1)));
        }
    }
    text
}

fn conditions(comparison: &Comparison) -> String {
    let of = &comparison.conditions;
    let connections = grouped(of.connections_max);
    let mut text = String::new();
    push(
        &mut text,
        format_args!(
            "{}. {} cores ({}), {}, Linux {}; load average {} when it began. Rounds: {}; connections at most: \
             {connections}. Command: `{}`.\n\n| broker | version | settings |\n|---|---|---|\n",
            of.date, of.cores, of.processor, of.memory, of.kernel, of.load_average, of.rounds, of.command
        ),
    );
    for broker in &of.brokers {
        let (name, version, settings) = (broker.broker.name(), &broker.version, broker.settings);
        push(&mut text, format_args!("| {name} | {version} | {settings} |\n"));
    }
    text.push('\n');
    for (suite, brokers) in &of.suites {
        let brokers = brokers.iter().copied().collect::<Vec<_>>().join(", ");
        push(&mut text, format_args!("{suite}: {brokers}.  \n"));
    }
    for skipped in &of.skipped {
        push(&mut text, format_args!("Skipped: {skipped}.  \n"));
    }
    text
}

fn table(section: &Section) -> String {
    let mut text = format!("\n### {}\n\n| broker |", section.title);
    for metric in &section.metrics {
        push(&mut text, format_args!(" {} |", metric.label()));
    }
    push(&mut text, format_args!("\n|---|{}\n", "---|".repeat(section.metrics.len())));
    for row in &section.rows {
        let notes: Vec<String> = row.footnotes.iter().map(|number| superscript(*number)).collect();
        push(&mut text, format_args!("| {}{} |", row.broker.name(), notes.join(" ")));
        for metric in &section.metrics {
            let figure =
                row.figures.get(metric).map_or_else(|| NONE.to_owned(), |spread| long(spread, *metric));
            push(&mut text, format_args!(" {figure} |"));
        }
        text.push('\n');
    }
    text
}

/// The median, and the extremes where there are several rounds.
pub(crate) fn long(spread: &Spread, metric: Metric) -> String {
    let median = metric.shown(spread.median);
    if spread.rounds.len() < 2 {
        return median;
    }
    format!("{median} ({}–{})", metric.shown(spread.min), metric.shown(spread.max))
}

pub(crate) fn superscript(number: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect()
}

/// `None` where the text has no such marker.
fn replace(text: &str, marker: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(marker)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{marker}\n{}\n{END}{after}", table.trim_end()))
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::sample;

    #[test]
    fn a_table_shows_medians_spreads_and_footnotes() {
        let text = full(&sample());
        assert!(text.contains("### 5,000 idle TLS connections"), "{text}");
        assert!(text.contains("| Sotto | 5,100 (5,000–5,200) |"), "{text}");
        assert!(text.contains("| mosquitto¹ | 20,000 |"), "{text}");
        assert!(text.contains("| aedes² | – |"), "{text}");
        assert!(text.contains("² aedes, round 1: failed: does not listen"), "{text}");
        assert!(text.contains("TLSv1_3: Sotto, Sotto, stored in PostgreSQL, mosquitto."), "{text}");
        assert!(text.contains("| Sotto, stored in PostgreSQL | 20.0 | 10.0 | 30.0 |"), "{text}");
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("README.md");
        fs::write(&file, format!("before\n{SUMMARY}\nold\n{END}\nafter\n")).expect("written");
        update(&file, &sample()).expect("updated");
        let text = fs::read_to_string(&file).expect("read");
        assert!(text.starts_with("before\n<!-- sotto-peers: summary -->\n| broker |"), "{text}");
        assert!(text.ends_with("\n<!-- sotto-peers: end -->\nafter\n"), "{text}");
        assert!(!text.contains("old"), "{text}");
        fs::write(&file, "nothing here").expect("written");
        assert!(update(&file, &sample()).is_err());
    }

    #[test]
    fn numbers_of_footnotes_have_as_many_digits_as_they_need() {
        assert_eq!(superscript(1), "¹");
        assert_eq!(superscript(20), "²⁰");
    }
}
