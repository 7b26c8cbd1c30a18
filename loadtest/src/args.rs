//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use sotto_model::QoS;
use sotto_mqtt::packet::Version;

use crate::limits::{CLIENTS_MAX, RUN_SECONDS_MAX, SIZE_BYTES_MAX};
use crate::payload::HEADER_BYTES;
use crate::scenario_args::{ChurnArgs, InboxArgs, SoakArgs, StormArgs, SuiteArgs};
use crate::server_metrics::ServerMetrics;
use crate::source_address::SourceRange;
use crate::spread_args::{AgentArgs, SpreadArgs};
use crate::stored::DatabaseUrl;
use crate::template::Template;
use crate::transport_args::TransportArgs;

#[derive(Debug, Parser)]
#[command(
    name = "sotto-loadtest",
    version,
    about,
    after_help = "Exit code: 0 done, 1 failed (what was measured is still printed), 2 an objective was missed, \
                  64 bad arguments."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Connect sessions at a steady rate, hold them, and say what each cost
    Hold(HoldArgs),
    /// Publish numbered messages and count what arrives, how late, how often, in which order
    Pubsub(PubsubArgs),
    /// Cut all connections at once, again and again, and measure how long it takes until all are back
    Storm(StormArgs),
    /// Connections come and go: subscribe, publish one message, receive it, unsubscribe, disconnect
    Churn(ChurnArgs),
    /// Subscribers go offline, messages are sent to them, they come back: how long until each has its own?
    Inbox(InboxArgs),
    /// The eight cases of the Open MQTT Benchmark Suite, one after the other
    Suite(SuiteArgs),
    /// A steady load for hours: does the broker still answer as in the first?
    Soak(SoakArgs),
    /// Wait for work from load testers on other machines (their --agents)
    Agent(AgentArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HoldArgs {
    /// Sessions to hold
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(crate) n: u32,
    /// How long to hold them after the last has connected
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=RUN_SECONDS_MAX))]
    pub(crate) hold: u64,
    /// Subscribe each to one topic filter: %i = client number, %r = run id
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) subscribe: Option<Template>,
    /// QoS of that subscription
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Publisher i publishes to topic i mod T, subscriber j subscribes to topic j mod T: equal numbers are one to
/// one, one topic is all to all.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PubsubArgs {
    /// Publishers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(crate) pubs: u32,
    /// Subscribers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=CLIENTS_MAX))]
    pub(crate) subs: u32,
    /// Topics: publisher i publishes to topic i mod T, subscriber j subscribes to topic j mod T
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(crate) topics: u32,
    /// Messages per second of all publishers together, whatever the broker can do (open loop); 0 = as fast
    /// as the window allows (closed loop)
    #[arg(long, default_value_t = 100.0, value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// Messages a publisher may have outstanding in a closed loop: until acknowledged, at QoS 0 until delivered
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,
    /// QoS of publishers and subscribers
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    /// Payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..=SIZE_BYTES_MAX))]
    pub(crate) size: u32,
    /// How long to publish
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Longest wait for messages still under way at the end, before what is missing counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=RUN_SECONDS_MAX))]
    pub(crate) drain: u64,
    /// Topic: %i = topic number, %r = run id, %c and %u = client identifier and user name of publisher i
    #[arg(long, value_name = "TEMPLATE", default_value = "loadtest/%r/%i")]
    pub(crate) topic: Template,
    /// Subscribers share one subscription under this name: each message goes to one of a topic's
    #[arg(long, value_name = "NAME", value_parser = parse_share_name)]
    pub(crate) share: Option<String>,
    /// Each subscriber subscribes to all topics, with + for what differs among them
    #[arg(long)]
    pub(crate) all_topics: bool,
    /// Message Expiry Interval (MQTT 5)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) message_expiry: Option<u32>,
    /// Look up in Sotto's database every message that it acknowledges: postgres://… or sqlite:PATH (MQTT 5,
    /// QoS 1 or 2)
    #[arg(long, value_name = "URL")]
    pub(crate) verify_database: Option<DatabaseUrl>,
    /// Publish with RETAIN
    #[arg(long)]
    pub(crate) retain: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

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

