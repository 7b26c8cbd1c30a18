//! Wills of stored sessions: kept sealed when the session is opened, published when they are due.
//!
//! A will that is due at once is published by its own connection. What a connection cannot publish (it has a delay,
//! the broker died, the session was discarded or expired) is found in the store by one task. Both submit it under
//! the message id that it is kept under, and the commit removes it from the store.

use std::sync::Arc;
use std::time::Duration;

use sotto_auth::Denied;
use sotto_keyring::SealError;
use sotto_model::{Clock, Offset, Principal, UnixMillis};
use sotto_mqtt::handshake::Will;
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::message_log::StoredMessage;
use sotto_storage::wills::{DueWill, KeptWill};
use tokio_util::sync::CancellationToken;

use crate::connection_id::ConnectionId;
use crate::publishing::{Publication, Published, Stall};
use crate::record::Record;
use crate::services::Services;
use crate::session_entry::SessionEntry;

/// Between two looks for wills that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same where the last one left some.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Wills published in one look; CONNECT_PACKET_BYTES_MAX bounds each.
const DUE_PER_LOOK_MAX: usize = 128;
/// A key that is cold again right after it was fetched: not more often than this in a row.
const WARMINGS_MAX: u32 = 3;

/// What became of a will in a look.
enum Tried {
    /// The commit removes it.
    UnderWay,
    /// To be removed: published without a commit, or not to be published.
    Over,
    /// It has to wait, and those after it.
    Later,
}

pub(crate) async fn publish_due_wills(services: Arc<Services>, stop: CancellationToken) {
    let mut wait = LOOK_EVERY;
    while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        wait = if services.publish_due().await { LOOK_AGAIN_AFTER } else { LOOK_EVERY };
    }
}

impl Services {
    /// Seals a will, to be kept with the session. May it be published? It is asked again when it is.
    pub(crate) async fn keep_will(&self, entry: &SessionEntry, will: &Will) -> Result<KeptWill, ReasonCode> {
        let message = Publication::of_will(will.clone(), entry, &*self.clock, None)?.into_message();
        for _ in 0..WARMINGS_MAX {
            let permit = self.policy.permit_publish(&entry.principal, &message.topic);
            match self.seal(permit.map_err(|Denied| ReasonCode::NotAuthorized)?, &message) {
                Ok(sealed) => {
                    return Ok(KeptWill {
                        sealed,
                        client_id: entry.principal.client_id.clone(),
                        qos: will.qos,
                        retain: will.retain,
                        delay_seconds: will.delay_seconds,
                        message_expiry_seconds: will.message_expiry_seconds,
                    });
                }
                Err((_, SealError::KeyCold(request))) => {
                    let warmed = self.keyring.warm(request, self.clock.now()).await;
                    warmed.map_err(|_| ReasonCode::ServerUnavailable)?;
                }
                Err((_, SealError::TooLong | SealError::Crypto)) => {
                    return Err(ReasonCode::ImplementationSpecificError);
                }
            }
        }
        Err(ReasonCode::ServerUnavailable)
    }

    /// True when there may be more.
    async fn publish_due(&self) -> bool {
        let mut over = self.commits.wills.settle();
        // A store that is away keeps its wills until it is back.
        let due = self.store.due_wills(self.clock.unix_now(), DUE_PER_LOOK_MAX).await.unwrap_or_default();
        let mut more = due.len() == DUE_PER_LOOK_MAX;
        for will in due {
            let message_id = will.message_id;
            if self.commits.wills.is_under_way(message_id) {
                continue;
            }
            match self.publish_kept(will).await {
                Tried::UnderWay => {}
                Tried::Over => over.push(message_id),
                Tried::Later => {
                    more = false;
                    break;
                }
            }
        }
        if !over.is_empty() && self.store.forget_wills(&over).await.is_err() {
            tracing::warn!(event = "wills_not_forgotten", count = over.len(), "wills may be published again");
        }
        more
    }

    async fn publish_kept(&self, will: DueWill) -> Tried {
        let Some(topics) = self.policy.topics(will.tenant) else { return Tried::Over };
        let expiry_seconds = will.message_expiry_seconds;
        let message_id = will.message_id;
        let principal = Principal {
            tenant: will.tenant,
            user: will.sender,
            device: None,
            client_id: will.client_id.clone(),
            topics,
        };
        let record = match self.open_stored(&principal, as_stored(will)).await {
            Ok(Some(record)) => record,
            Ok(None) => return Tried::Over,
            Err(_) => return Tried::Later,
        };
        let Some(Record { message, .. }) = Arc::into_inner(record) else { return Tried::Over };
        // Nobody is connected: it stands for the client that was.
        let entry = Arc::new(SessionEntry::new(principal, &self.limits));
        let connection = ConnectionId::next();
        let now = self.clock.unix_now();
        let mut publication = Publication::of_kept(message, expiry_seconds, message_id, now);
        for _ in 0..WARMINGS_MAX {
            match self.publish(&entry, connection, publication, false) {
                Published::Submitted => return Tried::UnderWay,
                Published::Decided(_) | Published::Denied => return Tried::Over,
                Published::Closed | Published::Stalled(_, Stall::Budget) => return Tried::Later,
                Published::Stalled(stalled, Stall::Key(request)) => {
                    self.warm(request).await;
                    publication = *stalled;
                }
            }
        }
        Tried::Later
    }
}

/// It has no place in the log.
fn as_stored(will: DueWill) -> StoredMessage {
    StoredMessage {
        offset: Offset(0),
        topic: will.topic,
        sender: will.sender,
        message_id: will.message_id,
        qos: will.qos,
        retain: will.retain,
        committed_at: UnixMillis(0),
        expires_at: None,
        sealed: will.sealed,
    }
}
