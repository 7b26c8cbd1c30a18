//! The eight cases of the Open MQTT Benchmark Suite.

use sotto_model::QoS;

use crate::args::{HoldArgs, PubsubArgs};
use crate::common_args::CommonArgs;

/// As the suite has it, at full size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SuiteCase {
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Connections and how many begin per second.
    Connect { clients: u32, per_second: f64 },
    /// Every subscriber on every topic.
    FanOut { publishers: u32, subscribers: u32, messages_per_second: f64 },
    /// As many publishers as topics and subscribers, one message a second each.
    PointToPoint { pairs: u32 },
    /// One message a second from each publisher, to a group of subscribers.
    Shared { publishers: u32, subscribers: u32 },
}

pub(crate) const CASES: [SuiteCase; 8] = [
    SuiteCase { name: "conn-tcp-10K-100", kind: Kind::Connect { clients: 10_000, per_second: 100.0 } },
    SuiteCase { name: "conn-tcp-1M-5K", kind: Kind::Connect { clients: 1_000_000, per_second: 5000.0 } },
    SuiteCase {
        name: "fanout-1-1K-1-1K",
        kind: Kind::FanOut { publishers: 1, subscribers: 1000, messages_per_second: 1.0 },
    },
    SuiteCase {
        name: "fanout-5-1000-5-250K",
        kind: Kind::FanOut { publishers: 5, subscribers: 1000, messages_per_second: 250.0 },
    },
    SuiteCase { name: "p2p-1K-1K-1K-1K", kind: Kind::PointToPoint { pairs: 1000 } },
    SuiteCase { name: "p2p-50K-50K-50K-50K", kind: Kind::PointToPoint { pairs: 50_000 } },
    SuiteCase { name: "sharedsub-1K-5-1K-1K", kind: Kind::Shared { publishers: 1000, subscribers: 5 } },
    SuiteCase {
        name: "sharedsub-50K-500-50K-50K",
        kind: Kind::Shared { publishers: 50_000, subscribers: 500 },
    },
];

/// What the suite's messages are: QoS 1, 16 bytes.
const SIZE_BYTES: u32 = 16;

/// A case as it is run.
#[derive(Clone, Debug)]
pub(crate) enum CaseRun {
    Hold(Box<HoldArgs>),
    Pubsub(Box<PubsubArgs>),
}

impl SuiteCase {
    pub(crate) fn find(name: &str) -> Option<Self> {
        CASES.into_iter().find(|case| case.name == name)
    }

    /// Scaled, the clients are fewer, and with them the messages of those that send one a second each; rates
    /// of connecting and of publishers that keep their number stay.
    pub(crate) fn run(self, scale: f64, seconds: u64, common: &CommonArgs) -> CaseRun {
        let scaled = |full: u32| scaled(full, scale);
        match self.kind {
            Kind::Connect { clients, per_second } => CaseRun::Hold(Box::new(HoldArgs {
                n: scaled(clients),
                hold: seconds,
                subscribe: None,
                qos: QoS::AtLeastOnce,
                common: CommonArgs { connect_rate: per_second, ..common.clone() },
            })),
            Kind::FanOut { publishers, subscribers, messages_per_second } => {
                let mut run = self.pubsub(publishers, publishers, scaled(subscribers), seconds, common);
                run.all_topics = true;
                run.rate = messages_per_second;
                CaseRun::Pubsub(Box::new(run))
            }
            Kind::PointToPoint { pairs } => CaseRun::Pubsub(Box::new(self.pubsub(
                scaled(pairs),
                scaled(pairs),
                scaled(pairs),
                seconds,
                common,
            ))),
            Kind::Shared { publishers, subscribers } => {
                // A share of one is none.
                let subscribers = scaled(subscribers).max(2);
                let mut run =
                    self.pubsub(scaled(publishers), scaled(publishers), subscribers, seconds, common);
                run.all_topics = true;
                run.share = Some("benchmark".into());
                CaseRun::Pubsub(Box::new(run))
            }
        }
    }

    fn pubsub(self, pubs: u32, topics: u32, subs: u32, seconds: u64, common: &CommonArgs) -> PubsubArgs {
        // A late message of one case must not count for the next.
        let topic = format!("suite/%r/{}/%i", self.name);
        PubsubArgs {
            pubs,
            subs,
            topics,
            rate: f64::from(pubs),
            window: 16,
            qos: QoS::AtLeastOnce,
            size: SIZE_BYTES,
            seconds,
            drain: 10,
            topic: topic.parse().expect("the names hold no templates"),
            share: None,
            all_topics: false,
            message_expiry: None,
            verify_database: None,
            retain: false,
            common: common.clone(),
        }
    }
}

impl CaseRun {
    pub(crate) fn clients(&self) -> u64 {
        match self {
            Self::Hold(args) => args.n.into(),
            Self::Pubsub(args) => u64::from(args.pubs) + u64::from(args.subs),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not larger than it was")]
fn scaled(full: u32, scale: f64) -> u32 {
    ((f64::from(full) * scale).round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn common() -> CommonArgs {
        Line::try_parse_from(["x"]).expect("defaults").common
    }

    #[test]
    fn at_full_size_the_cases_are_those_of_their_names() {
        let clients = |name: &str| SuiteCase::find(name).expect("a case").run(1.0, 1800, &common()).clients();
        assert_eq!(clients("conn-tcp-1M-5K"), 1_000_000);
        assert_eq!(clients("fanout-5-1000-5-250K"), 1005);
        assert_eq!(clients("p2p-50K-50K-50K-50K"), 100_000);
        assert_eq!(clients("sharedsub-50K-500-50K-50K"), 50_500);
        assert!(SuiteCase::find("p2p").is_none());
    }

    #[test]
    fn scaled_down_every_publisher_still_sends_one_message_a_second() {
        let case = SuiteCase::find("sharedsub-1K-5-1K-1K").expect("a case");
        let CaseRun::Pubsub(run) = case.run(0.01, 5, &common()) else { panic!("messages") };
        assert_eq!((run.pubs, run.topics, run.subs), (10, 10, 2));
        assert!((run.rate - 10.0).abs() < 1e-9);
        assert_eq!(run.share.as_deref(), Some("benchmark"));
        let case = SuiteCase::find("conn-tcp-10K-100").expect("a case");
        let CaseRun::Hold(run) = case.run(0.01, 5, &common()) else { panic!("connections") };
        assert_eq!(run.n, 100);
        assert!((run.common.connect_rate - 100.0).abs() < 1e-9);
    }
}
