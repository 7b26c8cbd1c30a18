//! Reading the log for a session: from the tail in memory, else from the store.

use std::collections::VecDeque;
use std::sync::Arc;

use sotto_keyring::{OpenError, Place};
use sotto_model::limits::{PAGE_BYTES_MAX, PAGE_RECORDS_MAX};
use sotto_model::{
    Clock, FilterScope, Offset, Principal, QoS, Subscription, TopicFilter, TopicName, TopicPolicy,
};
use sotto_storage::StoreError;
use sotto_storage::message_log::{PageLimit, Selector, StoredMessage};

use crate::log_starts::LogStart;
use crate::metrics::{Drop, dropped, history_missed, read_from};
use crate::record::Record;
use crate::services::Services;
use crate::session_entry::SessionEntry;
use crate::share::name::is_group;

const PAGE: PageLimit = PageLimit { records: PAGE_RECORDS_MAX, bytes: PAGE_BYTES_MAX };
/// A key that is cold again right after it was fetched: not more often than this in a row.
const WARMINGS_PER_MESSAGE_MAX: u32 = 3;

/// A page of the log for one session. Everything for it at or before `scanned_to` is in it.
pub(crate) struct Page {
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) scanned_to: Offset,
}

/// How far the retained messages of one subscription have been read.
pub(crate) struct RetainedReading {
    /// Those left to be read, and the offset after which each is the user's.
    filters: VecDeque<(TopicFilter, Offset)>,
    /// In the first of them.
    after: Option<TopicName>,
}

impl RetainedReading {
    pub(crate) fn is_done(&self) -> bool {
        self.filters.is_empty()
    }
}

impl Services {
    /// What the session's subscriptions select after `after`.
    pub(crate) async fn read_page(&self, entry: &SessionEntry, after: Offset) -> Result<Page, StoreError> {
        let tenant = entry.principal.tenant;
        let head = self.tail.log(tenant).head();
        let selectors = self.selectors(entry);
        if selectors.is_empty() || head <= after {
            return Ok(Page { records: Vec::new(), scanned_to: head.max(after) });
        }
        let start = self.starts.of(tenant);
        let missed = start.missed(&selectors, after);
        // What is deleted is neither looked for nor taken from memory.
        let after = after.max(start.0).min(head);
        let page = self.read_selected(entry, &selectors, after, head).await?;
        if missed > 0 {
            history_missed(missed);
        }
        Ok(page)
    }

    /// What was deleted before the session had come to it, if anything was.
    pub(crate) fn missed(&self, entry: &SessionEntry, cursor: Offset) -> Option<LogStart> {
        let start = self.starts.of(entry.principal.tenant);
        // Nearly always the cursor is after the start, and nobody looks at what is subscribed to.
        let offsets = if cursor < start.0 { start.missed(&self.selectors(entry), cursor) } else { 0 };
        (offsets > 0).then_some(start)
    }

    async fn read_selected(
        &self,
        entry: &SessionEntry,
        selectors: &[Selector],
        after: Offset,
        head: Offset,
    ) -> Result<Page, StoreError> {
        let tenant = entry.principal.tenant;
        if let Some(page) = self.tail.read(tenant, selectors, after, head, PAGE) {
            read_from("tail");
            return Ok(Page { records: page.records, scanned_to: page.scanned_to });
        }
        read_from("store");
        let page = self.store.read(tenant, selectors, after, head, PAGE).await?;
        let scanned_to = page.scanned_to;
        let records = self.open_all(&entry.principal, page.messages).await?;
        Ok(Page { records, scanned_to })
    }

    /// The messages at these offsets that the log still holds.
    pub(crate) async fn read_at(
        &self,
        principal: &Principal,
        offsets: &[Offset],
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let messages = self.store.get(principal.tenant, offsets).await?;
        self.open_all(principal, messages).await
    }

    /// The next page of the retained messages that are to be read.
    pub(crate) async fn read_retained(
        &self,
        principal: &Principal,
        reading: &mut RetainedReading,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let Some((filter, since)) = reading.filters.front() else { return Ok(Vec::new()) };
        let (after, now) = (reading.after.as_ref(), self.clock.unix_now());
        let page = self.store.retained(principal.tenant, filter, after, now, PAGE).await?;
        // What was retained before the user joined the conversation is not the user's.
        let messages = page.messages.into_iter().filter(|message| message.offset > *since).collect();
        let records = self.open_all(principal, messages).await?;
        reading.after = page.next_after;
        if reading.after.is_none() {
            reading.filters.pop_front();
        }
        Ok(records)
    }

