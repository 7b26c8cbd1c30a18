//! What the load tester wrote, as figures.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::measure::{Measure, Metric};
use crate::scenario::{Pace, Shape};

/// The figures of a run, and what has to be said about them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) measures: Vec<Measure>,
    pub(crate) note: Option<String>,
    /// TLS version and suite.
    pub(crate) transport: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadReportError {
    #[error("load tester's report cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("{connected} of {wanted} connected")]
    NotConnected { connected: u64, wanted: u64 },
    #[error("load tester did not see the broker's process")]
    NoServer,
    #[error("nothing was delivered")]
    NothingDelivered,
}

#[derive(Deserialize)]
struct LoadReport {
    target: Target,
    connecting: Connecting,
}

#[derive(Deserialize)]
struct Target {
    transport: String,
}

#[derive(Deserialize)]
struct Connecting {
    wanted: u64,
    connected: u64,
    seconds: f64,
    server: Option<ServerConnect>,
}

#[derive(Deserialize)]
struct ServerConnect {
    bytes_per_connection: f64,
    cpu_per_connect_us: f64,
}

#[derive(Deserialize)]
struct Messages {
    expected: u64,
    delivered: u64,
    lost: u64,
    delivered_per_second: f64,
    delivery: Latency,
    server: Option<ServerTraffic>,
}

#[derive(Deserialize)]
struct Latency {
    p50_us: f64,
    p99_us: f64,
}

#[derive(Deserialize)]
struct ServerTraffic {
    cpu_per_delivery_us: Option<f64>,
}

impl Figures {
    /// `database_cpu` is what PostgreSQL used meanwhile, where the broker has one.
    pub(crate) fn of(
        shape: Shape,
        report: &Value,
        database_cpu: Option<Duration>,
    ) -> Result<Self, LoadReportError> {
        let LoadReport { target: Target { transport }, connecting } = LoadReport::deserialize(report)?;
        let Connecting { wanted, connected, .. } = connecting;
        if connected < wanted {
            return Err(LoadReportError::NotConnected { connected, wanted });
        }
        let (measures, note) = match shape {
            Shape::Idle { at_once, .. } => (connecting.measures(at_once)?, None),
            Shape::Messages { pace, .. } => {
                let messages = Messages::deserialize(report)?;
                (messages.measures(pace, database_cpu)?, messages.note())
            }
        };
        Ok(Self { measures, note, transport })
    }
}

impl Connecting {
    fn measures(&self, at_once: bool) -> Result<Vec<Measure>, LoadReportError> {
        let server = self.server.as_ref().ok_or(LoadReportError::NoServer)?;
        let mut measures = vec![
            Measure { metric: Metric::BytesPerConnection, value: server.bytes_per_connection },
            Measure { metric: Metric::CpuPerConnectUs, value: server.cpu_per_connect_us },
        ];
        if at_once {
            measures.push(Measure { metric: Metric::AllConnectedSeconds, value: self.seconds });
        }
        Ok(measures)
    }
}

impl Messages {
    fn measures(&self, pace: Pace, database_cpu: Option<Duration>) -> Result<Vec<Measure>, LoadReportError> {
        if self.delivered == 0 {
            return Err(LoadReportError::NothingDelivered);
        }
        let server = self.server.as_ref().ok_or(LoadReportError::NoServer)?;
        let broker = server.cpu_per_delivery_us.ok_or(LoadReportError::NothingDelivered)?;
        let mut measures = vec![Measure { metric: Metric::CpuPerDeliveryUs, value: broker }];
        if let Some(cpu) = database_cpu {
            let database = cpu.as_secs_f64() * 1e6 / as_f64(self.delivered);
            measures.push(Measure { metric: Metric::DatabaseCpuPerDeliveryUs, value: database });
            measures.push(Measure { metric: Metric::TogetherCpuPerDeliveryUs, value: broker + database });
        }
        match pace {
            Pace::Rate(_) => measures.extend([
                Measure { metric: Metric::DeliveryP50Ms, value: self.delivery.p50_us / 1e3 },
                Measure { metric: Metric::DeliveryP99Ms, value: self.delivery.p99_us / 1e3 },
            ]),
            Pace::Window(_) => measures
                .push(Measure { metric: Metric::DeliveriesPerSecond, value: self.delivered_per_second }),
        }
        Ok(measures)
    }