/// A run that misses one of these ends with exit code 2.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Objectives")]
pub(crate) struct ObjectiveArgs {
    /// p99 of connecting (hold) or of delivery (pubsub) at most this: `20ms`, `1.5s`, `250us`; without a unit
    /// milliseconds
    #[arg(long, value_name = "DURATION", value_parser = parse_milliseconds)]
    pub(crate) max_p99: Option<f64>,
    /// p99.9 of the same at most this
    #[arg(long, value_name = "DURATION", value_parser = parse_milliseconds)]
    pub(crate) max_p999: Option<f64>,
    /// At most so many sessions failed (hold) or deliveries lost (pubsub)
    #[arg(long, value_name = "N")]
    pub(crate) max_loss: Option<u64>,
    /// At most so many deliveries that had come before
    #[arg(long, value_name = "N")]
    pub(crate) max_duplicates: Option<u64>,
    /// At least so many connections (hold) or deliveries (pubsub) per second
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) min_rate: Option<f64>,
    /// Memory that each connection may take of the broker: bytes, or with a unit: `4.5kB`, `4KiB`
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) max_memory_per_connection: Option<f64>,
}

/// Where the report goes besides the table on standard output.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Write the report as JSON too; - = standard output (the table goes to standard error)
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
    /// Write the timeline as CSV, a row a second
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write the report as one page with plots, for a browser
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Serve the figures at http://ADDR/metrics while the run lasts
    #[arg(long, value_name = "ADDR")]
    pub(crate) prometheus: Option<SocketAddr>,
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

impl CommonArgs {
    pub(crate) fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            usize::from,
        )
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
fn parse_share_name(raw: &str) -> Result<String, &'static str> {
    let valid = !raw.is_empty() && !raw.contains(['/', '+', '#']);
    if valid {
        Ok(raw.to_owned())
    } else {
        Err("a share's name is not empty and holds neither / nor + nor #")
    }
}

pub(crate) fn parse_qos(raw: &str) -> Result<QoS, String> {
    raw.parse::<u8>().ok().and_then(QoS::from_bits).ok_or_else(|| "QoS is 0, 1 or 2".into())
}

pub(crate) fn parse_rate(raw: &str) -> Result<f64, String> {
    match raw.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a rate is 0, or 0.001 to 10000000 per second".into()),
    }
}

fn parse_milliseconds(raw: &str) -> Result<f64, String> {
    let units = [("ms", 1.0), ("us", 1e-3), ("µs", 1e-3), ("s", 1e3), ("", 1.0)];
    parse_with_unit(raw, &units).ok_or_else(|| "expected a duration such as 20ms, 1.5s or 250us".into())
}

fn parse_bytes(raw: &str) -> Result<f64, String> {
    let units =
        [("KiB", 1024.0), ("MiB", 1_048_576.0), ("kB", 1e3), ("KB", 1e3), ("MB", 1e6), ("B", 1.0), ("", 1.0)];
    parse_with_unit(raw, &units).ok_or_else(|| "expected bytes such as 4500, 4.5kB or 4KiB".into())
}

/// The first unit that fits counts.
fn parse_with_unit(raw: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((raw.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.trim_end().parse().ok()?;
    (number >= 0.0 && number.is_finite()).then_some(number * factor)
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
    fn a_server_name_means_nothing_without_tls() {
        assert!(Args::try_parse_from(["x", "hold", "--server-name", "broker"]).is_ok());
        assert!(Args::try_parse_from(["x", "hold", "--server-name", "broker", "--plain"]).is_err());
    }

    #[test]
    fn a_payload_has_room_for_its_header() {
        assert!(Args::try_parse_from(["x", "pubsub", "--plain", "--size", "15"]).is_err());
        assert!(Args::try_parse_from(["x", "pubsub", "--plain", "--size", "16"]).is_ok());
    }

    #[test]
    fn a_rate_is_a_finite_number() {
        for bad in ["-1", "nan", "inf", "1e9", "0.0001"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_rate("0").is_ok());
        assert!(parse_rate("0.5").is_ok());
    }

    #[test]
    fn a_duration_has_a_unit_or_is_in_milliseconds() {
        for (raw, milliseconds) in
            [("20ms", 20.0), ("1.5s", 1500.0), ("250us", 0.25), ("250 µs", 0.25), ("7", 7.0)]
        {
            let parsed = parse_milliseconds(raw).expect("a duration");
            assert!((parsed - milliseconds).abs() < 1e-9, "{raw}: {parsed}");
        }
        for bad in ["", "ms", "-1ms", "infs", "20 minutes", "nan"] {
            assert!(parse_milliseconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_have_a_unit_or_are_bytes() {
        for (raw, bytes) in [("4500", 4500.0), ("4.5kB", 4500.0), ("4KiB", 4096.0), ("1MiB", 1_048_576.0)] {
            let parsed = parse_bytes(raw).expect("a size");
            assert!((parsed - bytes).abs() < 1e-9, "{raw}: {parsed}");
        }
        assert!(parse_bytes("4 bytes").is_err());
    }
}
