//! A run, second by second.

use std::time::Duration;

use serde::Serialize;

use crate::counters::Totals;
use crate::interval::{Interval, Kind};
use crate::latency_counts::LatencyCounts;
use crate::limits::{MARKS_MAX, TIMELINE_ROWS_MAX};
use crate::own_usage::OwnUsage;
use crate::run_clock::Micros;
use crate::server_process::ServerSample;

/// At most [`TIMELINE_ROWS_MAX`] rows: of a longer run each stands for two seconds, four, eight.
#[derive(Debug)]
pub(crate) struct Timeline {
    seconds_per_row: u64,
    rows: Vec<Row>,
    marks: Vec<Mark>,
    begin: Sample,
}

/// Sums, as they were at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Micros,
    pub(crate) totals: Totals,
    pub(crate) server: Option<ServerSample>,
    /// One for each process of the load tester.
    pub(crate) own: Vec<OwnUsage>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    /// By [`Kind`], rounded.
    latencies: [LatencyCounts; 3],
    /// The last one taken in it.
    end: Option<Sample>,
}

/// Something that all clients did from then on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_seconds: f64,
    pub(crate) what: &'static str,
}

/// What one row says. Rates are per second, whatever the row's length.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Its begin, since the run's.
    pub(crate) at_seconds: f64,
    pub(crate) seconds: f64,
    /// At its end.
    pub(crate) connections: u64,
    pub(crate) connects_per_second: f64,
    pub(crate) connect_failures_per_second: f64,
    pub(crate) published_per_second: f64,
    pub(crate) acknowledged_per_second: f64,
    pub(crate) delivered_per_second: f64,
    pub(crate) connect: PointLatency,
    pub(crate) acknowledged: PointLatency,
    pub(crate) delivery: PointLatency,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) server_cores: Option<f64>,
    /// Of all its processes together.
    pub(crate) load_tester_cores: f64,
    /// Share of its cores that the busiest of its processes kept busy.
    pub(crate) load_tester_busy: f64,
    /// Share of all cores of the busiest machine that the load tester runs on.
    pub(crate) machine_busy: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PointLatency {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl Timeline {
    pub(crate) fn begin(begin: Sample) -> Self {
        Self { seconds_per_row: 1, rows: Vec::new(), marks: Vec::new(), begin }
    }

    pub(crate) fn add(&mut self, interval: &Interval) {
        let row = self.row(interval.second);
        for (mine, theirs) in row.latencies.iter_mut().zip(&interval.latencies) {
            mine.add(&theirs.coarse());
        }
    }

    /// `second` is the one that the sample ends.
    pub(crate) fn sample(&mut self, second: u64, sample: Sample) {
        self.row(second).end = Some(sample);
    }

    pub(crate) fn mark(&mut self, at: Micros, what: &'static str) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { at_seconds: seconds(at), what });
        }
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        let mut before = &self.begin;
        let mut points = Vec::with_capacity(self.rows.len());
        for at in 0..self.rows.len() {
            points.push(self.point(at, before));
            before = self.rows[at].end.as_ref().unwrap_or(before);
        }
        points
    }

    /// The last row and the one before it.
    pub(crate) fn latest(&self) -> [Point; 2] {
        let [last, second_last] = [1, 2].map(|back| {
            let at = self.rows.len().checked_sub(back)?;
            let before = self.rows[..at].iter().rev().find_map(|row| row.end.as_ref());
            Some(self.point(at, before.unwrap_or(&self.begin)))
        });
        [last.unwrap_or_default(), second_last.unwrap_or_default()]
    }

    fn point(&self, at: usize, before: &Sample) -> Point {
        let row = &self.rows[at];
        let begin = Micros(at as u64 * self.seconds_per_row * 1_000_000);
        let width = Duration::from_secs(self.seconds_per_row);
        // Nothing is known of the sums of a second in which no sample was taken: they are in the next.
        let unchanged = Sample { at: begin.plus(width), ..before.clone() };
        Point::new(begin, width, before, row.end.as_ref().unwrap_or(&unchanged), &row.latencies)
    }

    fn row(&mut self, second: u64) -> &mut Row {
        while step(second / self.seconds_per_row) >= TIMELINE_ROWS_MAX {
            self.halve();
        }
        let at = step(second / self.seconds_per_row);
        if self.rows.len() <= at {
            self.rows.resize(at + 1, Row::default());
        }
        &mut self.rows[at]
    }

    fn halve(&mut self) {
        self.seconds_per_row *= 2;
        let rows = std::mem::take(&mut self.rows);
        self.rows = rows.chunks(2).map(Row::merge).collect();
    }
}

impl Row {
    fn merge(rows: &[Self]) -> Self {
        let mut merged = Self::default();
        for row in rows {
            for (mine, theirs) in merged.latencies.iter_mut().zip(&row.latencies) {
                mine.add(theirs);
            }
            merged.end = row.end.clone().or(merged.end.take());
        }
        merged
    }
}

