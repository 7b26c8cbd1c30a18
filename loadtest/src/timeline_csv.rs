//! The timeline as comma-separated values: a header with units, a row a second.

use std::io::{self, Write};

use crate::timeline::Point;

type Column = (&'static str, fn(&Point) -> Option<f64>);

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
const COLUMNS: &[Column] = &[
    ("at_seconds", |point| Some(point.at_seconds)),
    ("seconds", |point| Some(point.seconds)),
    ("connections", |point| Some(point.connections as f64)),
    ("connects_per_second", |point| Some(point.connects_per_second)),
    ("connect_failures_per_second", |point| Some(point.connect_failures_per_second)),
    ("published_per_second", |point| Some(point.published_per_second)),
    ("acknowledged_per_second", |point| Some(point.acknowledged_per_second)),
    ("delivered_per_second", |point| Some(point.delivered_per_second)),
    ("connect_p50_us", |point| (point.connect.count > 0).then_some(point.connect.p50_us as f64)),
    ("connect_p99_us", |point| (point.connect.count > 0).then_some(point.connect.p99_us as f64)),
    ("connect_max_us", |point| (point.connect.count > 0).then_some(point.connect.max_us as f64)),
    ("acknowledged_p50_us", |point| {
        (point.acknowledged.count > 0).then_some(point.acknowledged.p50_us as f64)
    }),
    ("acknowledged_p99_us", |point| {
        (point.acknowledged.count > 0).then_some(point.acknowledged.p99_us as f64)
    }),
    ("acknowledged_max_us", |point| {
        (point.acknowledged.count > 0).then_some(point.acknowledged.max_us as f64)
    }),
    ("delivery_p50_us", |point| (point.delivery.count > 0).then_some(point.delivery.p50_us as f64)),
    ("delivery_p99_us", |point| (point.delivery.count > 0).then_some(point.delivery.p99_us as f64)),
    ("delivery_max_us", |point| (point.delivery.count > 0).then_some(point.delivery.max_us as f64)),
    ("server_rss_bytes", |point| point.server_rss_bytes.map(|bytes| bytes as f64)),
    ("server_cores", |point| point.server_cores),
    ("load_tester_cores", |point| Some(point.load_tester_cores)),
    ("load_tester_busy_share", |point| Some(point.load_tester_busy)),
    ("machine_busy_share", |point| point.machine_busy),
];

/// What was not seen is left empty.
pub(crate) fn write_csv(points: &[Point], out: &mut impl Write) -> io::Result<()> {
    let header: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    writeln!(out, "{}", header.join(","))?;
    for point in points {
        let values: Vec<_> =
            COLUMNS.iter().map(|(_, value)| value(point).map_or_else(String::new, number)).collect();
        writeln!(out, "{}", values.join(","))?;
    }
    Ok(())
}

/// At most three decimals, and none that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_value_or_an_empty_place_for_every_column() {
        let point = Point { at_seconds: 2.0, seconds: 1.0, published_per_second: 0.1234, ..Point::default() };
        let mut csv = Vec::new();
        write_csv(&[point], &mut csv).expect("memory takes it");
        let csv = String::from_utf8(csv).expect("text");
        let lines: Vec<Vec<_>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 2);
        let of = |name: &str| {
            let at = lines[0].iter().position(|column| *column == name).expect("a column");
            lines[1][at]
        };
        assert_eq!(lines[0].len(), lines[1].len());
        assert_eq!((of("at_seconds"), of("published_per_second")), ("2", "0.123"));
        assert_eq!((of("delivery_p99_us"), of("server_rss_bytes"), of("connections")), ("", "", "0"));
    }
}
