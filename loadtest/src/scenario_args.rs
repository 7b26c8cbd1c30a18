//! The command lines of the scenarios beyond `hold` and `pubsub`.

use std::time::Duration;

use clap::ValueEnum;
use sotto_model::QoS;

use crate::arg_values::{parse_qos, parse_rate};
use crate::client::Parting;
use crate::common_args::{CommonArgs, Protocol};
use crate::limits::{CLIENTS_MAX, RUN_SECONDS_MAX, SIZE_BYTES_MAX, SUITE_KEEP_ALIVE_SECONDS};
use crate::payload::HEADER_BYTES;
use crate::template::Template;

/// Connects all, cuts all connections at once, and measures how long it takes until all are back. Clients
/// try again with growing pauses, also after an outage of the broker.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StormArgs {
    /// Sessions
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(crate) n: u32,
    /// How often all connections are cut; 0 = only wait for what the broker does (see --hold)
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) rounds: u32,
    /// How connections are cut
    #[arg(long, value_enum, default_value = "fin")]
    pub(crate) drop: Drop,
    /// Clients that come back per second; 0 = all at once
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0, value_parser = parse_rate)]
    pub(crate) return_rate: f64,
    /// Time from the cut until the first comes back
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = parse_seconds)]
    pub(crate) away: f64,
    /// Each client's return is put off by a random part of this
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = parse_seconds)]
    pub(crate) jitter: f64,
    /// Pause after a failed attempt; it doubles with each, and half of it is random
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    pub(crate) backoff: f64,
    /// Longest such pause
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = parse_seconds)]
    pub(crate) backoff_max: f64,
    /// Time between the last client's return and the next cut
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) pause: f64,
    /// Longest wait for all to be back
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = parse_seconds)]
    pub(crate) round_timeout: f64,
    /// How long to hold all after the rounds, coming back from any outage of the broker
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=RUN_SECONDS_MAX))]
    pub(crate) hold: u64,
    /// Pairs of publisher and subscriber that are not cut: do their messages still arrive, and when?
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) steady_pairs: u32,
    /// Messages per second of these pairs together
    #[arg(long, value_name = "PER_SECOND", default_value_t = 100.0, value_parser = parse_rate)]
    pub(crate) steady_rate: f64,
    /// Subscribe each to one topic filter: %i = client number, %r = run id, %c and %u = its names
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) subscribe: Option<Template>,
    /// QoS of subscriptions and messages
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Connections come and go: each subscribes, publishes one message, receives it, unsubscribes, disconnects.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChurnArgs {
    /// Connections that come per second, whatever the broker can do
    #[arg(long, value_name = "PER_SECOND", default_value_t = 100.0, value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// How long they come
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Topic of each: %i = client number, %r = run id, %c and %u = its names
    #[arg(long, value_name = "TEMPLATE", default_value = "churn/%r/%i")]
    pub(crate) topic: Template,
    /// QoS of subscription and message: 0 or 1
    #[arg(long, default_value = "1", value_parser = parse_qos_0_or_1)]
    pub(crate) qos: QoS,
    /// Payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..=SIZE_BYTES_MAX))]
    pub(crate) size: u32,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Subscribers go offline, messages are sent to them, they come back: how long until each has its own?
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InboxArgs {
    /// Subscribers, with a topic and a publisher each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(crate) subs: u32,
    /// Messages sent to each while it is away
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) messages: u32,
    /// Messages per second of all publishers together; 0 = as fast as the broker acknowledges them
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0, value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// Messages a publisher may have outstanding
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,
    /// Subscribers that come back per second; 0 = all at once
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0, value_parser = parse_rate)]
    pub(crate) return_rate: f64,
    /// QoS: 1 or 2
    #[arg(long, default_value = "1", value_parser = parse_qos_1_or_2)]
    pub(crate) qos: QoS,
    /// Payload
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..=SIZE_BYTES_MAX))]
    pub(crate) size: u32,
    /// Longest wait without any message, before what is missing counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) drain: u64,
    /// Topic of each subscriber: %i = its number, %r = run id
    #[arg(long, value_name = "TEMPLATE", default_value = "inbox/%r/%i")]
    pub(crate) topic: Template,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// The eight cases of the Open MQTT Benchmark Suite: MQTT 3.1.1, Keep Alive 300 s, QoS 1, 16 bytes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SuiteArgs {
    /// Cases to run, by name, separated by commas [default: all]
    #[arg(long, value_name = "CASES", value_delimiter = ',')]
    pub(crate) case: Vec<String>,
    /// Share of the full number of clients
    #[arg(long, default_value_t = 0.01, value_parser = parse_scale)]
    pub(crate) scale: f64,
    /// How long to hold or publish in each case (the suite: 1800)
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Run every case over TLS to this address as well
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) tls_addr: Option<String>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Pairs of publisher and subscriber among idle sessions, for hours.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// Pairs of publisher and subscriber
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) pairs: u32,
    /// Messages per second of all publishers together, whatever the broker can do
    #[arg(long, value_name = "PER_SECOND", default_value_t = 100.0, value_parser = parse_positive_rate)]
    pub(crate) rate: f64,
    /// Sessions that only stay
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=CLIENTS_MAX))]
    pub(crate) idle: u32,
    /// How long to publish
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Length of the intervals that are told of as they end
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=RUN_SECONDS_MAX))]
    pub(crate) interval: u64,
    /// QoS of publishers and subscribers
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: QoS,
    /// Payload
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(HEADER_BYTES as i64..=SIZE_BYTES_MAX))]
    pub(crate) size: u32,
    /// Objective: the broker's memory grows by at most this, after the first tenth of the time
    #[arg(long, value_name = "MIB_PER_HOUR", allow_negative_numbers = true)]
    pub(crate) max_memory_growth: Option<f64>,
    /// Objective: p99 of delivery grows by at most this
    #[arg(long, value_name = "MS_PER_HOUR", allow_negative_numbers = true)]
    pub(crate) max_latency_growth: Option<f64>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl SuiteArgs {
    /// At least one: without TLS or with it, as the address is; and with it.
    pub(crate) fn ways(&self) -> Vec<CommonArgs> {
        let first = CommonArgs {
            protocol: Protocol::V3,
            keep_alive: SUITE_KEEP_ALIVE_SECONDS,
            clean: true,
            ..self.common.clone()
        };
        let over_tls = self.tls_addr.as_ref().map(|address| {
            let mut over_tls = first.clone();
            over_tls.transport.addr = vec![address.clone()];
            over_tls.transport.plain = false;
            over_tls
        });
        std::iter::once(first).chain(over_tls).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drop {
    /// FIN without DISCONNECT: the process was killed
    Fin,
    /// RST: the network has lost its state
    Rst,
    /// DISCONNECT: orderly
    Disconnect,
}

impl Drop {
    pub(crate) fn parting(self) -> Parting {
        match self {
            Self::Fin => Parting::Fin,
            Self::Rst => Parting::Reset,
            Self::Disconnect => Parting::Disconnect,
        }
    }
}

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn parse_scale(raw: &str) -> Result<f64, &'static str> {
    match raw.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1.0 => Ok(scale),
        _ => Err("a scale is more than 0 and at most 1"),
    }
}

fn parse_positive_rate(raw: &str) -> Result<f64, String> {
    parse_rate(raw).and_then(|rate| if rate > 0.0 { Ok(rate) } else { Err("a rate above 0".into()) })
}

fn parse_seconds(raw: &str) -> Result<f64, &'static str> {
    match raw.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err("a time is 0 to 1000000 seconds"),
    }
}

fn parse_qos_0_or_1(raw: &str) -> Result<QoS, String> {
    parse_qos(raw).ok().filter(|qos| *qos != QoS::ExactlyOnce).ok_or_else(|| "QoS is 0 or 1 here".into())
}

fn parse_qos_1_or_2(raw: &str) -> Result<QoS, String> {
    let kept = parse_qos(raw).ok().filter(|qos| *qos != QoS::AtMostOnce);
    kept.ok_or_else(|| "QoS is 1 or 2 here: nothing of QoS 0 needs to be kept".into())
}
