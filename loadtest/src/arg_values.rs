//! Values that arguments of several scenarios take.

use sotto_model::QoS;

pub(crate) fn parse_qos(raw: &str) -> Result<QoS, String> {
    raw.parse::<u8>().ok().and_then(QoS::from_bits).ok_or_else(|| "QoS is 0, 1 or 2".into())
}

pub(crate) fn parse_rate(raw: &str) -> Result<f64, String> {
    match raw.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a rate is 0, or 0.001 to 10000000 per second".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_finite_number() {
        for bad in ["-1", "nan", "inf", "1e9", "0.0001"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_rate("0").is_ok());
        assert!(parse_rate("0.5").is_ok());
    }
}
