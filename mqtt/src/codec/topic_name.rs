//! The Topic Name of a PUBLISH or a will.

use super::decode_error::DecodeError;
use super::primitive::contains_any;

/// Refuses wildcards; length and depth are the session's to judge.
///
/// It is malformed: the Reason Code Topic Name invalid is for names that are correctly formed.
pub(super) fn check_topic_name(topic: &str) -> Result<(), DecodeError> {
    if contains_any(topic.as_bytes(), [b'+', b'#']) {
        return Err(DecodeError::malformed("a Topic Name holds a wildcard [MQTT-3.3.2-2]"));
    }
    Ok(())
}
