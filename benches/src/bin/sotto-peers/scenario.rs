//! What brokers are put through, as arguments of the load tester.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::limits::{
    CONNECT_IN_FLIGHT, CONNECT_RATE, CONNECT_TIMEOUT_SECONDS, FAN_OUT_DELIVERIES, FAN_OUT_RATE_MAX,
    HOLD_SECONDS, LOAD_SLACK, PAYLOAD_BYTES,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// 1,000 idle TLS connections with a subscription each
    IdleSmall,
    /// 5,000 of them
    IdleMiddle,
    /// As many as the limit of open files allows
    IdleFull,
    /// 5,000 idle connections without TLS
    IdlePlain,
    /// 5,000 TLS connections at once
    Storm,
    /// QoS 0, one to one, 1 outstanding
    Qos0Window1,
    /// QoS 0, one to one, 16 outstanding
    Qos0Window16,
    /// QoS 1, one to one, 1 outstanding
    Qos1Window1,
    /// QoS 1, one to one, 16 outstanding
    Qos1Window16,
    /// QoS 1, 16 to 16 one to one, 16 outstanding each
    Qos1Pairs,
    /// QoS 0, one to 500
    FanOutQos0,
    /// QoS 1, one to 500
    FanOutQos1,
    /// QoS 0, one to 10,000
    FanOutWide,
    /// QoS 1, 10 to 10 one to one, 5,000 messages a second
    Steady,
}

/// What the machine and the command line leave of the sizes that scenarios are named after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) connections_max: u32,
    pub(crate) seconds: u64,
}

/// A scenario of a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Idle { connections: u32, plain: bool, at_once: bool },
    Messages { qos: u8, publishers: u32, subscribers: u32, topics: u32, pace: Pace, seconds: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Messages that may be outstanding.
    Window(u16),
    /// Messages a second.
    Rate(u32),
}

impl Scenario {
    pub(crate) fn shape(self, sizes: &Sizes) -> Shape {
        let at_most = |connections: u32| connections.min(sizes.connections_max);
        let idle = |connections| Shape::Idle { connections, plain: false, at_once: false };
        let seconds = sizes.seconds;
        let pairs = |count, qos, pace| {
            let (publishers, subscribers, topics) = (count, count, count);
            Shape::Messages { qos, publishers, subscribers, topics, pace, seconds }
        };
        let pair = |qos, window| pairs(1, qos, Pace::Window(window));
        let fan_out = |qos, subscribers: u32| {
            let rate = (FAN_OUT_DELIVERIES / subscribers).clamp(1, FAN_OUT_RATE_MAX);
            let (publishers, topics, pace) = (1, 1, Pace::Rate(rate));
            Shape::Messages { qos, publishers, subscribers, topics, pace, seconds }
        };
        match self {
            Self::IdleSmall => idle(at_most(1_000)),
            Self::IdleMiddle => idle(at_most(5_000)),
            Self::IdleFull => idle(sizes.connections_max),
            Self::IdlePlain => Shape::Idle { connections: at_most(5_000), plain: true, at_once: false },
            Self::Storm => Shape::Idle { connections: at_most(5_000), plain: false, at_once: true },
            Self::Qos0Window1 => pair(0, 1),
            Self::Qos0Window16 => pair(0, 16),
            Self::Qos1Window1 => pair(1, 1),
            Self::Qos1Window16 => pair(1, 16),
            Self::Qos1Pairs => pairs(16, 1, Pace::Window(16)),
            Self::FanOutQos0 => fan_out(0, at_most(500)),
            Self::FanOutQos1 => fan_out(1, at_most(500)),
            Self::FanOutWide => fan_out(0, at_most(10_000)),
            Self::Steady => pairs(10, 1, Pace::Rate(5_000)),
        }
    }

    /// Whether a broker that stores does something else in it than one that does not.
    pub(crate) fn is_stored(self) -> bool {
        matches!(
            self,
            Self::Qos1Window1 | Self::Qos1Window16 | Self::Qos1Pairs | Self::FanOutQos1 | Self::Steady
        )
    }

    /// The largest ones: they run in the first round alone.
    pub(crate) fn runs_once(self) -> bool {
        matches!(self, Self::IdleFull | Self::FanOutWide)
    }

