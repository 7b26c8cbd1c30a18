//! The table that people read in a terminal.

use std::io::{self, Write};

use crate::failures::Failures;
use crate::figures::milliseconds;
use crate::latencies::LatencySummary;

pub(crate) struct Table<'a> {
    out: &'a mut dyn Write,
    lines: Vec<Line>,
}

/// What a table has been given, for those who write it elsewhere.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    Row(String, String),
    Latencies(Vec<(String, LatencySummary)>),
}

impl<'a> Table<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, lines: Vec::new() }
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub(crate) fn row(&mut self, label: &str, value: &str) -> io::Result<()> {
        self.lines.push(Line::Row(label.to_owned(), value.to_owned()));
        writeln!(self.out, "  {label:<24} {value}")
    }

    /// Kinds that never happened are left out.
    pub(crate) fn latencies(&mut self, kinds: &[(&str, LatencySummary)]) -> io::Result<()> {
        if kinds.iter().all(|(_, summary)| summary.count == 0) {
            return Ok(());
        }
        writeln!(
            self.out,
            "  {:<24} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let happened = kinds.iter().filter(|(_, summary)| summary.count > 0);
        let kept = happened.clone().map(|(label, summary)| ((*label).to_owned(), *summary));
        self.lines.push(Line::Latencies(kept.collect()));
        for (label, summary) in happened {
            let [p50, p90, p99, p999, max] =
                [summary.p50_us, summary.p90_us, summary.p99_us, summary.p999_us, summary.max_us]
                    .map(milliseconds);
            writeln!(
                self.out,
                "    {label:<22} {p50:>10.2} {p90:>10.2} {p99:>10.2} {p999:>10.2} {max:>10.2}"
            )?;
        }
        Ok(())
    }

    pub(crate) fn failures(&mut self, label: &str, failures: &Failures) -> io::Result<()> {
        failures.iter().try_for_each(|(reason, count)| self.row(label, &format!("{count}: {reason}")))
    }
}