    /// False only where nothing is retained for the subscription. Asked after it began to take live messages.
    pub(crate) fn may_be_retained(&self, entry: &SessionEntry, subscription: &Subscription) -> bool {
        let tenant = entry.principal.tenant;
        let concrete = self.concrete(&entry.principal, &subscription.filter);
        concrete.iter().any(|(filter, _)| self.retained_topics.may_match(tenant, filter))
    }

    /// Where to begin to read the retained messages that a filter matches.
    pub(crate) fn retained_reading(&self, principal: &Principal, filter: &TopicFilter) -> RetainedReading {
        RetainedReading { filters: self.concrete(principal, filter).into(), after: None }
    }

    /// The session's subscriptions as the log is read by: wildcards over conversations stand for each of the
    /// user's conversations, and hold since the user joined it.
    fn selectors(&self, entry: &SessionEntry) -> Vec<Selector> {
        entry.with_subscriptions(|subscriptions| {
            subscriptions
                .iter()
                .filter(|subscription| subscription.options.qos != QoS::AtMostOnce)
                // What is shared, its group reads.
                .filter(|subscription| subscription.filter.share_name().is_none())
                .flat_map(|subscription| self.selectors_of(&entry.principal, subscription))
                .collect()
        })
    }

    fn selectors_of(&self, principal: &Principal, subscription: &Subscription) -> Vec<Selector> {
        self.concrete(principal, &subscription.filter)
            .into_iter()
            .map(|(filter, since)| Selector { filter, after: since.max(subscription.since) })
            .collect()
    }

    /// The filters that a filter stands for with this user, and the offset after which each is the user's.
    fn concrete(&self, principal: &Principal, filter: &TopicFilter) -> Vec<(TopicFilter, Offset)> {
        if principal.topics == TopicPolicy::Open {
            return vec![(filter.clone(), Offset(0))];
        }
        match filter.scope() {
            FilterScope::Conversation(conversation) => self
                .policy
                .member_since(principal.tenant, conversation, principal.user)
                .map(|since| (filter.clone(), since))
                .into_iter()
                .collect(),
            FilterScope::MyConversations => {
                // `c/+/rest` and `c/#` become `c/<id>/rest` and `c/<id>/#`.
                let rest = filter.as_str().strip_prefix("c/+/").unwrap_or("#");
                self.policy
                    .conversations_of(principal.tenant, principal.user)
                    .into_iter()
                    .filter_map(|(conversation, since)| {
                        Some((TopicFilter::parse(&format!("c/{conversation}/{rest}")).ok()?, since))
                    })
                    .collect()
            }
            FilterScope::Inbox(_) | FilterScope::Other => vec![(filter.clone(), Offset(0))],
        }
    }

    async fn open_all(
        &self,
        principal: &Principal,
        messages: Vec<StoredMessage>,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut records = Vec::with_capacity(messages.len());
        for message in messages {
            // What is not for this client stays sealed. It is asked once more when it is sent; a group asks for
            // each of its members.
            if !is_group(principal) && !self.policy.may_receive(principal, &message.topic, message.offset) {
                continue;
            }
            if let Some(record) = self.open_stored(principal, message).await? {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// `None` for a message that does not open: it is counted and passed over, or it would hold up all that
    /// follow it.
    pub(crate) async fn open_stored(
        &self,
        principal: &Principal,
        stored: StoredMessage,
    ) -> Result<Option<Arc<Record>>, StoreError> {
        let told = principal.topics == TopicPolicy::Membership;
        for _ in 0..WARMINGS_PER_MESSAGE_MAX {
            let place = Place {
                tenant: principal.tenant,
                topic: &stored.topic,
                sender: stored.sender,
                message_id: stored.message_id,
            };
            match self.keyring.open(&place, &stored.sealed, self.clock.now()) {
                Ok(body) => {
                    let record = Record::from_stored(principal.tenant, stored, &body, told);
                    return Ok(record.map_err(|error| unreadable(&error)).ok());
                }
                Err(OpenError::KeyCold(request)) => {
                    // The key service is away: the session waits, as it would for the store.
                    self.keyring.warm(request, self.clock.now()).await.map_err(|_| {
                        StoreError::Unavailable {
                            operation: "open a message",
                            code: "key unavailable".into(),
                        }
                    })?;
                }
                Err(error) => {
                    unreadable(&error);
                    return Ok(None);
                }
            }
        }
        Err(StoreError::Unavailable { operation: "open a message", code: "key cold".into() })
    }
}

fn unreadable(error: &dyn std::error::Error) {
    dropped(Drop::Unreadable);
    tracing::error!(event = "message_unreadable", error = %error, "a stored message does not open");
}