    /// Whether it needs a broker to which nothing has happened: memory that is free with the allocator is used
    /// again and not seen.
    pub(crate) fn needs_fresh_broker(self) -> bool {
        matches!(
            self,
            Self::IdleSmall
                | Self::IdleMiddle
                | Self::IdleFull
                | Self::IdlePlain
                | Self::Storm
                | Self::FanOutWide
        )
    }
}

impl Shape {
    pub(crate) fn title(self) -> String {
        match self {
            Self::Idle { connections, at_once: true, .. } => {
                format!("{} TLS connections at once", grouped(connections))
            }
            Self::Idle { connections, plain, .. } => {
                let kind = if plain { "plain TCP" } else { "TLS" };
                format!("{} idle {kind} connections", grouped(connections))
            }
            Self::Messages { qos, publishers, subscribers, pace, topics, .. } => {
                let (from, to) = (grouped(publishers), grouped(subscribers));
                let pace = match pace {
                    Pace::Window(window) if topics > 1 => format!("{window} outstanding each"),
                    Pace::Window(window) => format!("{window} outstanding"),
                    Pace::Rate(rate) if topics > 1 => format!("{} messages/s", grouped(rate)),
                    Pace::Rate(rate) => format!("{} deliveries/s", grouped(rate.saturating_mul(subscribers))),
                };
                format!("QoS {qos}, {from} → {to}, {pace}")
            }
        }
    }

    /// Arguments of the load tester, without the broker.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut connecting = (CONNECT_RATE, CONNECT_IN_FLIGHT);
        let scenario = match self {
            Self::Idle { connections, at_once, .. } => {
                if at_once {
                    connecting = (0, connections);
                }
                format!("hold --n {connections} --hold {HOLD_SECONDS} --subscribe idle/%i --qos 1")
            }
            Self::Messages { qos, publishers, subscribers, topics, pace, seconds } => {
                let pace = match pace {
                    Pace::Window(window) => format!("--rate 0 --window {window}"),
                    Pace::Rate(rate) => format!("--rate {rate}"),
                };
                let clients = format!("--pubs {publishers} --subs {subscribers} --topics {topics}");
                let messages = format!("--qos {qos} --size {PAYLOAD_BYTES} --seconds {seconds}");
                format!("pubsub {clients} {messages} {pace}")
            }
        };
        let (connect_rate, in_flight) = connecting;
        let connecting = format!(
            "--connect-rate {connect_rate} --connect-in-flight {in_flight} \
             --connect-timeout {CONNECT_TIMEOUT_SECONDS}"
        );
        format!("{scenario} {connecting}").split(' ').map(str::to_owned).collect()
    }

    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::Idle { plain: true, .. })
    }

    /// When the load tester is given up.
    pub(crate) fn longest(self) -> Duration {
        let (connections, seconds) = match self {
            Self::Idle { connections, .. } => (connections, HOLD_SECONDS),
            Self::Messages { publishers, subscribers, seconds, .. } => (publishers + subscribers, seconds),
        };
        let connecting = u64::from(connections / CONNECT_RATE) + CONNECT_TIMEOUT_SECONDS;
        LOAD_SLACK + Duration::from_secs(connecting + seconds)
    }
}

/// 19000 as 19,000.
pub(crate) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { connections_max: 19_000, seconds: 3 };

    #[test]
    fn sizes_are_cut_to_what_the_machine_holds() {
        let small = Sizes { connections_max: 24, seconds: 1 };
        for scenario in Scenario::value_variants() {
            let connections = match scenario.shape(&small) {
                Shape::Idle { connections, .. } => connections,
                Shape::Messages { subscribers, .. } => subscribers,
            };
            assert!(connections <= 24, "{scenario:?}");
        }
        assert_eq!(Scenario::IdleFull.shape(&SIZES).title(), "19,000 idle TLS connections");
    }

    #[test]
    fn a_fan_out_makes_as_many_deliveries_whatever_its_width() {
        assert_eq!(Scenario::FanOutQos1.shape(&SIZES).title(), "QoS 1, 1 → 500, 20,000 deliveries/s");
        assert_eq!(Scenario::FanOutWide.shape(&SIZES).title(), "QoS 0, 1 → 10,000, 20,000 deliveries/s");
    }

    #[test]
    fn a_storm_begins_every_connection_at_once() {
        let arguments = Scenario::Storm.shape(&SIZES).arguments().join(" ");
        assert!(arguments.contains("--connect-rate 0 --connect-in-flight 5000"), "{arguments}");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
