//! Follows a run second by second, on a thread of its own: whatever the scenario waits for, the seconds are
//! recorded.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::counters::Totals;
use crate::interval::Interval;
use crate::latencies::Latencies;
use crate::limits::{BUSY_SECONDS_MIN, BUSY_SHARE_MAX, MACHINE_BUSY_SHARE_MAX, SHOW_AFTER};
use crate::own_usage::{OwnUsage, Processes};
use crate::run_clock::{Micros, RunClock};
use crate::server::Server;
use crate::timeline::{Mark, Point, PointLatency, Sample, Timeline};

pub(crate) struct Recorder {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Threads that do the work, here or elsewhere.
pub(crate) trait Source: Send + Sync {
    fn totals(&self) -> Totals;
    /// Those that are over and have not been taken.
    fn take_intervals(&self) -> Vec<Interval>;
}

struct Shared {
    clock: RunClock,
    server: Option<Server>,
    processes: Arc<dyn Processes>,
    /// Locked by the recorder's thread once a second, and by whoever asks how the run goes.
    state: Mutex<State>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

struct State {
    timeline: Timeline,
    latencies: [Latencies; 3],
    sources: Vec<Arc<dyn Source>>,
    /// Of sources that have ended.
    ended: Totals,
    own: Vec<OwnUsage>,
    live: Live,
}

/// How the run goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub(crate) totals: Totals,
    /// The last second that is over.
    pub(crate) point: Point,
}

/// What has been recorded.
#[derive(Debug, Serialize)]
pub(crate) struct Recorded {
    /// What makes the run a failure, besides clients that failed.
    pub(crate) troubles: Vec<String>,
    /// What to bear in mind when reading the figures.
    pub(crate) warnings: Vec<String>,
    pub(crate) load_tester: LoadTesterReport,
    pub(crate) marks: Vec<Mark>,
    pub(crate) timeline: Vec<Point>,
    /// Of the whole run, by [`Kind`](crate::interval::Kind).
    #[serde(serialize_with = "summarize")]
    pub(crate) latencies: [Latencies; 3],
}

/// What the load tester used itself.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LoadTesterReport {
    pub(crate) processes: usize,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    /// Share of its cores that the busiest process kept busy, in the busiest second.
    pub(crate) busy_max: f64,
    pub(crate) busy_seconds: f64,
    pub(crate) machine_busy_max: Option<f64>,
    pub(crate) machine_busy_seconds: f64,
}

