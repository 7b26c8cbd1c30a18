//! A figure of one run, and what it is a figure of.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measure {
    pub(crate) metric: Metric,
    pub(crate) value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    BytesPerConnection,
    CpuPerConnectUs,
    AllConnectedSeconds,
    CpuPerDeliveryUs,
    /// PostgreSQL's own, with what it did while clients connected.
    DatabaseCpuPerDeliveryUs,
    /// Broker and PostgreSQL.
    TogetherCpuPerDeliveryUs,
    DeliveryP50Ms,
    DeliveryP99Ms,
    DeliveriesPerSecond,
}

impl Metric {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::BytesPerConnection => "bytes per connection",
            Self::CpuPerConnectUs => "CPU µs per connect",
            Self::AllConnectedSeconds => "s until all are in",
            Self::CpuPerDeliveryUs => "CPU µs per delivery",
            Self::DatabaseCpuPerDeliveryUs => "PostgreSQL's",
            Self::TogetherCpuPerDeliveryUs => "together",
            Self::DeliveryP50Ms => "p50 ms",
            Self::DeliveryP99Ms => "p99 ms",
            Self::DeliveriesPerSecond => "deliveries/s",
        }
    }

    pub(crate) fn is_better_high(self) -> bool {
        self == Self::DeliveriesPerSecond
    }

    pub(crate) fn shown(self, value: f64) -> String {
        match self {
            Self::BytesPerConnection | Self::CpuPerConnectUs | Self::DeliveriesPerSecond => whole(value),
            Self::AllConnectedSeconds | Self::DeliveryP50Ms | Self::DeliveryP99Ms => format!("{value:.2}"),
            Self::CpuPerDeliveryUs | Self::DatabaseCpuPerDeliveryUs | Self::TogetherCpuPerDeliveryUs => {
                format!("{value:.1}")
            }
        }
    }
}

/// Rounded, with its thousands told apart.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("−", digits));
    let mut text = sign.to_owned();
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

    #[test]
    fn figures_have_the_digits_that_mean_something() {
        assert_eq!(Metric::BytesPerConnection.shown(19_118.6), "19,119");
        assert_eq!(Metric::BytesPerConnection.shown(-1_234.0), "−1,234");
        assert_eq!(Metric::CpuPerDeliveryUs.shown(5.849), "5.8");
        assert_eq!(Metric::DeliveryP99Ms.shown(0.5), "0.50");
    }
}
