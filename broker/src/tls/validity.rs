//! Until when a certificate is valid: the one field of X.509 that operators are told.
//!
//! ```text
//! SEQUENCE { SEQUENCE { [0] version?, INTEGER serial, SEQUENCE algorithm, SEQUENCE issuer,
//!                       SEQUENCE { not before, NOT AFTER }, … }, … }            RFC 5280, 4.1
//! ```

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SECONDS_PER_DAY: u64 = 86_400;

/// Seconds since the epoch; `None` of what is no certificate, or one from before 1970.
pub(crate) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, _, rest) = element(fields)?;
    if tag == EXPLICIT_VERSION {
        fields = rest;
    }
    for _ in ["serial", "algorithm", "issuer"] {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, validity) = element(validity)?;
    let (tag, time, _) = element(validity)?;
    unix_seconds(tag, time)
}

/// Tag, content and what follows. DER: a length is definite, and a tag of a certificate's one byte.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn unix_seconds(tag: u8, time: &[u8]) -> Option<u64> {
    let digits = time.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number: u64, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
        })
    };
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            // RFC 5280, 4.1.2.5.1
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let [month, day, hour, minute, second] = rest.as_chunks::<2>().0 else { return None };
    let [month, day] = [number(month)?, number(day)?];
    if !rest.len().is_multiple_of(2) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_epoch(year, month, day)?;
    Some(days * SECONDS_PER_DAY + number(hour)? * 3600 + number(minute)? * 60 + number(second)?)
}

/// Of the proleptic Gregorian calendar, by years that begin in March.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    const DAYS_BEFORE_EPOCH: u64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    (365 * year + leap_days + day_of_year).checked_sub(DAYS_BEFORE_EPOCH)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&key).expect("certificate").der().to_vec()
    }

    #[test]
    fn it_is_read_from_the_certificate_in_both_forms() {
        for (year, month, day, seconds) in [
            (2026, 11, 22, 1_795_305_600),
            (2028, 2, 29, 1_835_395_200),
            (2049, 12, 31, 2_524_521_600),
            // From 2050 on a year has four digits.
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            assert_eq!(not_after(&certificate(year, month, day)), Some(seconds), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn what_is_cut_short_or_none_has_no_end() {
        let certificate = certificate(2030, 1, 1);
        for len in 0..100 {
            assert_eq!(not_after(&certificate[..len]), None);
        }
        assert_eq!(not_after(b"-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(unix_seconds(UTC_TIME, b"261322000000Z"), None);
        assert_eq!(unix_seconds(UTC_TIME, b"26112200000Z"), None);
        assert_eq!(unix_seconds(UTC_TIME, b"2611220000 0Z"), None);
        assert_eq!(unix_seconds(GENERALIZED_TIME, b"19691231235959Z"), None);
    }
}
