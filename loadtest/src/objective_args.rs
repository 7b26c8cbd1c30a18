//! The part of the command line that says what a run is to achieve.

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
    use super::*;

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
