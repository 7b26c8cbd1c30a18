//! What a session has yet to be sent, before or beside what comes live.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sotto_model::{Offset, PacketId};

use crate::connection::retained::Retained;
use crate::reading::Page;
use crate::record::Record;
use crate::session_entry::Delivery;

pub(crate) type Fetch = Pin<Box<dyn Future<Output = Option<Page>> + Send>>;

/// How a session stands to the live stream of its tenant's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Messages come by the mailbox.
    Live,
    /// The log is read from the session's offset.
    Behind,
    /// The mailbox takes messages again; those committed before it did are read, up to this offset.
    Rejoining(Offset),
}

/// See [`sotto_mqtt::delivery::Delivered::Held`].
pub(crate) struct Held {
    pub(crate) packet_id: PacketId,
    pub(crate) delivery: Delivery,
}

/// Empty, and without memory, while a session is live and idle.
pub(crate) struct Backlog {
    pub(crate) pace: Pace,
    pub(crate) fetch: Option<Fetch>,
    pub(crate) page: VecDeque<Arc<Record>>,
    /// How far the page goes, while there is one.
    pub(crate) scanned_to: Option<Offset>,
    /// Owed to new subscriptions.
    pub(crate) retained: Option<Box<Retained>>,
    /// What the mailbox holds goes before the log: it was there when the mailbox ran over.
    pub(crate) mailbox_first: bool,
    /// Messages that have a packet id and are sent once that is durable, in their order.
    pub(crate) held: VecDeque<Held>,
    /// Bodies of what was in flight when the session was taken up.
    pub(crate) inflight: HashMap<Offset, Arc<Record>>,
}

impl Backlog {
    pub(crate) fn new(pace: Pace, inflight: Vec<Arc<Record>>) -> Self {
        Self {
            pace,
            fetch: None,
            page: VecDeque::new(),
            scanned_to: None,
            retained: None,
            mailbox_first: false,
            held: VecDeque::new(),
            inflight: inflight.into_iter().filter_map(|record| Some((record.offset()?, record))).collect(),
        }
    }

    /// Of a session that is live and idle.
    pub(crate) fn none() -> Self {
        Self::new(Pace::Live, Vec::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_caught_up()
            && self.retained.is_none()
            && !self.mailbox_first
            && self.held.is_empty()
            && self.inflight.is_empty()
    }

    /// Nothing is left of the log to be read or sent.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.pace == Pace::Live && self.fetch.is_none() && self.scanned_to.is_none()
    }

    pub(crate) fn fetched(&mut self, page: Page) {
        self.page = page.records.into();
        self.scanned_to = Some(page.scanned_to);
    }
}
