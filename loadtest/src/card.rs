//! A headline figure of a report.

use crate::figures::milliseconds;
use crate::html_text::headline;
use crate::latencies::LatencySummary;

#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) label: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What to hold it against.
    pub(crate) hint: String,
}

impl Card {
    pub(crate) fn latency(label: &'static str, summary: LatencySummary) -> Self {
        let [p50, max] = [summary.p50_us, summary.max_us].map(milliseconds);
        let hint = format!("p50 {} · max {} ms", headline(p50), headline(max));
        Self { label, value: milliseconds(summary.p99_us), unit: "ms", hint }
    }
}
