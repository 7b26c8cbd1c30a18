//! How a group comes by its messages: from its mailbox, or from the log while it is behind.
//!
//! It is to the log what a session's connection is: see [`Pace`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::{Offset, QoS};

use crate::reading::Page;
use crate::record::Record;
use crate::services::Services;
use crate::share::group::Group;

/// Between a failed read of the log and the next.
const FETCH_RETRY_AFTER: Duration = Duration::from_millis(500);

type Fetch = Pin<Box<dyn Future<Output = Option<Page>> + Send>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Messages come by the mailbox.
    Live,
    /// The log is read from where the group is.
    Behind,
    /// The mailbox takes messages again; those committed before it did are read, up to this offset.
    Rejoining(Offset),
}

pub(super) struct Intake {
    pace: Pace,
    fetch: Option<Fetch>,
    page: VecDeque<Arc<Record>>,
    /// How far the page goes, while there is one.
    scanned_to: Option<Offset>,
    /// What the mailbox holds goes before the log: it was there when the mailbox ran over.
    mailbox_first: bool,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self { pace: Pace::Live, fetch: None, page: VecDeque::new(), scanned_to: None, mailbox_first: false }
    }

    /// The mailbox ran over, or the group was away.
    pub(super) fn fell_behind(&mut self) {
        self.mailbox_first |= self.pace == Pace::Live;
        self.pace = Pace::Behind;
    }

    /// Nothing of the log is left to be read.
    pub(super) fn is_caught_up(&self) -> bool {
        self.pace == Pace::Live && !self.mailbox_first && self.fetch.is_none() && self.scanned_to.is_none()
    }

    /// Goes on with a read that has begun, whether or not somebody has room for what it brings: it holds a
    /// connection to the database.
    pub(super) fn finish_reading(
        &mut self,
        group: &Arc<Group>,
        services: &Arc<Services>,
        cx: &mut Context<'_>,
    ) {
        if self.fetch.is_some() {
            // A page is kept until there is room.
            let _ = self.poll_fetch(group, services, cx);
        }
    }

    /// Nobody is connected: what was read and not taken is read again.
    pub(super) fn rest(&mut self) {
        *self = Self::new();
    }

    /// Gives the group its next message. False when there is none: the context is woken when there is.
    pub(super) fn take(
        &mut self,
        group: &Arc<Group>,
        services: &Arc<Services>,
        cx: &mut Context<'_>,
    ) -> bool {
        loop {
            if self.mailbox_first || self.is_caught_up() {
                if let Some(delivery) = group.entry.next_delivery() {
                    // A message of the log that is granted QoS 0 is not waited for when the log is read.
                    let offset = delivery.record.offset().filter(|_| delivery.grant.qos != QoS::AtMostOnce);
                    group.take(delivery.record, offset);
                    return true;
                }
                if !std::mem::take(&mut self.mailbox_first) {
                    return false;
                }
            } else if let Some(record) = self.page.pop_front() {
                let offset = record.offset().expect("the log's records have offsets");
                if record.message.qos == QoS::AtMostOnce {
                    group.pass_over(offset);
                } else {
                    group.take(record, Some(offset));
                }
                return true;
            } else if let Some(scanned_to) = self.scanned_to.take() {
                self.page = VecDeque::new();
                group.pass_over(scanned_to);
                self.take_pace(group, services);
            } else if self.poll_fetch(group, services, cx).is_pending() {
                return false;
            }
        }
    }

    /// At the end of a page: is the group where the log is?
    fn take_pace(&mut self, group: &Group, services: &Services) {
        let log = services.tail.log(group.entry.principal.tenant);
        match self.pace {
            Pace::Behind if group.seen() >= log.head() => {
                group.entry.rejoin();
                // What was committed before the mailbox took messages again was not put there.
                let head = log.head();
                self.pace = if head > group.seen() { Pace::Rejoining(head) } else { Pace::Live };
            }
            Pace::Rejoining(head) if group.seen() >= head => self.pace = Pace::Live,
            Pace::Behind | Pace::Rejoining(_) | Pace::Live => {}
        }
    }

    fn poll_fetch(&mut self, group: &Arc<Group>, services: &Arc<Services>, cx: &mut Context<'_>) -> Poll<()> {
        let fetch = self.fetch.get_or_insert_with(|| {
            let (group, services) = (group.clone(), services.clone());
            Box::pin(async move {
                let page = services.read_page(&group.entry, group.seen()).await.ok();
                if page.is_none() {
                    tokio::time::sleep(FETCH_RETRY_AFTER).await;
                }
                page
            })
        });
        let Poll::Ready(page) = fetch.as_mut().poll(cx) else { return Poll::Pending };
        self.fetch = None;
        if let Some(page) = page {
            self.page = page.records.into();
            self.scanned_to = Some(page.scanned_to);
        }
        Poll::Ready(())
    }
}
