//! Retained messages that new subscriptions are owed: read a page at a time, as the client takes them.
//!
//! They go before everything that comes live, so that a message never is followed by the one that was retained
//! on its topic before it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::{Offset, Subscription};

use crate::reading::RetainedReading;
use crate::record::Record;
use crate::services::Services;
use crate::session_entry::{Delivery, Grant, SessionEntry, Terms};

/// Between a failed read and the next.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A subscription that is owed what was retained when it was made. What is retained later reaches it as it is
/// published, and not a second time from here.
pub(crate) struct Owed {
    pub(crate) subscription: Subscription,
    /// The head of the log, read after the subscription began to take live messages.
    pub(crate) up_to: Offset,
}

/// There is none while nothing is owed.
#[derive(Default)]
pub(crate) struct Retained {
    /// Whose turn is still to come: each filter once, so no more than the session has subscriptions.
    waiting: VecDeque<Owed>,
    current: Option<Current>,
}

struct Current {
    owed: Owed,
    /// `None` while a page is being read.
    reading: Option<RetainedReading>,
    fetch: Option<Fetch>,
    page: VecDeque<Arc<Record>>,
}

/// The page is `None` where it could not be read.
type Fetch = Pin<Box<dyn Future<Output = (RetainedReading, Option<Vec<Arc<Record>>>)> + Send>>;

impl Retained {
    /// From the beginning, also where an earlier SUBSCRIBE of the filter is still being served.
    pub(crate) fn owe(&mut self, owed: Owed) {
        self.forget(|known| known.filter == owed.subscription.filter);
        self.waiting.push_back(owed);
    }

    /// Nothing is sent for a subscription that has gone. [MQTT-3.10.4-2]
    pub(crate) fn forget_unsubscribed(&mut self, entry: &SessionEntry) {
        self.forget(|known| entry.holds_since(&known.filter).is_none());
    }

    /// The next message; `Ready(None)` when nothing is owed any more.
    pub(crate) fn poll_next(
        &mut self,
        services: &Arc<Services>,
        entry: &Arc<SessionEntry>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Delivery>> {
        loop {
            if let Some(current) = &mut self.current {
                match current.poll_next(services, entry, cx) {
                    Poll::Ready(None) => self.current = None,
                    delivery => return delivery,
                }
            }
            let Some(owed) = self.waiting.pop_front() else { return Poll::Ready(None) };
            let reading = services.retained_reading(&entry.principal, &owed.subscription.filter);
            let page = VecDeque::new();
            self.current = Some(Current { owed, reading: Some(reading), fetch: None, page });
        }
    }

    fn forget(&mut self, is_over: impl Fn(&Subscription) -> bool) {
        self.waiting.retain(|owed| !is_over(&owed.subscription));
        self.current.take_if(|current| is_over(&current.owed.subscription));
    }
}

impl Current {
    fn poll_next(
        &mut self,
        services: &Arc<Services>,
        entry: &Arc<SessionEntry>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Delivery>> {
        loop {
            if let Some(record) = self.page.pop_front() {
                if record.offset().is_some_and(|offset| offset > self.owed.up_to) {
                    continue;
                }
                let mut grant = Grant::of(Terms::of(&self.owed.subscription), &record);
                // Sent because of a new subscription, whatever Retain As Published says. [MQTT-3.3.1-8]
                grant.retain = true;
                return Poll::Ready(Some(Delivery { record, grant }));
            }
            if let Some(fetch) = &mut self.fetch {
                let Poll::Ready((reading, page)) = fetch.as_mut().poll(cx) else { return Poll::Pending };
                self.fetch = None;
                self.reading = Some(reading);
                self.page = page.unwrap_or_default().into();
                continue;
            }
            let Some(reading) = self.reading.take_if(|reading| !reading.is_done()) else {
                return Poll::Ready(None);
            };
            self.fetch = Some(Box::pin(fetch(services.clone(), entry.clone(), reading)));
        }
    }
}

async fn fetch(
    services: Arc<Services>,
    entry: Arc<SessionEntry>,
    mut reading: RetainedReading,
) -> (RetainedReading, Option<Vec<Arc<Record>>>) {
    let page = services.read_retained(&entry.principal, &mut reading).await.ok();
    if page.is_none() {
        tokio::time::sleep(RETRY_AFTER).await;
    }
    (reading, page)
}
