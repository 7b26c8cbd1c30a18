//! How far the run has come, for whoever waits: a bar on a terminal, else a line now and then.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::limits::PLAIN_PROGRESS_INTERVAL;

/// On standard error: standard output is the report's.
pub(crate) struct Progress {
    bar: ProgressBar,
    label: &'static str,
    plain_at: Option<Instant>,
}

impl Progress {
    pub(crate) fn begin(label: &'static str, length: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:<10} {wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.expect("the template is constant and valid"));
        bar.set_prefix(label);
        let plain_at = bar.is_hidden().then(|| Instant::now() + PLAIN_PROGRESS_INTERVAL);
        Self { bar, label, plain_at }
    }

    pub(crate) fn show(&mut self, position: u64, message: impl FnOnce() -> String) {
        self.bar.set_position(position);
        let Some(plain_at) = self.plain_at else {
            self.bar.set_message(message());
            return;
        };
        if Instant::now() >= plain_at {
            let length = self.bar.length().unwrap_or_default();
            eprintln!("{}: {position}/{length} {}", self.label, message());
            self.plain_at = Some(plain_at + PLAIN_PROGRESS_INTERVAL);
        }
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}
