//! The part of the command line that all scenarios have.

use std::path::PathBuf;

use clap::{ArgAction, ValueEnum};
use sotto_mqtt::packet::Version;

use crate::arg_values::parse_rate;
use crate::limits::{CLIENTS_MAX, RUN_SECONDS_MAX};
use crate::objective_args::ObjectiveArgs;
use crate::output_args::OutputArgs;
use crate::server_metrics::ServerMetrics;
use crate::source_address::SourceRange;
use crate::spread_args::SpreadArgs;
use crate::template::Template;
use crate::transport_args::TransportArgs;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub(crate) transport: TransportArgs,
    /// MQTT 3.1.1 or 5.0
    #[arg(long, value_enum, default_value = "5")]
    pub(crate) protocol: Protocol,
    /// Client Identifier: %i = client number (publishers first, then subscribers), %r = run id, %u = user
    /// name, %{i/10} and %{i%10} = the number divided and the rest
    #[arg(long, value_name = "TEMPLATE", default_value = "load-%r-%i")]
    pub(crate) client_id: Template,
    /// User name: %i and %r as in --client-id
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) username: Option<Template>,
    /// Passwords, one a line: client i uses line i mod lines
    #[arg(long, value_name = "FILE", requires = "username")]
    pub(crate) password_file: Option<PathBuf>,
    /// Client identifiers, user names and passwords, a client a line: client-id,user,password (each may be
    /// empty; an empty client-id is as --client-id says)
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub(crate) credentials: Option<PathBuf>,
    /// Clean Start (3.1.1: Clean Session)
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub(crate) clean: bool,
    /// Session Expiry Interval (MQTT 5)
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) session_expiry: u32,
    /// Receive Maximum that clients grant (MQTT 5) [default: as many as there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) receive_maximum: Option<u16>,
    /// Keep Alive; a PINGREQ goes out every half of it; 0 = none
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) keep_alive: u16,
    /// Connections to begin per second, whatever the broker can do; 0 = all at once
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000.0, value_parser = parse_rate)]
    pub(crate) connect_rate: f64,
    /// Connections that may be under way at once; waiting for a place counts as connect time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(crate) connect_in_flight: u32,
    /// Time each connection has to get as far as CONNACK (and SUBACK)
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) connect_timeout: u64,
    /// Source addresses, such as 127.1.0.0/16; client i takes the i-th; `none` leaves it to the system
    /// [default: 127.1.0.0/16 where the broker is on 127.0.0.0/8 (Linux)]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) source_range: Option<SourceRange>,
    /// The broker's process on this machine: its memory and CPU are read from /proc
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// The broker's Prometheus endpoint: its memory and CPU are read from process_resident_memory_bytes and
    /// process_cpu_seconds_total
    #[arg(long, value_name = "URL", conflicts_with = "server_pid")]
    pub(crate) server_metrics: Option<ServerMetrics>,
    #[command(flatten)]
    pub(crate) spread: SpreadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) objectives: ObjectiveArgs,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
}

impl CommonArgs {
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            usize::from,
        )
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Protocol {
    #[value(name = "3", alias = "4")]
    V3,
    #[value(name = "5")]
    V5,
}

impl Protocol {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::V3 => Version::V3,
            Self::V5 => Version::V5,
        }
    }
}
