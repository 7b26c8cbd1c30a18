//! Runs a course to its end, whatever fails on the way.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::broker::Broker;
use crate::certificates::Certificates;
use crate::course::Leg;
use crate::database::Database;
use crate::limits::WARM_UP_SECONDS;
use crate::load::Load;
use crate::load_report::Figures;
use crate::programs::Programs;
use crate::results::{Outcome, Results};
use crate::running::Running;
use crate::scenario::{Pace, Scenario, Shape, Sizes};

/// Before the first message is counted: a broker that compiles while it runs has done so.
const WARM_UP: Shape = Shape::Messages {
    qos: 1,
    publishers: 1,
    subscribers: 1,
    topics: 1,
    pace: Pace::Window(16),
    seconds: WARM_UP_SECONDS,
};

struct Runner<'a> {
    programs: &'a Programs,
    certificates: Certificates,
    database: Option<Database>,
    sizes: &'a Sizes,
}

pub(crate) fn run(
    programs: &Programs,
    course: &[Leg],
    sizes: &Sizes,
    longest: Duration,
) -> anyhow::Result<Results> {
    let since = Instant::now();
    let certificates = Certificates::make().context("make certificates")?;
    let needs_database = course.iter().any(|leg| leg.brokers.contains(&Broker::SottoPostgres));
    let database = needs_database.then(Database::start);
    let runner = Runner { programs, certificates, database, sizes };
    let mut results = Results::default();
    for (at, leg) in course.iter().enumerate() {
        // Between two legs alone: a leg that some brokers have run and others have not compares nothing.
        if since.elapsed() > longest {
            eprintln!("{} of {} left out: the time is over", course.len() - at, course.len());
            break;
        }
        for broker in &leg.brokers {
            let scenarios: Vec<Scenario> =
                leg.scenarios.iter().copied().filter(|of| !broker.stores() || of.is_stored()).collect();
            eprintln!("{} of {}, round {}: {}", at + 1, course.len(), leg.round + 1, broker.name());
            runner.run(*broker, &scenarios, &mut results);
        }
    }
    Ok(results)
}

impl Runner<'_> {
    /// All on one start of the broker, as long as it lives.
    fn run(&self, broker: Broker, scenarios: &[Scenario], results: &mut Results) {
        let mut running = None;
        for scenario in scenarios {
            let shape = scenario.shape(self.sizes);
            let outcome = self.outcome(broker, shape, &mut running);
            if let Err(reason) = &outcome {
                eprintln!("  {}: {reason}", shape.title());
                // The next scenario has a broker that nothing has happened to.
                running = None;
            }
            results.add(*scenario, broker, outcome);
        }
    }

    fn outcome(&self, broker: Broker, shape: Shape, running: &mut Option<Running>) -> Outcome {
        if let Some(running) = running {
            return Measured { runner: self, broker, running }.load(shape);
        }
        let started = self.start(broker).map_err(|error| format!("{error:#}"))?;
        let measured = Measured { runner: self, broker, running: running.insert(started) };
        if let Shape::Messages { .. } = shape {
            measured.load(WARM_UP).map_err(|error| format!("warming up: {error}"))?;
        }
        measured.load(shape)
    }

    fn start(&self, broker: Broker) -> anyhow::Result<Running> {
        Running::start(broker, self.programs, &self.certificates, self.database.as_ref())
    }
}

struct Measured<'a> {
    runner: &'a Runner<'a>,
    broker: Broker,
    running: &'a Running,
}

impl Measured<'_> {
    fn load(&self, shape: Shape) -> Outcome {
        let load = Load {
            program: &self.runner.programs.loadtest,
            authority: self.runner.certificates.authority(),
            process: self.running.id(),
            tls: self.running.tls,
            plain: self.running.plain,
            stored: self.broker.stores(),
        };
        let database = self.runner.database.as_ref().filter(|_| self.broker == Broker::SottoPostgres);
        let before = database.and_then(Database::cpu);
        let report = load.run(shape).map_err(|error| format!("{error:#}"))?;
        let after = database.and_then(Database::cpu);
        let database_cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Figures::of(shape, &report, database_cpu).map_err(|error| error.to_string())
    }
}