    fn note(&self) -> Option<String> {
        (self.lost > 0).then(|| format!("{} of {} deliveries lost", self.lost, self.expected))
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const IDLE: Shape = Shape::Idle { connections: 10, plain: false, at_once: false };
    const STORM: Shape = Shape::Idle { connections: 10, plain: false, at_once: true };

    fn messages(pace: Pace) -> Shape {
        Shape::Messages { qos: 1, publishers: 1, subscribers: 1, topics: 1, pace, seconds: 1 }
    }

    fn hold(connected: u64) -> Value {
        json!({
            "scenario": "hold",
            "target": { "transport": "TLSv1_3" },
            "connecting": {
                "wanted": 10, "connected": connected, "seconds": 1.5,
                "server": { "bytes_per_connection": 5000.0, "cpu_per_connect_us": 120.0 },
            },
        })
    }

    fn pubsub(delivered: u64) -> Value {
        json!({
            "scenario": "pubsub",
            "target": { "transport": "TLSv1_3" },
            "connecting": { "wanted": 2, "connected": 2, "seconds": 0.1, "server": null },
            "expected": 1000, "delivered": delivered, "lost": 1000 - delivered, "delivered_per_second": 900.0,
            "delivery": { "count": delivered, "p50_us": 120, "p99_us": 5800 },
            "server": { "cpu_per_message_in_us": 1.0, "cpu_per_delivery_us": 20.0, "cores": 0.5 },
        })
    }

    fn value_of(figures: &Figures, metric: Metric) -> Option<f64> {
        figures.measures.iter().find(|measure| measure.metric == metric).map(|measure| measure.value)
    }

    #[test]
    fn an_idle_connection_costs_bytes_and_a_storm_takes_time() {
        let idle = Figures::of(IDLE, &hold(10), None).expect("figures");
        assert_eq!(value_of(&idle, Metric::BytesPerConnection), Some(5000.0));
        assert_eq!(value_of(&idle, Metric::CpuPerConnectUs), Some(120.0));
        assert_eq!(value_of(&idle, Metric::AllConnectedSeconds), None);
        let storm = Figures::of(STORM, &hold(10), None).expect("figures");
        assert_eq!(value_of(&storm, Metric::AllConnectedSeconds), Some(1.5));
    }

    #[test]
    fn a_broker_that_lets_only_some_in_has_failed() {
        let error = Figures::of(IDLE, &hold(9), None).expect_err("one is missing");
        assert_eq!(error.to_string(), "9 of 10 connected");
    }

    #[test]
    fn a_delivery_costs_the_broker_and_its_database() {
        let figures = Figures::of(messages(Pace::Window(16)), &pubsub(1000), Some(Duration::from_millis(10)));
        let figures = figures.expect("figures");
        assert_eq!(value_of(&figures, Metric::CpuPerDeliveryUs), Some(20.0));
        assert_eq!(value_of(&figures, Metric::DatabaseCpuPerDeliveryUs), Some(10.0));
        assert_eq!(value_of(&figures, Metric::TogetherCpuPerDeliveryUs), Some(30.0));
        assert_eq!(value_of(&figures, Metric::DeliveriesPerSecond), Some(900.0));
        assert_eq!(figures.note, None);
    }

    #[test]
    fn latencies_mean_something_at_a_rate_alone() {
        let figures = Figures::of(messages(Pace::Rate(1000)), &pubsub(1000), None).expect("figures");
        assert_eq!(value_of(&figures, Metric::DeliveryP50Ms), Some(0.12));
        assert_eq!(value_of(&figures, Metric::DeliveryP99Ms), Some(5.8));
        let figures = Figures::of(messages(Pace::Window(1)), &pubsub(1000), None).expect("figures");
        assert_eq!(value_of(&figures, Metric::DeliveryP99Ms), None);
    }

    #[test]
    fn what_is_lost_is_noted_and_nothing_at_all_is_a_failure() {
        let figures = Figures::of(messages(Pace::Window(1)), &pubsub(990), None).expect("figures");
        assert_eq!(figures.note.as_deref(), Some("10 of 1000 deliveries lost"));
        let error = Figures::of(messages(Pace::Window(1)), &pubsub(0), None).expect_err("nothing arrived");
        assert!(matches!(error, LoadReportError::NothingDelivered));
    }

    #[test]
    fn a_report_that_lacks_a_field_is_refused() {
        let mut report = hold(10);
        report["connecting"]["seconds"].take();
        assert!(matches!(Figures::of(IDLE, &report, None), Err(LoadReportError::Malformed(_))));
    }
}
