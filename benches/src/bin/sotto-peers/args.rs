//! The command line.

use std::env;
use std::path::{self, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::broker::Broker;
use crate::limits::CONNECTIONS_MAX;
use crate::scenario::{Scenario, Sizes};

/// Runs Sotto and other brokers through the same scenarios, interleaved, and writes a table
#[derive(Debug, Parser)]
#[command(name = "sotto-peers", version)]
pub(crate) struct Args {
    /// Brokers to compare [default: all that are installed]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "BROKER,…")]
    peers: Vec<Broker>,
    /// Scenarios [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO,…")]
    scenarios: Vec<Scenario>,
    /// How often everything is measured; the largest scenarios once all the same
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Connections of a scenario at most [default: what its name says, as far as the limit of open files goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    clients: Option<u32>,
    /// How long messages are published in each scenario
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Nothing is begun after so long; the tables show what was measured till then
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Of the order in which brokers take turns
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with bars
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Put the tables between the markers of a Markdown file; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Vec<PathBuf>,
    /// Folder that holds `sotto` and `sotto-loadtest` [default: where this program is; under `cargo run` they
    /// are built first]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Folder of the peers that are no system packages [default: `peers` in the target folder]
    #[arg(long, value_name = "DIR")]
    peers_dir: Option<PathBuf>,
    /// First install those from their registries (cargo, npm) into that folder
    #[arg(long)]
    pub(crate) install: bool,
}

impl Args {
    pub(crate) fn brokers(&self) -> Vec<Broker> {
        if self.peers.is_empty() { Broker::value_variants().to_vec() } else { distinct(&self.peers) }
    }

    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        if self.scenarios.is_empty() {
            Scenario::value_variants().to_vec()
        } else {
            distinct(&self.scenarios)
        }
    }

    pub(crate) fn sizes(&self, connections_max: u32) -> Sizes {
        let connections_max = self.clients.map_or(connections_max, |clients| clients.min(connections_max));
        Sizes { connections_max, seconds: self.seconds }
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_mins(self.minutes)
    }

    pub(crate) fn peers_dir(&self) -> PathBuf {
        let beside = || {
            let program = env::current_exe().unwrap_or_default();
            program.parent().and_then(|folder| folder.parent()).map(|folder| folder.join("peers"))
        };
        absolute(self.peers_dir.clone().or_else(beside).unwrap_or_else(|| "peers".into()))
    }
}

/// Programs are started in folders of their own.
pub(crate) fn absolute(folder: PathBuf) -> PathBuf {
    path::absolute(&folder).unwrap_or(folder)
}

/// In the order of their declaration, whatever was given.
fn distinct<T: ValueEnum + PartialEq + Clone>(given: &[T]) -> Vec<T> {
    T::value_variants().iter().filter(|variant| given.contains(variant)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_named_twice_runs_once_and_in_the_usual_order() {
        let args = Args::try_parse_from(["x", "--peers", "mosquitto,sotto,mosquitto"]).expect("arguments");
        assert_eq!(args.brokers(), [Broker::Sotto, Broker::Mosquitto]);
        let all = Args::try_parse_from(["x"]).expect("arguments");
        assert_eq!(all.brokers(), Broker::value_variants());
        assert_eq!(all.scenarios(), Scenario::value_variants());
    }

    #[test]
    fn clients_are_never_more_than_the_system_allows() {
        let args = Args::try_parse_from(["x", "--clients", "5000"]).expect("arguments");
        assert_eq!(args.sizes(19_000).connections_max, 5_000);
        assert_eq!(args.sizes(24).connections_max, 24);
    }
}
