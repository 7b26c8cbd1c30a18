//! The only output layer for logs: one line an event, of listed fields alone.
//!
//! Events of this product carry a fixed text and fields that hold codes, counts and kinds. Events of
//! libraries may quote anything, so of those only level and origin are printed.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;

use sotto_model::Clock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

use crate::clock::SystemClock;

/// `error` is the text of an error of this product; none of them quotes what came from outside.
const FIELDS: [&str; 8] = ["event", "error", "kind", "code", "operation", "count", "platform", "outcome"];
const OWN_TARGET: &str = "sotto";

pub(crate) fn install(clock: Arc<SystemClock>) {
    let layer = Lines { clock };
    // A second call, in a test process, finds the first one's.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

struct Lines {
    clock: Arc<SystemClock>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let most = if is_own(metadata) { Level::INFO } else { Level::WARN };
        metadata.is_event() && *metadata.level() <= most
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = format!("{} {} {}", self.clock.unix_now().0, metadata.level(), metadata.target());
        if is_own(metadata) {
            event.record(&mut Listed(&mut line));
        }
        line.push('\n');
        // There is nowhere left to say that standard error is closed.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().split("::").next().is_some_and(|root| {
        root == OWN_TARGET || root.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.starts_with('_'))
    })
}

struct Listed<'l>(&'l mut String);

impl Visit for Listed<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if name == "message" || FIELDS.contains(&name) {
            // Writing to a string does not fail.
            let _ = write!(self.0, " {name}={value:?}");
        }
    }
}
