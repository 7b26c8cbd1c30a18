//! The `Retry-After` header: seconds, or a date. [RFC 9110, 10.2.3]

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use sotto_model::UnixMillis;

use crate::limits::RETRY_AFTER_MAX;

/// How long to wait, at most `RETRY_AFTER_MAX`; `None` where the header says nothing that can be read.
pub(crate) fn asked(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    parse(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

fn parse(value: &str, now: UnixMillis) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean longer than any bound.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        let since_epoch = at.duration_since(UNIX_EPOCH).ok()?;
        since_epoch.saturating_sub(Duration::from_millis(now.0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: UnixMillis = UnixMillis(784_111_777_000);

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse("120", NOW), Some(Duration::from_mins(2)));
        assert_eq!(parse(" 0 ", NOW), Some(Duration::ZERO));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", NOW), Some(Duration::from_mins(1)));
        assert_eq!(parse("Sunday, 06-Nov-94 08:50:37 GMT", NOW), Some(Duration::from_mins(1)));
        assert_eq!(parse("Sun Nov  6 08:50:37 1994", NOW), Some(Duration::from_mins(1)));
    }

    #[test]
    fn no_header_is_no_wait() {
        let mut headers = HeaderMap::new();
        assert_eq!(asked(&headers, NOW), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(asked(&headers, NOW), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_date_that_has_passed_means_at_once() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT", NOW), Some(Duration::ZERO));
    }

    #[test]
    fn no_service_can_put_a_wakeup_off_for_longer_than_the_bound() {
        for long in ["86400", "99999999999999999999999999", "Mon, 07 Nov 2044 08:49:37 GMT"] {
            assert_eq!(parse(long, NOW), Some(RETRY_AFTER_MAX), "{long}");
        }
    }

    #[test]
    fn nonsense_is_not_a_wait() {
        for bad in ["", "-1", "soon", "1.5", "Sun, 99 Nov 1994", "١٢"] {
            assert_eq!(parse(bad, NOW), None, "{bad}");
        }
    }
}
