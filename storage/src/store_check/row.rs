//! What a backend reports: numbers and names as they stand, since damage may have put anything there.

use bytes::Bytes;
use uuid::Uuid;

use crate::session_store::Inflight;

/// A tenant with its counter and the extent of its log.
#[derive(Clone, Debug)]
pub struct TenantRow {
    pub tenant: Uuid,
    /// `None`: it is in the log, and not among the tenants.
    pub known: bool,
    /// `None`: it has no counter.
    pub head: Option<i64>,
    /// Nothing at or before it is held any more.
    pub start: i64,
    pub messages: i64,
    /// Offsets of the first and the last message; `None` for an empty log.
    pub extent: Option<(i64, i64)>,
}

/// What the writer remembers of the last batch, and what the counters do.
#[derive(Clone, Copy, Debug)]
pub struct LastBatchRow {
    pub number: i64,
    /// Messages that the writer counts in it.
    pub records: i64,
    /// Offsets that the counters gave to it.
    pub placed: i64,
    /// Counters that remember a later batch than the writer does, or a base above their head.
    pub counters_ahead: i64,
}

#[derive(Clone, Debug)]
pub struct TopicRow {
    pub topic_id: i64,
    /// `None`: no such tenant.
    pub tenant: Option<Uuid>,
    pub name: String,
    pub conversation: Option<Uuid>,
    pub inbox: Option<Uuid>,
}

#[derive(Clone, Debug)]
pub struct SessionRow {
    pub session_id: i64,
    pub tenant: Option<Uuid>,
    /// The user exists, or is nobody.
    pub user_known: bool,
    /// The device exists, or there is none.
    pub device_known: bool,
    pub cursor: i64,
    /// `None`: the column cannot be read.
    pub inflight: Option<Vec<Inflight>>,
}

#[derive(Clone, Debug)]
pub struct SubscriptionRow {
    pub session_id: i64,
    pub tenant: Option<Uuid>,
    pub filter: String,
    pub options: i64,
    pub identifier: Option<i64>,
    pub since: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct OutboxRow {
    pub outbox_id: i64,
    pub tenant: Option<Uuid>,
    pub offset: i64,
    /// The topic that the row names, where it names one, is that of the message; `None`: no such message.
    pub fits_message: Option<bool>,
}

/// Where a page of the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    pub tenant: Uuid,
    pub offset: i64,
    /// Of two messages at one offset, which must not be, the one after this.
    pub message_id: Uuid,
}

#[derive(Clone, Debug)]
pub struct MessageRow {
    pub place: LogPlace,
    /// The tenant of the topic and its name; `None`: no such topic.
    pub topic: Option<(Uuid, String)>,
    pub sender: Uuid,
    pub qos: i64,
    pub sealed: Bytes,
}

#[derive(Clone, Debug)]
pub struct RetainedRow {
    pub topic_id: i64,
    pub tenant: Uuid,
    /// As in the copy.
    pub name: String,
    /// The tenant of the topic and its name; `None`: no such topic.
    pub topic: Option<(Uuid, String)>,
    pub offset: i64,
    pub message_id: Uuid,
    /// Of the message at that offset; `None`: the log does not hold it any longer.
    pub logged: Option<Uuid>,
    pub sender: Uuid,
    pub sealed: Bytes,
}

#[derive(Clone, Debug)]
pub struct WillRow {
    pub message_id: Uuid,
    pub session_id: i64,
    /// `None`: no such tenant.
    pub tenant: Option<Uuid>,
    pub session_known: bool,
    /// Its time has been set.
    pub due: bool,
    pub topic: String,
    pub sender: Uuid,
    pub sealed: Bytes,
}

#[derive(Clone, Debug)]
pub struct PushTokenRow {
    pub device: Uuid,
    pub tenant: Uuid,
    pub sealed: Bytes,
}
