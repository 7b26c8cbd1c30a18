//! Sessions that outlive their connection: subscriptions, cursor, what is in flight.

use async_trait::async_trait;
use sotto_model::{
    ClientId, Cursor, DeviceId, Generation, Offset, PacketId, QoS, SessionId, Subscription, TenantId,
    TopicFilter, UnixMillis, UserId,
};

use crate::error::StoreError;
use crate::wills::{KeptWill, WillEnd};

/// A session, and the generation for which the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRef {
    pub id: SessionId,
    pub generation: Generation,
}

/// How far a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionProgress {
    pub cursor: Cursor,
    /// At most `INFLIGHT_MAX`, in the order in which they were sent.
    pub inflight: Vec<Inflight>,
    /// Packet ids of QoS 2 PUBLISH packets received whose PUBREL has not come. A `Save` or `Close` adds those
    /// that it knows: others were stored by commits of which the connection never heard.
    pub exactly_once_received: Vec<PacketId>,
}

/// A QoS 1 or 2 message sent and not yet done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    pub packet_id: PacketId,
    pub offset: Offset,
    pub qos: QoS,
    /// It was sent with RETAIN.
    pub retain: bool,
    /// PUBREC has come: PUBREL is to be sent again, not PUBLISH. [MQTT-4.4.0-1]
    pub released: bool,
}

#[derive(Clone, Debug)]
pub struct OpenSession {
    pub tenant: TenantId,
    pub client_id: ClientId,
    pub user: UserId,
    pub device: Option<DeviceId>,
    /// What is stored for this client id is discarded first. [MQTT-3.1.2-4]
    pub clean_start: bool,
    /// `u32::MAX`: never.
    pub expiry_seconds: u32,
    /// Where a new session begins.
    pub head: Offset,
    /// Kept with the session from here on.
    pub will: Option<Box<KeptWill>>,
    pub now: UnixMillis,
}

#[derive(Clone, Debug)]
pub struct OpenedSession {
    pub session: SessionRef,
    /// A stored session was taken up.
    pub present: bool,
    pub progress: SessionProgress,
    pub subscriptions: Vec<Subscription>,
}

/// One change to a stored session. All but `Open` are refused with [`SessionReply::Fenced`] when the
/// generation is older than the stored one, or the session is gone.
#[derive(Clone, Debug)]
pub enum SessionOp {
    /// Takes a session up or makes it, raises its generation, marks it connected, and forgets its
    /// device's outstanding wakeup. A session that has expired, or that another user had under this client
    /// id, is discarded first, and so ends: a will kept with it is due. A will of a session that is taken up
    /// before it is due is not published.
    Open(Box<OpenSession>),
    /// Adds or replaces, by filter as subscribed.
    Subscribe(SessionRef, Vec<Subscription>),
    Unsubscribe(SessionRef, Vec<TopicFilter>),
    /// Replaces cursor and what is in flight; of `exactly_once_received` nothing is removed.
    Save(SessionRef, Box<SessionProgress>),
    /// PUBREL has come for these QoS 2 packet ids: they are free again. Nothing else frees them while the
    /// session lasts, so that one that was stored with its message is not forgotten before its PUBREL. Committed before PUBCOMP leaves, or
    /// a message published under the same id after a crash would be taken for the old one.
    Release(SessionRef, Vec<PacketId>),
    /// The connection ended. With an expiry of 0 the session is deleted. Otherwise it is marked
    /// disconnected; and when its device has a push registration, no other live session, and is behind, a
    /// wakeup is due. Behind is: something in flight, or after the cursor a message that wakes, has not
    /// expired, was sent by another user, and is of its user's inbox or conversations (there, after the
    /// offset since which the membership holds). It is as urgent as the most urgent of those, as for the relay;
    /// something in flight is urgent. `will` says what becomes of the will that was kept with the
    /// session, where one was.
    Close {
        session: SessionRef,
        progress: Box<SessionProgress>,
        expiry_seconds: u32,
        will: Option<WillEnd>,
        now: UnixMillis,
    },
    /// Ends the session and forgets all of it but its will, which is due.
    Delete(SessionRef),
}

#[derive(Clone, Debug)]
pub enum SessionReply {
    Opened(Box<OpenedSession>),
    Done,
    Fenced,
}

/// A stored session as it is listed at start.
#[derive(Clone, Debug)]
pub struct ListedSession {
    pub session: SessionRef,
    pub tenant: TenantId,
    pub client_id: ClientId,
    pub user: UserId,
    pub subscriptions: Vec<Subscription>,
}

#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Applies the operations in their order, in one transaction.
    async fn apply(&self, ops: &[SessionOp]) -> Result<Vec<SessionReply>, StoreError>;

    /// After a start: sessions left connected by a process that died are marked disconnected at `now`,
    /// and their devices' wakeups and their wills made due as `Close` would have. Returns how many. Those with an expiry of
    /// 0 are left to `expire`.
    async fn recover(&self, now: UnixMillis) -> Result<u64, StoreError>;

    /// Stored sessions by id after `after`, at most `limit`.
    async fn list(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<ListedSession>, StoreError>;

    /// Deletes at most `limit` sessions that expired at or before `now`, and says whose they were.
    async fn expire(&self, now: UnixMillis, limit: usize) -> Result<Vec<(TenantId, ClientId)>, StoreError>;
}
