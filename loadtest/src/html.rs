//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write as _;

use crate::card::Card;
use crate::figures::{mebibytes, milliseconds};
use crate::html_text::{escape, headline, number};
use crate::interval::Kind;
use crate::latencies::{Latencies, LatencySummary};
use crate::objectives::Objective;
use crate::plot::{Axis, Plot, Scale, Series};
use crate::recorder::Recorded;
use crate::table::Line;
use crate::target::Target;
use crate::timeline::{Point, PointLatency};

/// What the page says, of whatever scenario.
pub(crate) struct Page<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) run: &'a str,
    pub(crate) target: &'a Target,
    /// One line each, the gravest first; empty for a run that was made to its end.
    pub(crate) troubles: Vec<String>,
    pub(crate) cards: Vec<Card>,
    pub(crate) objectives: &'a [Objective],
    /// The table that people read in a terminal.
    pub(crate) lines: &'a [Line],
    pub(crate) recorded: &'a Recorded,
}

impl Page<'_> {
    pub(crate) fn render(&self) -> String {
        let Self { scenario, run, .. } = self;
        let Target { address, transport, protocol } = self.target;
        let mut html = String::new();
        let _ = write!(
            html,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
             <title>{scenario} {address}</title><style>{css}</style></head><body><main>\
             <header><h1>{scenario} · {address}</h1><p>{protocol} · {transport} · run {run}</p></header>",
            scenario = escape(scenario),
            address = escape(address),
            transport = escape(transport),
            run = escape(run),
            css = include_str!("report.css"),
        );
        self.write_verdict(&mut html);
        self.write_cards(&mut html);
        self.write_objectives(&mut html);
        self.write_plots(&mut html);
        self.write_lines(&mut html);
        let _ = writeln!(
            html,
            "<footer>Latencies count from when something was due, not from when it was begun. \
             Percentiles of the whole run are within 0.1 %, those of a second within 0.8 %. \
             sotto-loadtest {}</footer></main></body></html>",
            env!("CARGO_PKG_VERSION")
        );
        html
    }

    fn write_verdict(&self, html: &mut String) {
        let missed = self.objectives.iter().filter(|objective| !objective.met).count();
        for trouble in &self.troubles {
            let _ = write!(html, "<p class=\"verdict bad\" role=\"status\">{}</p>", escape(trouble));
        }
        match (missed, self.objectives.len()) {
            (_, 0) => {}
            (0, 1) => html.push_str("<p class=\"verdict good\" role=\"status\">Objective met</p>"),
            (0, all) => {
                let _ =
                    write!(html, "<p class=\"verdict good\" role=\"status\">All {all} objectives met</p>");
            }
            (missed, all) => {
                let _ = write!(
                    html,
                    "<p class=\"verdict bad\" role=\"status\">{missed} of {all} objectives missed</p>"
                );
            }
        }
        for warning in &self.recorded.warnings {
            let _ = write!(html, "<p class=\"note\">Note: {}</p>", escape(warning));
        }
    }

    fn write_cards(&self, html: &mut String) {
        html.push_str("<ul class=\"cards\">");
        for Card { label, value, unit, hint } in &self.cards {
            let _ = write!(
                html,
                "<li><span class=\"label\">{}</span><span class=\"value\">{}<small>{}</small></span>\
                 <span class=\"hint\">{}</span></li>",
                escape(label),
                headline(*value),
                escape(unit),
                escape(hint)
            );
        }
        html.push_str("</ul>");
    }

    fn write_objectives(&self, html: &mut String) {
        if self.objectives.is_empty() {
            return;
        }
        html.push_str(
            "<h2>Objectives</h2><div class=\"sheet\"><table><thead><tr><th class=\"text\" scope=\"col\">objective</th>\
             <th class=\"text\" scope=\"col\">of</th><th scope=\"col\">limit</th><th scope=\"col\">measured</th>\
             <th class=\"text\" scope=\"col\">verdict</th></tr></thead><tbody>",
        );
        for objective in self.objectives {
            let Objective { name, of, unit, limit, measured, met } = objective;
            let measured = measured.map_or_else(|| "not measured".into(), |value| number(value) + unit);
            let (class, verdict) = if *met { ("met", "✓ met") } else { ("missed", "✗ missed") };
            let _ = write!(
                html,
                "<tr><th class=\"text\" scope=\"row\">{}</th><td class=\"text\">{}</td><td>{}{unit}</td><td>{measured}</td>\
                 <td class=\"text {class}\">{verdict}</td></tr>",
                escape(name),
                escape(of),
                number(*limit),
            );
        }
        html.push_str("</tbody></table></div>");
    }

    fn write_plots(&self, html: &mut String) {
        let plots: Vec<_> = plots(self.recorded)
            .iter()
            .enumerate()
            .filter_map(|(k, plot)| plot.render(&format!("plot{k}")))
            .collect();
        if !plots.is_empty() {
            let _ = write!(html, "<h2>The run</h2><div class=\"plots\">{}</div>", plots.concat());
        }
    }

    fn write_lines(&self, html: &mut String) {
        html.push_str("<h2>All figures</h2>");
        let mut facts = String::new();
        for line in self.lines {
            match line {
                Line::Row(label, value) => {
                    let _ = write!(
                        facts,
                        "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                        escape(label),
                        escape(value)
                    );
                }
                Line::Latencies(kinds) => {
                    close_facts(&mut facts, html);
                    write_latencies(kinds, html);
                }
            }
        }
        close_facts(&mut facts, html);
    }
}

