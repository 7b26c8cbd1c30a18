//! Who runs when: all brokers do the same before any goes on, in an order drawn anew each time, so that what
//! else the machine does meets all of them alike.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::broker::Broker;
use crate::scenario::Scenario;

/// Scenarios that follow each other on one start of a broker, and the brokers in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) round: u32,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) brokers: Vec<Broker>,
}

pub(crate) fn plan(scenarios: &[Scenario], brokers: &[Broker], rounds: u32, seed: u64) -> Vec<Leg> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (fresh, shared): (Vec<Scenario>, Vec<Scenario>) =
        scenarios.iter().partition(|scenario| scenario.needs_fresh_broker());
    let steps: Vec<Vec<Scenario>> = fresh
        .into_iter()
        .map(|scenario| vec![scenario])
        .chain([shared])
        .filter(|step| !step.is_empty())
        .collect();
    let mut legs = Vec::new();
    for round in 0..rounds {
        for step in
            steps.iter().filter(|step| round == 0 || !step.iter().any(|scenario| scenario.runs_once()))
        {
            let is_stored = step.iter().any(|scenario| scenario.is_stored());
            let mut brokers: Vec<Broker> =
                brokers.iter().copied().filter(|broker| is_stored || !broker.stores()).collect();
            brokers.shuffle(&mut chance);
            legs.push(Leg { round, scenarios: step.clone(), brokers });
        }
    }
    legs
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    const BROKERS: [Broker; 5] =
        [Broker::Sotto, Broker::SottoSqlite, Broker::Mosquitto, Broker::Rmqtt, Broker::Aedes];

    fn planned(rounds: u32, seed: u64) -> Vec<Leg> {
        plan(Scenario::value_variants(), &BROKERS, rounds, seed)
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_another_gives_another() {
        assert_eq!(planned(3, 7), planned(3, 7));
        assert_ne!(planned(3, 7), planned(3, 8));
    }

    #[test]
    fn every_broker_has_its_turn_once_in_each_leg() {
        for leg in planned(4, 1) {
            let mut brokers = leg.brokers.clone();
            brokers.sort();
            let stores = leg.scenarios.iter().any(|scenario| scenario.is_stored());
            let expected: Vec<_> = BROKERS.into_iter().filter(|broker| stores || !broker.stores()).collect();
            assert_eq!(brokers, expected, "{leg:?}");
        }
    }

    #[test]
    fn the_order_changes_from_round_to_round() {
        let legs = planned(8, 1);
        let orders = legs.iter().filter(|leg| leg.scenarios == [Scenario::Storm]).map(|leg| &leg.brokers);
        let mut distinct: Vec<_> = orders.collect();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 2, "{distinct:?}");
    }

    #[test]
    fn the_largest_scenarios_run_in_the_first_round_alone() {
        for leg in planned(3, 1) {
            let is_large = leg.scenarios.iter().any(|scenario| scenario.runs_once());
            assert!(!is_large || leg.round == 0, "{leg:?}");
        }
        assert_eq!(planned(3, 1).iter().filter(|leg| leg.scenarios == [Scenario::IdleFull]).count(), 1);
    }

    #[test]
    fn what_measures_memory_has_a_broker_of_its_own() {
        for leg in planned(1, 1) {
            let is_fresh = leg.scenarios.iter().any(|scenario| scenario.needs_fresh_broker());
            assert!(!is_fresh || leg.scenarios.len() == 1, "{leg:?}");
        }
    }
}
