//! How far the run has come, for whoever waits: a bar on a terminal, else a line now and then.

use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::figures::milliseconds;
use crate::limits::PLAIN_PROGRESS_INTERVAL;
use crate::recorder::Recorder;
use crate::timeline::Point;

/// On standard error: standard output is the report's.
pub(crate) struct Progress {
    bar: ProgressBar,
    label: &'static str,
    plain_at: Option<Instant>,
    recorder: Option<Arc<Recorder>>,
}

impl Progress {
    pub(crate) fn begin(label: &'static str, length: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:<10} {wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.expect("the template is constant and valid"));
        bar.set_prefix(label);
        let plain_at = bar.is_hidden().then(|| Instant::now() + PLAIN_PROGRESS_INTERVAL);
        Self { bar, label, plain_at, recorder: None }
    }

    /// Shows the rates of the last second too.
    pub(crate) fn with_rates(self, recorder: &Arc<Recorder>) -> Self {
        Self { recorder: Some(Arc::clone(recorder)), ..self }
    }

    pub(crate) fn show(&mut self, position: u64, message: impl FnOnce() -> String) {
        self.bar.set_position(position);
        let Some(plain_at) = self.plain_at else {
            self.bar.set_message(format!("{}{}", message(), self.rates()));
            return;
        };
        if Instant::now() >= plain_at {
            let length = self.bar.length().unwrap_or_default();
            eprintln!("{}: {position}/{length} {}{}", self.label, message(), self.rates());
            self.plain_at = Some(plain_at + PLAIN_PROGRESS_INTERVAL);
        }
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }

    fn rates(&self) -> String {
        self.recorder.as_ref().map_or_else(String::new, |recorder| rates(&recorder.live().point))
    }
}

/// What did not happen is left out.
fn rates(point: &Point) -> String {
    let kinds = [
        ("connects", point.connects_per_second, point.connect.p99_us),
        ("published", point.published_per_second, point.acknowledged.p99_us),
        ("delivered", point.delivered_per_second, point.delivery.p99_us),
    ];
    let happened = kinds.into_iter().filter(|(_, per_second, _)| *per_second > 0.0);
    happened
        .map(|(what, per_second, p99_us)| match p99_us {
            0 => format!(" · {per_second:.0} {what}/s"),
            _ => format!(" · {per_second:.0} {what}/s, p99 {:.1} ms", milliseconds(p99_us)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::PointLatency;

    #[test]
    fn the_rates_say_what_happened_and_nothing_else() {
        assert_eq!(rates(&Point::default()), "");
        let point = Point {
            published_per_second: 1000.4,
            delivered_per_second: 998.0,
            delivery: PointLatency { count: 998, p99_us: 1250, ..PointLatency::default() },
            ..Point::default()
        };
        assert_eq!(rates(&point), " · 1000 published/s · 998 delivered/s, p99 1.2 ms");
    }
}
