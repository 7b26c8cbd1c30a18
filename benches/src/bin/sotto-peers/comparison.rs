//! The outcome: what tables, page and JSON show.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::broker::Broker;
use crate::conditions::Conditions;
use crate::measure::Metric;
use crate::results::{Outcome, Results};
use crate::scenario::{Scenario, Sizes};
use crate::spread::Spread;

#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) conditions: Conditions,
    pub(crate) sections: Vec<Section>,
    /// What rows refer to by number, from 1.
    pub(crate) footnotes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) scenario: Scenario,
    pub(crate) title: String,
    /// Every metric that any row has.
    pub(crate) metrics: Vec<Metric>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) broker: Broker,
    pub(crate) figures: BTreeMap<Metric, Spread>,
    pub(crate) footnotes: Vec<usize>,
}

impl Comparison {
    pub(crate) fn of(conditions: Conditions, results: &Results, sizes: &Sizes) -> Self {
        let mut footnotes = Vec::new();
        let sections = results
            .scenarios()
            .into_iter()
            .map(|scenario| {
                let rows: Vec<Row> = results
                    .of(scenario)
                    .map(|(broker, outcomes)| Row::of(broker, outcomes, &mut footnotes))
                    .collect();
                let mut metrics: Vec<Metric> =
                    rows.iter().flat_map(|row| row.figures.keys().copied()).collect();
                metrics.sort();
                metrics.dedup();
                Section { scenario, title: scenario.shape(sizes).title(), metrics, rows }
            })
            .collect();
        Self { conditions, sections, footnotes }
    }

    /// The brokers of any section, in their order.
    pub(crate) fn brokers(&self) -> Vec<Broker> {
        let mut brokers: Vec<Broker> =
            self.sections.iter().flat_map(|section| &section.rows).map(|row| row.broker).collect();
        brokers.sort();
        brokers.dedup();
        brokers
    }

    pub(crate) fn row(&self, scenario: Scenario, broker: Broker) -> Option<&Row> {
        let section = self.sections.iter().find(|section| section.scenario == scenario)?;
        section.rows.iter().find(|row| row.broker == broker)
    }
}

impl Row {
    fn of(broker: Broker, outcomes: &[Outcome], footnotes: &mut Vec<String>) -> Self {
        let mut rounds: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
        for measure in outcomes.iter().flatten().flat_map(|figures| &figures.measures) {
            rounds.entry(measure.metric).or_default().push(measure.value);
        }
        let figures =
            rounds.into_iter().filter_map(|(metric, rounds)| Some((metric, Spread::of(rounds)?))).collect();
        let notes = outcomes.iter().enumerate().filter_map(|(round, outcome)| {
            let said = match outcome {
                Ok(figures) => figures.note.clone()?,
                Err(reason) => format!("failed: {reason}"),
            };
            Some(format!("{}, round {}: {said}", broker.name(), round + 1))
        });
        let notes: Vec<String> = notes.collect();
        let first = footnotes.len() + 1;
        let numbers = (first..first + notes.len()).collect();
        footnotes.extend(notes);
        Self { broker, figures, footnotes: numbers }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::load_report::Figures;
    use crate::measure::Measure;

    const SIZES: Sizes = Sizes { connections_max: 19_000, seconds: 3 };

    pub(crate) fn sample() -> Comparison {
        let mut results = Results::default();
        let bytes = |value| {
            let measures = vec![Measure { metric: Metric::BytesPerConnection, value }];
            Ok(Figures { measures, note: None, transport: "TLSv1_3".to_owned() })
        };
        for value in [5_000.0, 5_200.0, 5_100.0] {
            results.add(Scenario::IdleMiddle, Broker::Sotto, bytes(value));
        }
        let cpu = [
            (Metric::CpuPerDeliveryUs, 20.0),
            (Metric::DatabaseCpuPerDeliveryUs, 10.0),
            (Metric::TogetherCpuPerDeliveryUs, 30.0),
        ];
        let measures = cpu.into_iter().map(|(metric, value)| Measure { metric, value }).collect();
        let stored = Figures { measures, note: None, transport: "TLSv1_3".to_owned() };
        results.add(Scenario::Qos1Window16, Broker::SottoPostgres, Ok(stored));
        results.add(Scenario::IdleMiddle, Broker::Mosquitto, bytes(20_000.0));
        results.add(Scenario::IdleMiddle, Broker::Mosquitto, Err("9 of 10 <connected>".to_owned()));
        results.add(Scenario::IdleMiddle, Broker::Aedes, Err("does not listen".to_owned()));
        let conditions = Conditions { suites: results.suites(), ..Conditions::default() };
        Comparison::of(conditions, &results, &SIZES)
    }

    #[test]
    fn a_failure_is_a_footnote_beside_what_was_measured() {
        let comparison = sample();
        let row = comparison.row(Scenario::IdleMiddle, Broker::Mosquitto).expect("a row");
        assert_eq!(row.figures[&Metric::BytesPerConnection].rounds, [20_000.0]);
        assert_eq!(row.footnotes, [1]);
        assert_eq!(comparison.footnotes[0], "mosquitto, round 2: failed: 9 of 10 <connected>");
    }

    #[test]
    fn a_broker_that_never_succeeded_has_a_row_without_figures() {
        let comparison = sample();
        let row = comparison.row(Scenario::IdleMiddle, Broker::Aedes).expect("a row");
        assert!(row.figures.is_empty());
        assert_eq!(comparison.footnotes[row.footnotes[0] - 1], "aedes, round 1: failed: does not listen");
        assert_eq!(
            comparison.brokers(),
            [Broker::Sotto, Broker::SottoPostgres, Broker::Mosquitto, Broker::Aedes]
        );
    }
}
