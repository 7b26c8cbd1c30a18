//! The log and the retained messages.

use std::ops::Bound;

use async_trait::async_trait;
use sotto_model::limits::BATCH_RECORDS_MAX;
use sotto_model::{MessageId, Offset, TenantId, TopicFilter, TopicName, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::message_log::{
    Append, Batch, MessageLog, Page, PageLimit, Placed, RetainChange, RetainedPage, Selector, StoredMessage,
};
use sotto_storage::publication_key::PublicationKey;

use crate::state::{MessageRow, State};
use crate::store::MemoryStore;
use crate::wills;

/// Topics looked at for one page of retained messages.
const RETAINED_TOPICS_MAX: usize = 8192;

#[async_trait]
impl MessageLog for MemoryStore {
    /// Whoever holds the store holds the claim.
    async fn claim_writer(&self) -> Result<u64, StoreError> {
        Ok(self.lock().last_batch.0)
    }

    async fn append(&self, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
        append(&mut self.lock(), batch)
    }

    async fn heads(&self) -> Result<Vec<(TenantId, Offset)>, StoreError> {
        Ok(self.lock().tenants.iter().map(|(&tenant, row)| (tenant, row.head)).collect())
    }

    async fn read(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        after: Offset,
        up_to: Offset,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        Ok(read(&self.lock(), tenant, selectors, after, up_to, limit))
    }

    async fn get(&self, tenant: TenantId, offsets: &[Offset]) -> Result<Vec<StoredMessage>, StoreError> {
        let state = self.lock();
        let mut offsets = offsets.to_vec();
        offsets.sort_unstable();
        offsets.dedup();
        let found = offsets.iter().filter_map(|&offset| state.messages.get(&(tenant, offset)));
        Ok(found.map(|row| row.message.clone()).collect())
    }

    async fn retained(
        &self,
        tenant: TenantId,
        filter: &TopicFilter,
        after: Option<&TopicName>,
        now: UnixMillis,
        limit: PageLimit,
    ) -> Result<RetainedPage, StoreError> {
        Ok(retained(&self.lock(), tenant, filter, after, now, limit))
    }

    async fn retained_topics(&self, limit: usize) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError> {
        let state = self.lock();
        Ok((state.retained.len() <= limit).then(|| state.retained.keys().cloned().collect()))
    }

    async fn expire_retained(&self, now: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let mut state = self.lock();
        let has_expired = |message: &StoredMessage| message.expires_at.is_some_and(|at| at <= now);
        let expired: Vec<_> = state
            .retained
            .iter()
            .filter(|(_, message)| has_expired(message))
            .map(|(key, _)| key.clone())
            .take(limit)
            .collect();
        for key in &expired {
            state.retained.remove(key);
        }
        Ok(expired.len())
    }

    async fn forget_publications(&self, before: UnixMillis, limit: usize) -> Result<usize, StoreError> {
        let publications = &mut self.lock().publications;
        let forgotten: Vec<PublicationKey> = publications
            .iter()
            .filter(|(_, (_, committed_at))| *committed_at < before)
            .map(|(key, _)| *key)
            .take(limit)
            .collect();
        publications.retain(|key, _| !forgotten.contains(key));
        Ok(forgotten.len())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Everything that may be refused is asked before anything is changed.
fn append(state: &mut State, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
    let refused = |code: &str| StoreError::Refused { operation: "append", code: code.to_owned() };
    if batch.appends.len() > BATCH_RECORDS_MAX {
        return Err(refused("batch is too large"));
    }
    let (last, placed) = &state.last_batch;
    if batch.number == *last && placed.len() == batch.appends.len() {
        return Ok(placed.clone());
    }
    if batch.number <= *last {
        return Err(StoreError::Inconsistent("batch number was given to another batch"));
    }
    if batch.appends.iter().any(|append| !state.tenants.contains_key(&append.sealed.tenant())) {
        return Err(refused("no such tenant"));
    }
    let placed: Vec<Placed> =
        batch.appends.iter().map(|append| append_one(state, append, batch.committed_at)).collect();
    state.last_batch = (batch.number, placed.clone());
    Ok(placed)
}

fn append_one(state: &mut State, append: &Append, committed_at: UnixMillis) -> Placed {
    // A session that has ended in the meantime has nothing to remember.
    if let Some((session, packet_id)) = append.exactly_once
        && let Some(session) = state.sessions.get_mut(&session)
    {
        session.exactly_once_received.insert(packet_id);
    }
    let published: Vec<MessageId> = append.will.into_iter().collect();
    wills::remove(state, &published);
    let Some(key) = PublicationKey::of(append) else {
        return Placed::Now(store_one(state, append, committed_at));
    };
    if let Some((offset, _)) = state.publications.get(&key) {
        return Placed::Before(*offset);
    }
    let offset = store_one(state, append, committed_at);
    state.publications.insert(key, (offset, committed_at));
    Placed::Now(offset)
}

fn store_one(state: &mut State, append: &Append, committed_at: UnixMillis) -> Offset {
    let sealed = &append.sealed;
    let tenant = sealed.tenant();
    let row = state.tenants.get_mut(&tenant).expect("its tenant was looked up");
    row.head = Offset(row.head.0 + 1);
    let offset = row.head;
    let message = StoredMessage {
        offset,
        topic: sealed.topic().clone(),
        sender: sealed.sender(),
        message_id: sealed.message_id(),
        qos: append.qos,
        retain: append.retain != RetainChange::Keep,
        committed_at,
        expires_at: append.expires_at,
        sealed: sealed.bytes().clone(),
    };
    let key = (tenant, sealed.topic().clone());
    match append.retain {
        RetainChange::Keep => {}
        RetainChange::Set => drop(state.retained.insert(key, message.clone())),
        RetainChange::Clear => drop(state.retained.remove(&key)),
    }
    state.messages.insert((tenant, offset), MessageRow { message, wakes: append.wakes });
    if append.wakes.is_some() {
        state.outbox.push_back((tenant, offset));
    }
    offset
}

fn read(
    state: &State,
    tenant: TenantId,
    selectors: &[Selector],
    after: Offset,
    up_to: Offset,
    limit: PageLimit,
) -> Page {
    let up_to = up_to.max(after);
    let mut page = Page { messages: Vec::new(), scanned_to: up_to };
    let mut bytes = 0_usize;
    let range = (Bound::Excluded((tenant, after)), Bound::Included((tenant, up_to)));
    for ((_, offset), row) in state.messages.range(range) {
        let selects =
            |selector: &Selector| *offset > selector.after && selector.filter.matches(&row.message.topic);
        if !selectors.iter().any(selects) {
            continue;
        }
        bytes = bytes.saturating_add(row.message.sealed.len());
        match page.messages.last() {
            Some(last) if page.messages.len() >= limit.records.max(1) || bytes > limit.bytes => {
                page.scanned_to = last.offset;
                break;
            }
            _ => page.messages.push(row.message.clone()),
        }
    }
    page
}

fn retained(
    state: &State,
    tenant: TenantId,
    filter: &TopicFilter,
    after: Option<&TopicName>,
    now: UnixMillis,
    limit: PageLimit,
) -> RetainedPage {
    let mut page = RetainedPage { messages: Vec::new(), next_after: None };
    let mut bytes = 0_usize;
    let mut passed = None;
    let is_ahead = |topic: &TopicName| after.is_none_or(|after| topic > after);
    let ahead = state.retained.iter().filter(|((owner, topic), _)| *owner == tenant && is_ahead(topic));
    for (looked_at, ((_, topic), message)) in ahead.enumerate() {
        if looked_at >= RETAINED_TOPICS_MAX {
            page.next_after = passed;
            break;
        }
        passed = Some(topic.clone());
        let has_expired = message.expires_at.is_some_and(|at| at <= now);
        if has_expired || !filter.matches(topic) {
            continue;
        }
        bytes = bytes.saturating_add(message.sealed.len());
        match page.messages.last() {
            Some(last) if page.messages.len() >= limit.records.max(1) || bytes > limit.bytes => {
                page.next_after = Some(last.topic.clone());
                break;
            }
            _ => page.messages.push(StoredMessage { retain: true, ..message.clone() }),
        }
    }
    page
}
