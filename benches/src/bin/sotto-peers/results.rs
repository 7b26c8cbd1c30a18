//! What came out of every run.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Broker;
use crate::load_report::Figures;
use crate::scenario::Scenario;

/// The figures of one round, or why there are none.
pub(crate) type Outcome = Result<Figures, String>;

#[derive(Default)]
pub(crate) struct Results {
    /// In the order of the rounds.
    outcomes: BTreeMap<(Scenario, Broker), Vec<Outcome>>,
}

impl Results {
    pub(crate) fn add(&mut self, scenario: Scenario, broker: Broker, outcome: Outcome) {
        self.outcomes.entry((scenario, broker)).or_default().push(outcome);
    }

    pub(crate) fn scenarios(&self) -> BTreeSet<Scenario> {
        self.outcomes.keys().map(|(scenario, _)| *scenario).collect()
    }

    pub(crate) fn of(&self, scenario: Scenario) -> impl Iterator<Item = (Broker, &[Outcome])> {
        let of_scenario = self.outcomes.iter().filter(move |((of, _), _)| *of == scenario);
        of_scenario.map(|((_, broker), outcomes)| (*broker, outcomes.as_slice()))
    }

    /// The TLS version and suite that each broker spoke.
    pub(crate) fn suites(&self) -> BTreeMap<String, BTreeSet<&'static str>> {
        let mut suites: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
        for ((scenario, broker), outcomes) in &self.outcomes {
            if *scenario != Scenario::IdlePlain {
                for figures in outcomes.iter().flatten() {
                    suites.entry(figures.transport.clone()).or_default().insert(broker.name());
                }
            }
        }
        suites
    }
}
