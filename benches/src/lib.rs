//! Benchmarks of Sotto; each names the limit that it is held against.

use sotto_model::Urgency;
use sotto_storage::message_log::{Append, RetainChange};

/// The same message once more: nothing is retained, remembered or named, and it wakes.
pub fn again(message: &Append) -> Append {
    Append {
        sealed: message.sealed.clone(),
        qos: message.qos,
        retain: RetainChange::Keep,
        expires_at: None,
        wakes: Some(Urgency::High),
        exactly_once: None,
        publication: None,
        will: None,
    }
}
