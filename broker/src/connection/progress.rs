//! What is stored of how far a session has come.

use sotto_model::{Cursor, Offset};
use sotto_mqtt::session::Session;
use sotto_storage::session_store::{Inflight, SessionProgress};

/// How far the session has come, with `cursor` at or after what it was sent.
pub(crate) fn progress(session: &Session, cursor: Offset) -> SessionProgress {
    SessionProgress {
        cursor: Cursor(cursor),
        inflight: session
            .inflight()
            .filter_map(|message| {
                Some(Inflight {
                    packet_id: message.packet_id,
                    offset: message.offset?,
                    qos: message.qos,
                    retain: message.retain,
                    released: message.released,
                })
            })
            .collect(),
        exactly_once_received: session.unreleased().to_vec(),
    }
}