fn close_facts(facts: &mut String, html: &mut String) {
    if !facts.is_empty() {
        let _ =
            write!(html, "<div class=\"sheet\"><table class=\"facts\"><tbody>{facts}</tbody></table></div>");
        facts.clear();
    }
}

fn write_latencies(kinds: &[(String, LatencySummary)], html: &mut String) {
    html.push_str("<div class=\"sheet\"><table><thead><tr><th class=\"text\" scope=\"col\">ms</th>");
    for column in ["count", "p50", "p90", "p99", "p99.9", "max"] {
        let _ = write!(html, "<th scope=\"col\">{column}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for (label, summary) in kinds {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th><td>{}</td>", escape(label), summary.count);
        for micros in [summary.p50_us, summary.p90_us, summary.p99_us, summary.p999_us, summary.max_us] {
            let _ = write!(html, "<td>{:.2}</td>", milliseconds(micros));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
}

fn plots(recorded: &Recorded) -> Vec<Plot> {
    let points = &recorded.timeline;
    let marks: Vec<_> = recorded
        .marks
        .iter()
        .filter(|mark| mark.what != "stopping")
        .map(|mark| (mark.at_seconds, mark.what))
        .collect();
    let time = Axis { label: "since the run began", unit: "s", scale: Scale::Time };
    let over_time = |title, description: &str, y, series| Plot {
        title,
        description: description.to_owned(),
        x: time,
        y,
        series: keep_what_happened(series),
        marks: marks.clone(),
    };
    let latency = Axis { label: "latency", unit: "ms", scale: Scale::Log };
    let linear = |label, unit| Axis { label, unit, scale: Scale::Linear };
    vec![
        Plot {
            title: "Latency by percentile",
            description:
                "How long the fastest share of all took, each further nine with as much room as the last."
                    .into(),
            x: Axis { label: "share of all", unit: "", scale: Scale::Nines },
            y: latency,
            series: keep_what_happened(vec![
                curve("delivery", &recorded.latencies[Kind::Delivered as usize]),
                curve("PUBACK", &recorded.latencies[Kind::Acknowledged as usize]),
                curve("connect", &recorded.latencies[Kind::Connect as usize]),
            ]),
            marks: Vec::new(),
        },
        over_time(
            "Latency over time",
            "Median and 99th percentile of each second.",
            latency,
            latency_series(points),
        ),
        over_time(
            "Throughput",
            "Messages published, acknowledged and delivered per second.",
            linear("messages", "/s"),
            vec![
                line("delivered", points, |point| Some(point.delivered_per_second)),
                line("published", points, |point| Some(point.published_per_second)),
                line("acknowledged", points, |point| Some(point.acknowledged_per_second)),
            ],
        ),
        over_time(
            "Connections",
            "Sessions connected at the end of each second.",
            linear("sessions", ""),
            vec![filled(line("connected", points, |point| Some(as_f64(point.connections))))],
        ),
        over_time(
            "Connecting",
            "Connections made, and failed, per second.",
            linear("connections", "/s"),
            vec![
                line("connected", points, |point| Some(point.connects_per_second)),
                line("failed", points, |point| Some(point.connect_failures_per_second)),
            ],
        ),
        over_time(
            "Memory of the broker",
            "Resident memory of the broker's process.",
            linear("memory", "MiB"),
            vec![filled(line("broker", points, |point| point.server_rss_bytes.map(mebibytes)))],
        ),
        over_time(
            "CPU",
            "Cores that broker and load tester used.",
            linear("cores", ""),
            vec![
                line("broker", points, |point| point.server_cores),
                line("load tester", points, |point| Some(point.load_tester_cores)),
            ],
        ),
    ]
}

/// Of deliveries where there were some, else of connects.
fn latency_series(points: &[Point]) -> Vec<Series> {
    type Of = fn(&Point) -> PointLatency;
    let kinds: [(&str, &str, Of); 3] = [
        ("delivery p50", "delivery p99", |point| point.delivery),
        ("PUBACK p50", "PUBACK p99", |point| point.acknowledged),
        ("connect p50", "connect p99", |point| point.connect),
    ];
    let happened = kinds.into_iter().filter(|(_, _, of)| points.iter().any(|point| of(point).count > 0));
    happened
        .take(2)
        .flat_map(|(p50, p99, of)| {
            let value = move |pick: fn(PointLatency) -> u64| {
                move |point: &Point| {
                    let latency = of(point);
                    (latency.count > 0).then(|| milliseconds(pick(latency)))
                }
            };
            [
                line(p50, points, value(|latency| latency.p50_us)),
                line(p99, points, value(|latency| latency.p99_us)),
            ]
        })
        .collect()
}

fn line(name: &'static str, points: &[Point], value: impl Fn(&Point) -> Option<f64>) -> Series {
    let mut points: Vec<_> =
        points.iter().map(|point| (point.at_seconds + point.seconds, value(point))).collect();
    // The moment in which the run ended is no second to judge a rate by.
    if points.len() > 2 {
        points.pop();
    }
    Series { name, points, filled: false }
}

fn filled(series: Series) -> Series {
    Series { filled: true, ..series }
}

/// Without the series that are zero throughout.
fn keep_what_happened(series: Vec<Series>) -> Vec<Series> {
    let happened = |series: &Series| series.points.iter().any(|(_, y)| y.is_some_and(|y| y > 0.0));
    series.into_iter().filter(happened).collect()
}

/// The value below which each share lies, in nines.
fn curve(name: &'static str, latencies: &Latencies) -> Series {
    let counts = latencies.counts();
    let all = as_f64(counts.total());
    let nines = |seen: u64| -(1.0 - as_f64(seen) / all).max(0.5 / all).log10();
    let mut points: Vec<(f64, Option<f64>)> = Vec::new();
    let mut seen = 0;
    for (micros, count) in counts.iter() {
        // Flat up to the share that lies below, then up.
        let (from, value) = (nines(seen), Some(milliseconds(micros)));
        seen += count;
        let is_last = as_f64(seen) >= all;
        let far_enough = points.last().is_none_or(|(x, _)| nines(seen) - x >= 0.01);
        if far_enough || is_last {
            points
                .push((if is_last { from.max(points.last().map_or(0.0, |(x, _)| *x)) } else { from }, value));
            if is_last && nines(seen) > from {
                points.push((nines(seen), value));
            }
        }
    }
    Series { name, points, filled: false }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::recorder::LoadTesterReport;

    fn recorded() -> Recorded {
        let mut latencies: [Latencies; 3] = std::array::from_fn(|_| Latencies::new());
        (1..=1000).for_each(|k| latencies[2].record_duration(Duration::from_micros(k * 10)));
        let timeline = (0..30_u32)
            .map(|second| Point {
                at_seconds: f64::from(second),
                seconds: 1.0,
                connections: 10,
                delivered_per_second: 100.0,
                delivery: PointLatency { count: 100, p50_us: 500, p99_us: 900, max_us: 1000 },
                ..Point::default()
            })
            .collect();
        Recorded {
            troubles: Vec::new(),
            warnings: vec!["a <b>warning</b>".into()],
            load_tester: LoadTesterReport::default(),
            marks: Vec::new(),
            timeline,
            latencies,
        }
    }

    fn render(recorded: &Recorded, address: &str, reason: &str) -> String {
        let target = Target { address: address.into(), transport: "plain TCP".into(), protocol: "MQTT 5.0" };
        let summary = recorded.latencies[2].summary();
        Page {
            scenario: "pubsub",
            run: "0000002a",
            target: &target,
            troubles: vec![reason.into()],
            cards: vec![Card { label: "p99 delivery", value: 9.9, unit: "ms", hint: "max 10 ms".into() }],
            objectives: &[Objective {
                name: "max_loss",
                of: "deliveries lost",
                unit: "",
                limit: 0.0,
                measured: Some(3.0),
                met: false,
            }],
            lines: &[
                Line::Row("delivered".into(), "100/s".into()),
                Line::Latencies(vec![("delivery".into(), summary)]),
            ],
            recorded,
        }
        .render()
    }

    fn parse(html: &str) -> roxmltree::Document<'_> {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        roxmltree::Document::parse_with_options(html, options).expect("well-formed")
    }

    #[test]
    fn the_page_is_well_formed_and_fetches_nothing() {
        let html = render(&recorded(), "127.0.0.1:1", "none");
        let page = parse(&html);
        assert!(
            page.descendants()
                .all(|node| !["script", "link", "img", "iframe"].contains(&node.tag_name().name()))
        );
        for attribute in page.descendants().flat_map(|node| node.attributes()) {
            assert!(!["src", "href", "onclick"].contains(&attribute.name()), "{attribute:?}");
        }
        assert!(!html.contains("url(") && !html.contains("@import"));
        let plots: Vec<_> = page.descendants().filter(|node| node.has_tag_name("figure")).collect();
        assert_eq!(plots.len(), 4, "percentiles, latency, throughput, connections");
        for plot in plots {
            let svg = plot.children().find(|node| node.has_tag_name("svg")).expect("a drawing");
            assert!(svg.children().any(|node| node.has_tag_name("title")));
            assert!(svg.children().any(|node| node.has_tag_name("desc")));
            assert!(plot.descendants().any(|node| node.has_tag_name("table")));
        }
    }

    #[test]
    fn what_comes_from_outside_stays_text() {
        let evil = "</title><script>alert(1)</script>\" onload='x";
        let html = render(&recorded(), evil, evil);
        let page = parse(&html);
        assert!(!html.contains("<script"));
        let heading = page.descendants().find(|node| node.has_tag_name("h1")).and_then(|node| node.text());
        assert_eq!(heading, Some(format!("pubsub · {evil}").as_str()));
        assert!(html.contains("a &lt;b&gt;warning&lt;/b&gt;"));
    }

    #[test]
    fn a_missed_objective_is_the_verdict() {
        let html = render(&recorded(), "x", "none");
        assert!(html.contains("1 of 1 objectives missed"));
        assert!(html.contains("✗ missed"));
    }

    #[test]
    fn the_curve_ends_at_the_longest_and_never_falls() {
        let recorded = recorded();
        let curve = curve("delivery", &recorded.latencies[2]);
        let last = curve.points.last().and_then(|(_, y)| *y).expect("a value");
        assert!((last - milliseconds(recorded.latencies[2].summary().max_us)).abs() < 1e-9);
        assert!(curve.points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{curve:?}");
        // Half of a thousand evenly spread values up to 10 ms lie below 5 ms.
        let median = curve.points.iter().find(|(x, _)| *x >= 0.5_f64.log10().abs()).and_then(|(_, y)| *y);
        assert!(median.is_some_and(|median| (median - 5.0).abs() < 0.3), "{median:?}");
    }
}
