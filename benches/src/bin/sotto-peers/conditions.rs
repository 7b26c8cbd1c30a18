//! Under what a comparison was made.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::thread::available_parallelism;
use std::time::SystemTime;

use serde::Serialize;

use crate::args::Args;
use crate::broker::Broker;
use crate::programs::Programs;
use crate::scenario::Sizes;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Conditions {
    pub(crate) date: String,
    /// Without the folders of this machine.
    pub(crate) command: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    /// When it began: what else the machine did.
    pub(crate) load_average: String,
    pub(crate) rounds: u32,
    pub(crate) connections_max: u32,
    pub(crate) brokers: Vec<BrokerConditions>,
    /// Who spoke which TLS version and suite.
    pub(crate) suites: BTreeMap<String, BTreeSet<&'static str>>,
    pub(crate) skipped: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BrokerConditions {
    pub(crate) broker: Broker,
    pub(crate) version: String,
    pub(crate) settings: &'static str,
}

impl Conditions {
    pub(crate) fn of(programs: &Programs, brokers: &[Broker], args: &Args, sizes: &Sizes) -> Self {
        let first_line = |file| fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        let load = first_line("/proc/loadavg");
        // What a distributor appends says who built it.
        let kernel = first_line("/proc/sys/kernel/osrelease");
        Self {
            date: httpdate::fmt_http_date(SystemTime::now()),
            command: command(),
            processor: field("/proc/cpuinfo", "model name"),
            cores: available_parallelism().map_or(1, std::num::NonZero::get),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: kernel.split('-').next().unwrap_or_default().to_owned(),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
            rounds: args.rounds,
            connections_max: sizes.connections_max,
            brokers: brokers
                .iter()
                .map(|broker| BrokerConditions {
                    broker: *broker,
                    version: programs.version(*broker),
                    settings: broker.settings(),
                })
                .collect(),
            suites: BTreeMap::new(),
            skipped: programs.skipped.clone(),
        }
    }
}

/// As it was given; a folder is where somebody keeps things, and says nothing about what was measured.
fn command() -> String {
    let arguments = env::args().skip(1).map(|argument| match argument.rsplit_once('/') {
        Some((_, last)) => last.to_owned(),
        None => argument,
    });
    ["sotto-peers".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// A line `name : value` of a file in /proc.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
}