impl Recorder {
    pub(crate) fn start(clock: RunClock, server: Option<Server>, processes: Arc<dyn Processes>) -> Self {
        let own = processes.usage();
        let begin = Sample {
            at: clock.now(),
            totals: Totals::default(),
            server: server.as_ref().and_then(Server::sample),
            own: own.clone(),
        };
        let state = State {
            timeline: Timeline::begin(begin),
            latencies: std::array::from_fn(|_| Latencies::new()),
            sources: Vec::new(),
            ended: Totals::default(),
            own,
            live: Live::default(),
        };
        let shared = Arc::new(Shared {
            clock,
            server,
            processes,
            state: Mutex::new(state),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("recorder".into()).spawn(move || shared.record())
        };
        let thread = thread.expect("a process that cannot start a thread can run no test");
        Self { shared, thread: Mutex::new(Some(thread)) }
    }

    pub(crate) fn follow(&self, source: Arc<dyn Source>) {
        self.shared.state.lock().sources.push(source);
    }

    /// Takes the last that the source has to say.
    pub(crate) fn leave(&self, source: &Arc<dyn Source>) {
        let mut state = self.shared.state.lock();
        state.take_intervals();
        state.ended = state.ended.plus(source.totals());
        state.sources.retain(|other| !Arc::ptr_eq(other, source));
    }

    /// From here on, all clients do this.
    pub(crate) fn mark(&self, what: &'static str) {
        self.shared.state.lock().timeline.mark(self.shared.clock.now(), what);
    }

    pub(crate) fn live(&self) -> Live {
        let state = self.shared.state.lock();
        Live { totals: state.totals(), point: state.live.point.clone() }
    }

    /// Of the whole run until now, by [`Kind`](crate::interval::Kind).
    pub(crate) fn latencies(&self) -> [Latencies; 3] {
        self.shared.state.lock().latencies.clone()
    }

    /// What has been recorded until now.
    pub(crate) fn recorded(&self) -> Recorded {
        let now = self.shared.clock.now();
        self.shared.sample(now, now.second());
        let state = self.shared.state.lock();
        let points = state.timeline.points();
        let load_tester = LoadTesterReport::new(&state.own, &points);
        Recorded {
            troubles: Vec::new(),
            warnings: load_tester.warnings(),
            load_tester,
            marks: state.timeline.marks().to_vec(),
            timeline: points,
            latencies: state.latencies.clone(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        *self.shared.stopped.lock() = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // Its panic has been printed; the report is worth more than a second one.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn record(&self) {
        loop {
            let second = self.clock.now().second();
            if self.sleep_until(Micros((second + 1) * 1_000_000)) {
                return;
            }
            let now = self.clock.now();
            // Woken so late that a whole second is gone, it is counted with the next.
            self.sample(now, now.second().saturating_sub(1));
            if self.sleep_until(now.plus(SHOW_AFTER)) {
                return;
            }
            let mut state = self.state.lock();
            state.take_intervals();
            state.live.point = state.latest();
        }
    }

    /// Whether it is to end.
    fn sleep_until(&self, at: Micros) -> bool {
        let at = self.clock.instant(at);
        let mut stopped = self.stopped.lock();
        while !*stopped {
            if self.stop.wait_until(&mut stopped, at).timed_out() {
                return *stopped;
            }
        }
        true
    }

    /// As what ends `second`.
    fn sample(&self, now: Micros, second: u64) {
        // Before the lock: it may take as long as the broker needs to answer.
        let server = self.server.as_ref().and_then(Server::sample);
        let mut state = self.state.lock();
        state.take_intervals();
        state.own = self.processes.usage();
        let sample = Sample { at: now, totals: state.totals(), server, own: state.own.clone() };
        state.timeline.sample(second, sample);
    }
}

impl State {
    fn take_intervals(&mut self) {
        for source in &self.sources {
            for interval in source.take_intervals() {
                self.timeline.add(&interval);
                for (all, counts) in self.latencies.iter_mut().zip(&interval.latencies) {
                    all.add_counts(counts);
                }
            }
        }
    }

    fn totals(&self) -> Totals {
        self.sources.iter().fold(self.ended, |sum, source| sum.plus(source.totals()))
    }

    /// Of the last second that is over; a thread with little to do hands its latencies over up to a second
    /// later.
    fn latest(&self) -> Point {
        let [mut latest, before] = self.timeline.latest();
        for (mine, theirs) in [
            (&mut latest.connect, before.connect),
            (&mut latest.acknowledged, before.acknowledged),
            (&mut latest.delivery, before.delivery),
        ] {
            if *mine == PointLatency::default() {
                *mine = theirs;
            }
        }
        latest
    }
}

impl Recorded {
    #[must_use]
    pub(crate) fn with_troubles(mut self, troubles: impl IntoIterator<Item = String>) -> Self {
        self.troubles.extend(troubles);
        self
    }
}

impl LoadTesterReport {
    fn new(own: &[OwnUsage], points: &[Point]) -> Self {
        let busy = |share: f64| share > BUSY_SHARE_MAX;
        let machine_busy =
            |point: &Point| point.machine_busy.is_some_and(|share| share > MACHINE_BUSY_SHARE_MAX);
        let cpu: Duration = own.iter().map(|usage| usage.cpu).sum();
        // A moment at the end says nothing of a core: ticks are hundredths of a second.
        let whole = || points.iter().filter(|point| point.seconds > 0.5);
        Self {
            processes: own.len(),
            cpu_seconds: cpu.as_secs_f64(),
            rss_bytes: own.iter().map(|usage| usage.rss_bytes).sum(),
            busy_max: whole().map(|point| point.load_tester_busy).fold(0.0, f64::max),
            busy_seconds: whole().filter(|p| busy(p.load_tester_busy)).map(|p| p.seconds).sum(),
            machine_busy_max: whole().filter_map(|point| point.machine_busy).reduce(f64::max),
            machine_busy_seconds: whole().filter(|p| machine_busy(p)).map(|p| p.seconds).sum(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.busy_seconds >= BUSY_SECONDS_MIN {
            warnings.push(format!(
                "the load tester kept more than {:.0} % of its own cores busy for {:.0} s: the latencies of \
                 that time are partly its own; give it more cores, or spread it with --processes or --agents",
                BUSY_SHARE_MAX * 100.0,
                self.busy_seconds
            ));
        }
        if self.machine_busy_seconds >= BUSY_SECONDS_MIN {
            warnings.push(format!(
                "the machine that the load tester runs on was more than {:.0} % busy for {:.0} s: the latencies \
                 of that time are partly waits for a core",
                MACHINE_BUSY_SHARE_MAX * 100.0,
                self.machine_busy_seconds
            ));
        }
        warnings
    }
}

/// Their summaries, by name.
fn summarize<S: Serializer>(latencies: &[Latencies; 3], serializer: S) -> Result<S::Ok, S::Error> {
    let [connect, acknowledged, delivery] = latencies.each_ref().map(Latencies::summary);
    let mut map = serializer.serialize_map(Some(latencies.len()))?;
    map.serialize_entry("connect", &connect)?;
    map.serialize_entry("acknowledged", &acknowledged)?;
    map.serialize_entry("delivery", &delivery)?;
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Kind;
    use crate::own_usage::ThisProcess;

    struct Made(Mutex<Vec<Interval>>);

    impl Source for Made {
        fn totals(&self) -> Totals {
            Totals { connected: 3, sent: 10, ..Totals::default() }
        }

        fn take_intervals(&self) -> Vec<Interval> {
            std::mem::take(&mut self.0.lock())
        }
    }

    fn made() -> Arc<dyn Source> {
        let mut interval = Interval::default();
        interval.latencies[Kind::Delivered as usize] = [(250, 4)].into_iter().collect();
        Arc::new(Made(Mutex::new(vec![interval])))
    }

    #[test]
    fn sources_that_have_ended_stay_in_the_record() {
        let recorder = Recorder::start(RunClock::start(), None, Arc::new(ThisProcess(1)));
        for _ in 0..2 {
            let source = made();
            recorder.follow(Arc::clone(&source));
            recorder.leave(&source);
        }
        assert_eq!(recorder.live().totals.sent, 20);
        let recorded = recorder.recorded();
        assert_eq!(recorded.latencies[Kind::Delivered as usize].summary().count, 8);
        assert_eq!(recorded.timeline.iter().map(|point| point.delivery.count).sum::<u64>(), 8);
        assert_eq!(recorded.timeline.last().map(|point| point.connections), Some(6));
    }

    #[test]
    fn the_seconds_pass_whatever_the_scenario_waits_for() {
        let recorder = Recorder::start(RunClock::start(), None, Arc::new(ThisProcess(1)));
        let source = made();
        recorder.follow(Arc::clone(&source));
        recorder.mark("publishing");
        std::thread::sleep(Duration::from_millis(1300));
        let live = recorder.live();
        assert!(live.point.published_per_second > 0.0, "{live:?}");
        assert_eq!(live.point.delivery.p99_us, 250);
        recorder.leave(&source);
        let recorded = recorder.recorded();
        assert_eq!(recorded.timeline.len(), 2);
        assert_eq!(recorded.marks[0].what, "publishing");
    }

    #[test]
    fn a_saturated_load_tester_is_said() {
        let point = |busy, machine| Point {
            seconds: 1.0,
            load_tester_busy: busy,
            machine_busy: Some(machine),
            ..Point::default()
        };
        let warnings = |points: &[Point]| LoadTesterReport::new(&[], points).warnings();
        assert!(warnings(&[point(0.9, 0.5), point(0.8, 0.5)]).is_empty());
        assert!(
            warnings(&[point(0.9, 0.5), point(0.9, 0.5)])[0].contains("85 % of its own cores busy for 2 s")
        );
        assert!(warnings(&[point(0.1, 0.98), point(0.1, 0.98)])[0].contains("more than 95 % busy for 2 s"));
    }
}
