//! The Topic Filters of a SUBSCRIBE or UNSUBSCRIBE.

use super::decode_error::DecodeError;
use super::primitive::contains_any;
use crate::packet::Version;

/// What comes before the ShareName of a shared subscription.
pub(super) const SHARE: &str = "$share/";

/// Refuses what is no Topic Filter; length and depth are the session's to judge.
///
/// It is malformed: the Reason Code Topic Filter invalid is for filters that are correctly formed.
pub(super) fn check_topic_filter(filter: &str, version: Version) -> Result<(), DecodeError> {
    if filter.is_empty() {
        return Err(DecodeError::malformed("a Topic Filter is empty [MQTT-4.7.3-1]"));
    }
    if contains_any(filter.as_bytes(), [b'+', b'#']) {
        check_wildcards(filter)?;
    }
    // 3.1.1 has no shared subscriptions: there it is a filter as any other.
    if let (Version::V5, Some(shared)) = (version, filter.strip_prefix(SHARE)) {
        check_shared(shared)?;
    }
    Ok(())
}

fn check_wildcards(filter: &str) -> Result<(), DecodeError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            "#" if levels.peek().is_none() => {}
            _ if level.contains('#') => {
                return Err(DecodeError::malformed(
                    "a multi-level wildcard is not the last level [MQTT-4.7.1-1]",
                ));
            }
            _ if level.contains('+') => {
                return Err(DecodeError::malformed(
                    "a single-level wildcard is not a level of its own [MQTT-4.7.1-2]",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `<ShareName>/<filter>`
fn check_shared(shared: &str) -> Result<(), DecodeError> {
    let (name, filter) = shared.split_once('/').unwrap_or((shared, ""));
    if name.is_empty() {
        return Err(DecodeError::malformed("a ShareName is empty [MQTT-4.8.2-1]"));
    }
    if name.contains(['+', '#']) {
        return Err(DecodeError::malformed("a ShareName holds a wildcard [MQTT-4.8.2-2]"));
    }
    if filter.is_empty() {
        return Err(DecodeError::malformed("a ShareName stands without a Topic Filter [MQTT-4.8.2-2]"));
    }
    Ok(())
}
