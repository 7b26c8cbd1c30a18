//! The comparison in one table: a row a broker, the medians that tell most.

use crate::broker::Broker;
use crate::comparison::{Comparison, Row};
use crate::measure::Metric;
use crate::scenario::Scenario;

/// Of a figure that there is none of.
pub(crate) const NONE: &str = "–";

/// The broker's, with its database's where it has one.
const CPU: &[Metric] = &[Metric::CpuPerDeliveryUs];

const COLUMNS: [(&str, Scenario, &[Metric]); 12] = [
    ("bytes/idle TLS connection", Scenario::IdleMiddle, &[Metric::BytesPerConnection]),
    ("plain TCP", Scenario::IdlePlain, &[Metric::BytesPerConnection]),
    ("CPU µs/connect", Scenario::IdleMiddle, &[Metric::CpuPerConnectUs]),
    ("storm, s", Scenario::Storm, &[Metric::AllConnectedSeconds]),
    ("QoS 0, 1 outstanding", Scenario::Qos0Window1, CPU),
    ("QoS 0, 16", Scenario::Qos0Window16, CPU),
    ("QoS 1, 1 outstanding", Scenario::Qos1Window1, CPU),
    ("QoS 1, 16", Scenario::Qos1Window16, CPU),
    ("QoS 1, 16 pairs, 16 each", Scenario::Qos1Pairs, CPU),
    ("1→500, QoS 0", Scenario::FanOutQos0, CPU),
    ("1→500, QoS 1", Scenario::FanOutQos1, CPU),
    ("p50 / p99 ms at 5,000/s", Scenario::Steady, &[Metric::DeliveryP50Ms, Metric::DeliveryP99Ms]),
];

pub(crate) struct Summary {
    /// Of what was measured.
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<(Broker, Vec<String>)>,
}

impl Summary {
    pub(crate) fn of(comparison: &Comparison) -> Self {
        let is_measured = |of: Scenario| comparison.sections.iter().any(|section| section.scenario == of);
        let columns: Vec<_> = COLUMNS.iter().filter(|(_, scenario, _)| is_measured(*scenario)).collect();
        let rows = comparison.brokers().into_iter().map(|broker| {
            let cells = columns.iter().map(|(_, scenario, metrics)| {
                comparison.row(*scenario, broker).map_or_else(|| NONE.to_owned(), |row| cell(row, metrics))
            });
            (broker, cells.collect())
        });
        let rows = rows.collect();
        Self { columns: columns.iter().map(|(label, ..)| *label).collect(), rows }
    }
}

fn cell(row: &Row, metrics: &[Metric]) -> String {
    let figures = metrics.iter().map(|metric| {
        let metric = match metric {
            Metric::CpuPerDeliveryUs if row.broker == Broker::SottoPostgres => {
                Metric::TogetherCpuPerDeliveryUs
            }
            metric => *metric,
        };
        Some(metric.shown(row.figures.get(&metric)?.median))
    });
    figures.collect::<Option<Vec<_>>>().map_or_else(|| NONE.to_owned(), |figures| figures.join(" / "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::tests::sample;

    #[test]
    fn the_summary_has_a_row_a_broker_and_a_column_for_what_was_measured() {
        let summary = Summary::of(&sample());
        assert_eq!(summary.columns, ["bytes/idle TLS connection", "CPU µs/connect", "QoS 1, 16"]);
        let cells: Vec<Vec<&str>> =
            summary.rows.iter().map(|(_, cells)| cells.iter().map(String::as_str).collect()).collect();
        assert_eq!(
            cells,
            [vec!["5,100", NONE, NONE], vec![NONE, NONE, "30.0"], vec!["20,000", NONE, NONE], vec![NONE; 3]]
        );
    }
}