impl Point {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    fn new(
        at: Micros,
        width: Duration,
        before: &Sample,
        end: &Sample,
        latencies: &[LatencyCounts; 3],
    ) -> Self {
        // Only the last row is shorter: it was cut by the end of the run.
        let elapsed = end.at.since(at).min(width);
        let per_second = |later: u64, earlier: u64| {
            later.saturating_sub(earlier) as f64 / end.at.since(before.at).as_secs_f64().max(1e-3)
        };
        let counted = |kind: Kind| {
            let latencies = &latencies[kind as usize];
            (latencies.total() as f64 / elapsed.as_secs_f64().max(1e-3), PointLatency::of(latencies))
        };
        let (connects_per_second, connect) = counted(Kind::Connect);
        let (acknowledged_per_second, acknowledged) = counted(Kind::Acknowledged);
        let (delivered_per_second, delivery) = counted(Kind::Delivered);
        let since_before = end.at.since(before.at);
        // Of a process that had not begun to say it nothing is known.
        let own = || before.own.iter().zip(&end.own).filter(|(before, _)| before.cores > 0);
        let busiest = |share: &dyn Fn(&OwnUsage, &OwnUsage) -> Option<f64>| {
            own().filter_map(|(before, end)| share(before, end)).reduce(f64::max)
        };
        let cpu: Duration = own().map(|(before, end)| end.cpu.saturating_sub(before.cpu)).sum();
        let server_cpu =
            before.server.zip(end.server).map(|(before, end)| end.cpu.saturating_sub(before.cpu));
        Self {
            at_seconds: seconds(at),
            seconds: elapsed.as_secs_f64(),
            connections: end.totals.live(),
            connects_per_second,
            connect_failures_per_second: per_second(end.totals.connect_failed, before.totals.connect_failed),
            published_per_second: per_second(end.totals.sent, before.totals.sent),
            acknowledged_per_second,
            delivered_per_second,
            connect,
            acknowledged,
            delivery,
            server_rss_bytes: end.server.map(|server| server.rss_bytes),
            server_cores: server_cpu.map(|cpu| cpu.as_secs_f64() / since_before.as_secs_f64().max(1e-3)),
            load_tester_cores: cpu.as_secs_f64() / since_before.as_secs_f64().max(1e-3),
            load_tester_busy: busiest(&|before, end| Some(end.busy_since(before, since_before)))
                .unwrap_or_default(),
            machine_busy: busiest(&|before, end| end.machine.busy_since(before.machine)),
        }
    }
}

impl PointLatency {
    fn of(counts: &LatencyCounts) -> Self {
        Self {
            count: counts.total(),
            p50_us: counts.percentile(50.0),
            p99_us: counts.percentile(99.0),
            max_us: counts.max(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
fn seconds(at: Micros) -> f64 {
    at.0 as f64 / 1e6
}

fn step(seconds: u64) -> usize {
    usize::try_from(seconds).expect("a run is shorter than 2^32 seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_millis: u64, sent: u64, cpu_ms: u64) -> Sample {
        let cpu = Duration::from_millis(cpu_ms);
        Sample {
            at: Micros(at_millis * 1000),
            totals: Totals { connected: 5, ended: 1, sent, ..Totals::default() },
            server: Some(ServerSample { rss_bytes: 1000 + sent, cpu }),
            own: vec![OwnUsage { cpu, cores: 2, ..OwnUsage::default() }],
        }
    }

    fn delivered(second: u64, micros: &[u64]) -> Interval {
        let mut interval = Interval { second, ..Interval::default() };
        interval.latencies[Kind::Delivered as usize] = micros.iter().map(|micros| (*micros, 1)).collect();
        interval
    }

    #[test]
    fn each_second_has_its_own_rates_and_latencies() {
        let mut timeline = Timeline::begin(sample(0, 0, 100));
        timeline.add(&delivered(0, &[10]));
        timeline.add(&delivered(1, &[20, 30, 40]));
        timeline.sample(0, sample(1000, 100, 600));
        // The thread that takes samples was late by a tenth of a second.
        timeline.sample(1, sample(2100, 210, 1700));
        let points = timeline.points();
        assert_eq!(points.len(), 2);
        assert!((points[0].published_per_second - 100.0).abs() < 1e-9);
        assert!((points[1].published_per_second - 100.0).abs() < 1e-9);
        assert!((points[1].delivered_per_second - 3.0).abs() < 1e-9);
        assert!((points[1].at_seconds - 1.0).abs() < 1e-9);
        assert_eq!(points[1].delivery, PointLatency { count: 3, p50_us: 30, p99_us: 40, max_us: 40 });
        assert_eq!(points[1].connections, 4);
        assert_eq!(points[1].server_rss_bytes, Some(1210));
        assert!((points[0].load_tester_busy - 0.25).abs() < 1e-9);
        assert!(points[0].server_cores.is_some_and(|cores| (cores - 0.5).abs() < 1e-9));
    }

    #[test]
    fn a_second_without_a_sample_is_counted_with_the_next() {
        let mut timeline = Timeline::begin(sample(0, 0, 0));
        timeline.sample(0, sample(1000, 100, 0));
        timeline.sample(2, sample(3000, 300, 0));
        let points = timeline.points();
        assert!(points[1].published_per_second.abs() < 1e-9);
        assert!((points[2].published_per_second - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_long_run_is_kept_in_no_more_rows_and_loses_nothing() {
        let mut timeline = Timeline::begin(sample(0, 0, 0));
        let seconds = TIMELINE_ROWS_MAX as u64 * 3;
        for second in 0..seconds {
            timeline.add(&delivered(second, &[second % 100, 5]));
            timeline.sample(second, sample((second + 1) * 1000, (second + 1) * 7, 0));
        }
        let points = timeline.points();
        assert_eq!(points.len(), TIMELINE_ROWS_MAX * 3 / 4);
        assert_eq!(points.iter().map(|point| point.delivery.count).sum::<u64>(), seconds * 2);
        assert!(points.iter().all(|point| (point.published_per_second - 7.0).abs() < 1e-6));
        assert!(points.iter().all(|point| (point.delivered_per_second - 2.0).abs() < 1e-6));
        assert!((points[1].at_seconds - 4.0).abs() < 1e-9);
    }
}
