//! The comparison as a page that needs nothing else: bars for every figure, light or dark, also on paper.

use std::fmt::Write;

use crate::comparison::{Comparison, Row, Section};
use crate::markdown::{long, superscript};
use crate::measure::Metric;
use crate::scenario::grouped;
use crate::spread::Spread;
use crate::summary::Summary;

const STYLE: &str = include_str!("style.css");

/// Of a chart, in its own units.
const WIDTH: f64 = 520.0;
const NAME_WIDTH: f64 = 172.0;
const FIGURE_WIDTH: f64 = 168.0;
const BAR_HEIGHT: f64 = 16.0;
const BAR_PITCH: f64 = 24.0;

pub(crate) fn page(comparison: &Comparison) -> String {
    let of = &comparison.conditions;
    let machine = format!(
        "{} · {} cores, {} · Linux {}",
        of.date,
        of.cores,
        escaped(&of.processor),
        escaped(&of.kernel)
    );
    let sections: String = comparison.sections.iter().map(section).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Sotto side by side</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>Sotto side by side</h1><p>{machine}</p></header>\n{}{}{sections}{}</main>\n</body>\n</html>\n",
        summary(comparison),
        footnotes(comparison),
        conditions(comparison),
    )
}

fn summary(comparison: &Comparison) -> String {
    let Summary { columns, rows } = Summary::of(comparison);
    let mut text = "<h2>Medians</h2>\n<p>QoS and fan-out: CPU µs of the broker per delivery, PostgreSQL's \
                    included.</p>\n<div class=\"sheet scroll\"><table>\n<thead><tr><th></th>"
        .to_owned();
    for column in columns {
        push(&mut text, format_args!("<th>{}</th>", escaped(column)));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for (broker, cells) in rows {
        push(&mut text, format_args!("<tr><th>{}</th>", escaped(broker.name())));
        for cell in cells {
            push(&mut text, format_args!("<td>{}</td>", escaped(&cell)));
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody></table></div>\n"
}

fn conditions(comparison: &Comparison) -> String {
    let of = &comparison.conditions;
    let mut text = "<h2>Conditions</h2>\n<div class=\"sheet\"><table class=\"conditions\">\n".to_owned();
    let mut row = |name: &str, value: &str| {
        push(&mut text, format_args!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value)));
    };
    row("Command", &of.command);
    row("Rounds", &format!("{}; a bar is the median, the line across it the spread", of.rounds));
    row("Connections at most", &grouped(of.connections_max));
    row("Memory of the machine", &of.memory);
    row("Load average at the start", &of.load_average);
    for broker in &of.brokers {
        row(broker.broker.name(), &format!("{}: {}", broker.version, broker.settings));
    }
    for (suite, brokers) in &of.suites {
        row(suite, &brokers.iter().copied().collect::<Vec<_>>().join(", "));
    }
    for skipped in &of.skipped {
        row("Skipped", skipped);
    }
    text + "</table></div>\n"
}

fn section(section: &Section) -> String {
    // PostgreSQL's share is the end of a bar.
    let of_database = [Metric::DatabaseCpuPerDeliveryUs, Metric::TogetherCpuPerDeliveryUs];
    let metrics = section.metrics.iter().filter(|metric| !of_database.contains(metric));
    let charts: String = metrics.map(|metric| chart(section, *metric)).collect();
    let mut failed = String::new();
    for row in section.rows.iter().filter(|row| row.figures.is_empty()) {
        push(&mut failed, format_args!("<p>{}: no figures</p>\n", label(row)));
    }
    let title = escaped(&section.title);
    format!("<section>\n<h2>{title}</h2>\n<div class=\"charts\">\n{charts}</div>\n{failed}</section>\n")
}

/// A bar a broker, as long as its median; a line from the least to the most.
fn chart(section: &Section, metric: Metric) -> String {
    let rows: Vec<Bar<'_>> = section.rows.iter().filter_map(|row| Bar::of(row, metric)).collect();
    let longest = rows.iter().map(Bar::longest).fold(f64::MIN_POSITIVE, f64::max);
    let mut bars = String::new();
    let mut top = 0.0;
    for bar in &rows {
        bar.draw(&mut bars, top, longest, metric);
        top += BAR_PITCH;
    }
    let more = if metric.is_better_high() { " (more is better)" } else { "" };
    let label = format!("{}{more}", escaped(metric.label()));
    let title = escaped(&section.title);
    format!(
        "<figure class=\"sheet\"><figcaption>{label}</figcaption>\n<svg viewBox=\"0 0 {WIDTH:.0} {:.0}\" \
         role=\"img\" aria-label=\"{title}, {label}\">\n{bars}</svg></figure>\n",
        top.max(BAR_PITCH),
    )
}

struct Bar<'a> {
    row: &'a Row,
    spread: &'a Spread,
    /// Its median, where the row has one and the bar is of CPU.
    database: Option<f64>,
}

