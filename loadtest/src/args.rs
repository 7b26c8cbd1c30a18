//! The command line.

use clap::{Parser, Subcommand};
use sotto_model::QoS;

use crate::arg_values::{parse_qos, parse_rate};
use crate::common_args::CommonArgs;
use crate::limits::{CLIENTS_MAX, RUN_SECONDS_MAX, SIZE_BYTES_MAX};
use crate::payload::HEADER_BYTES;
use crate::scenario_args::{ChurnArgs, InboxArgs, SoakArgs, StormArgs, SuiteArgs};
use crate::spread_args::AgentArgs;
use crate::stored::DatabaseUrl;
use crate::template::Template;

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

impl Scenario {
    /// To the broker: one for most, and none where there is nothing to do.
    pub(crate) fn ways(&self) -> Vec<CommonArgs> {
        let common = match self {
            Self::Suite(args) => return args.ways(),
            Self::Agent(_) => return Vec::new(),
            Self::Hold(args) => &args.common,
            Self::Pubsub(args) => &args.common,
            Self::Storm(args) => &args.common,
            Self::Churn(args) => &args.common,
            Self::Inbox(args) => &args.common,
            Self::Soak(args) => &args.common,
        };
        vec![common.clone()]
    }
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

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
fn parse_share_name(raw: &str) -> Result<String, &'static str> {
    let valid = !raw.is_empty() && !raw.contains(['/', '+', '#']);
    if valid {
        Ok(raw.to_owned())
    } else {
        Err("a share's name is not empty and holds neither / nor + nor #")
    }
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
}
