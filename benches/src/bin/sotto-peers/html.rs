//! The comparison as a page that needs nothing else: bars for every figure, light or dark, also on paper.

use std::fmt::Write;

use crate::comparison::{Comparison, Row, Section};
use crate::markdown::{long, superscript};
use crate::measure::Metric;
use crate::scenario::grouped;

const STYLE: &str = include_str!("style.css");

/// Of a chart, in its own units.
const WIDTH: f64 = 720.0;
const NAME_WIDTH: f64 = 190.0;
const FIGURE_WIDTH: f64 = 170.0;
const BAR_HEIGHT: f64 = 18.0;
const BAR_PITCH: f64 = 26.0;

pub(crate) fn page(comparison: &Comparison) -> String {
    let sections: String = comparison.sections.iter().map(section).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Sotto side by side</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Sotto side by side</h1>\n{}{sections}{}</body>\n</html>\n",
        conditions(comparison),
        footnotes(comparison),
    )
}

fn conditions(comparison: &Comparison) -> String {
    let of = &comparison.conditions;
    let machine = format!(
        "{} cores ({}), {}, Linux {}; load average {} when it began",
        of.cores, of.processor, of.memory, of.kernel, of.load_average
    );
    let connections = grouped(of.connections_max);
    let mut text = String::from("<table class=\"conditions\">\n");
    let mut row = |name: &str, value: &str| {
        push(&mut text, format_args!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value)));
    };
    row("Date", &of.date);
    row("Machine", &machine);
    row("Rounds", &format!("{}; the bar is the median, the line the spread", of.rounds));
    row("Connections at most", &connections);
    row("Command", &of.command);
    for broker in &of.brokers {
        row(broker.broker.name(), &format!("{}: {}", broker.version, broker.settings));
    }
    for (suite, brokers) in &of.suites {
        row(suite, &brokers.iter().copied().collect::<Vec<_>>().join(", "));
    }
    for skipped in &of.skipped {
        row("Skipped", skipped);
    }
    text.push_str("</table>\n");
    text
}

fn section(section: &Section) -> String {
    let charts: String = section.metrics.iter().map(|metric| chart(section, *metric)).collect();
    let mut failed = String::new();
    for row in section.rows.iter().filter(|row| row.figures.is_empty()) {
        push(&mut failed, format_args!("<p class=\"none\">{}: no figures</p>\n", label(row)));
    }
    format!("<section>\n<h2>{}</h2>\n{charts}{failed}</section>\n", escaped(&section.title))
}

/// A bar a broker, as long as its median; a line from the least to the most.
fn chart(section: &Section, metric: Metric) -> String {
    let rows: Vec<_> = section.rows.iter().filter_map(|row| Some((row, row.figures.get(&metric)?))).collect();
    let most = rows.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let length = |value: f64| (value / most).clamp(0.0, 1.0) * (WIDTH - NAME_WIDTH - FIGURE_WIDTH);
    let mut bars = String::new();
    let mut top = 0.0;
    for (row, spread) in &rows {
        let middle = top + BAR_HEIGHT / 2.0;
        let class = if row.broker.is_sotto() { "own" } else { "peer" };
        let (median, least, longest) = (length(spread.median), length(spread.min), length(spread.max));
        push(
            &mut bars,
            format_args!(
                "<text class=\"name\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>\
                 <rect class=\"{class}\" x=\"{NAME_WIDTH:.1}\" y=\"{top:.1}\" width=\"{median:.1}\" \
                 height=\"{BAR_HEIGHT:.1}\"/>\
                 <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{middle:.1}\">{}</text>\n",
                NAME_WIDTH - 8.0,
                label(row),
                NAME_WIDTH + least,
                NAME_WIDTH + longest,
                NAME_WIDTH + longest.max(median) + 8.0,
                escaped(&long(spread, metric)),
            ),
        );
        top += BAR_PITCH;
    }
    let label = escaped(metric.label());
    format!(
        "<h3>{label}</h3>\n<svg viewBox=\"0 0 {WIDTH:.0} {:.0}\" role=\"img\" aria-label=\"{}, {label}\">\n\
         {bars}</svg>\n",
        top.max(BAR_PITCH),
        escaped(&section.title),
    )
}

fn footnotes(comparison: &Comparison) -> String {
    let mut text = "<footer>\n".to_owned();
    for (at, note) in comparison.footnotes.iter().enumerate() {
        push(&mut text, format_args!("<p>{} {}</p>\n", superscript(at + 1), escaped(note)));
    }
    text + "</footer>\n"
}

fn label(row: &Row) -> String {
    let notes: Vec<String> = row.footnotes.iter().map(|number| superscript(*number)).collect();
    format!("{}{}", escaped(row.broker.name()), notes.join(" "))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::sample;

    #[test]
    fn a_bar_is_as_long_as_its_figure_beside_the_others() {
        let page = page(&sample());
        // 5,100 of 20,000.
        let own = (WIDTH - NAME_WIDTH - FIGURE_WIDTH) * 5_100.0 / 20_000.0;
        assert!(
            page.contains(&format!("<rect class=\"own\" x=\"190.0\" y=\"0.0\" width=\"{own:.1}\"")),
            "{page}"
        );
        assert!(page.contains(">5,100 (5,000–5,200)</text>"), "{page}");
        assert!(page.contains("aedes²: no figures"), "{page}");
    }

    #[test]
    fn what_others_have_said_is_text_and_no_markup() {
        let page = page(&sample());
        assert!(page.contains("9 of 10 &lt;connected&gt;"), "{page}");
        assert!(!page.contains("<connected>"), "{page}");
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page(&sample());
        for outside in ["http://", "https://", "<script", "<link", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