impl<'a> Bar<'a> {
    fn of(row: &'a Row, metric: Metric) -> Option<Self> {
        let database = row.figures.get(&Metric::DatabaseCpuPerDeliveryUs).map(|spread| spread.median);
        let database = database.filter(|_| metric == Metric::CpuPerDeliveryUs);
        Some(Self { row, spread: row.figures.get(&metric)?, database })
    }

    fn longest(&self) -> f64 {
        self.spread.max.max(self.spread.median + self.database.unwrap_or_default())
    }

    fn draw(&self, bars: &mut String, top: f64, longest: f64, metric: Metric) {
        let Self { row, spread, database } = self;
        let length = |value: f64| (value / longest).clamp(0.0, 1.0) * (WIDTH - NAME_WIDTH - FIGURE_WIDTH);
        let middle = top + BAR_HEIGHT / 2.0;
        let class = if row.broker.is_sotto() { "own" } else { "peer" };
        let (median, least, most) = (length(spread.median), length(spread.min), length(spread.max));
        let name = label(row);
        push(
            bars,
            format_args!(
                "<text class=\"name\" x=\"{:.1}\" y=\"{middle:.1}\">{name}</text><rect class=\"{class}\" \
                 x=\"{NAME_WIDTH:.1}\" y=\"{top:.1}\" width=\"{median:.1}\" height=\"{BAR_HEIGHT:.1}\"/>",
                NAME_WIDTH - 8.0,
            ),
        );
        let mut figure = long(spread, metric);
        if let Some(database) = database {
            let (from, width) = (NAME_WIDTH + median, length(*database));
            push(
                bars,
                format_args!(
                    "<rect class=\"database\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                     height=\"{BAR_HEIGHT:.1}\"/>"
                ),
            );
            figure = format!("{} + {} PostgreSQL", metric.shown(spread.median), metric.shown(*database));
        }
        push(
            bars,
            format_args!(
                "<path d=\"M{:.1} {middle:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{middle:.1}\">{}</text>\n",
                NAME_WIDTH + least,
                NAME_WIDTH + most,
                NAME_WIDTH + length(self.longest()) + 8.0,
                escaped(&figure),
            ),
        );
    }
}

fn footnotes(comparison: &Comparison) -> String {
    let mut text = String::new();
    for (at, note) in comparison.footnotes.iter().enumerate() {
        push(&mut text, format_args!("<p>{} {}</p>\n", superscript(at + 1), escaped(note)));
    }
    text
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

    const BAR_WIDTH: f64 = WIDTH - NAME_WIDTH - FIGURE_WIDTH;

    #[test]
    fn a_bar_is_as_long_as_its_figure_beside_the_others() {
        let page = page(&sample());
        let own = BAR_WIDTH * 5_100.0 / 20_000.0;
        let bar = format!("<rect class=\"own\" x=\"{NAME_WIDTH:.1}\" y=\"0.0\" width=\"{own:.1}\"");
        assert!(page.contains(&bar), "{page}");
        assert!(page.contains(">5,100 (5,000–5,200)</text>"), "{page}");
        assert!(page.contains("aedes²: no figures"), "{page}");
    }

    #[test]
    fn the_database_ends_the_bar_of_its_broker() {
        let page = page(&sample());
        let (from, width) = (NAME_WIDTH + BAR_WIDTH * 2.0 / 3.0, BAR_WIDTH / 3.0);
        let bar = format!("<rect class=\"database\" x=\"{from:.1}\" y=\"0.0\" width=\"{width:.1}\"");
        assert!(page.contains(&bar), "{page}");
        assert!(page.contains(">20.0 + 10.0 PostgreSQL</text>"), "{page}");
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
