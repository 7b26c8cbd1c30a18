//! The Topic Name of a PUBLISH or a will.

use super::decode_error::DecodeError;
use super::primitive::contains_any;
use crate::reason::ReasonCode;

/// Refuses wildcards; length and depth are the session's to judge.
pub(super) fn check_topic_name(topic: &str) -> Result<(), DecodeError> {
    if contains_any(topic.as_bytes(), [b'+', b'#']) {
        return Err(DecodeError::new(
            ReasonCode::TopicNameInvalid,
            "a Topic Name holds a wildcard [MQTT-3.3.2-2]",
        ));
    }
    Ok(())
}
