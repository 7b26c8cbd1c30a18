//! A log whose database fails on demand.

use std::collections::{HashMap, HashSet, VecDeque};

use async_trait::async_trait;
use parking_lot::Mutex;
use sotto_model::{MessageId, Offset, TenantId, TopicFilter, TopicName, UnixMillis};
use sotto_storage::StoreError;
use sotto_storage::message_log::{
    Batch, MessageLog, Page, PageLimit, Placed, RetainedPage, Selector, StoredMessage,
};

/// How one attempt to commit fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing is committed.
    Unavailable,
    /// The batch is committed, and the answer lost.
    AnswerLost,
}

#[derive(Default)]
pub(crate) struct FaultyLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    away: bool,
    poisoned: HashSet<MessageId>,
    last_batch: u64,
    last_placed: Vec<Placed>,
    heads: HashMap<TenantId, u64>,
    committed: Vec<MessageId>,
    batch_records: Vec<usize>,
}

impl FaultyLog {
    /// The next attempts fail so, one after another.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().faults.extend(faults);
    }

    /// Every attempt and every ping fails while it is away.
    pub(crate) fn set_away(&self, away: bool) {
        self.state.lock().away = away;
    }

    /// A batch that holds this message is refused.
    pub(crate) fn poison(&self, message: MessageId) {
        self.state.lock().poisoned.insert(message);
    }

    /// What is durable, in order.
    pub(crate) fn committed(&self) -> Vec<MessageId> {
        self.state.lock().committed.clone()
    }

    /// The sizes of the batches that were committed.
    pub(crate) fn batch_records(&self) -> Vec<usize> {
        self.state.lock().batch_records.clone()
    }
}

#[async_trait]
impl MessageLog for FaultyLog {
    async fn claim_writer(&self) -> Result<u64, StoreError> {
        Ok(self.state.lock().last_batch)
    }

    async fn append(&self, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
        // While it runs, others go on.
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        let fault = if state.away { Some(Fault::Unavailable) } else { state.faults.pop_front() };
        if matches!(fault, Some(Fault::Unavailable)) {
            return Err(unavailable());
        }
        if batch.number == state.last_batch {
            return Ok(state.last_placed.clone());
        }
        assert_eq!(batch.number, state.last_batch + 1, "batches are numbered without gaps");
        if batch.appends.iter().any(|append| state.poisoned.contains(&append.sealed.message_id())) {
            return Err(StoreError::Refused { operation: "append", code: "poison".into() });
        }
        let mut placed = Vec::new();
        for append in &batch.appends {
            let head = state.heads.entry(append.sealed.tenant()).or_default();
            *head += 1;
            placed.push(Placed::Now(Offset(*head)));
            state.committed.push(append.sealed.message_id());
        }
        state.last_batch = batch.number;
        state.last_placed.clone_from(&placed);
        state.batch_records.push(batch.appends.len());
        if matches!(fault, Some(Fault::AnswerLost)) { Err(unavailable()) } else { Ok(placed) }
    }

    async fn heads(&self) -> Result<Vec<(TenantId, Offset)>, StoreError> {
        Ok(self.state.lock().heads.iter().map(|(tenant, head)| (*tenant, Offset(*head))).collect())
    }

    async fn read(
        &self,
        _: TenantId,
        _: &[Selector],
        _: Offset,
        _: Offset,
        _: PageLimit,
    ) -> Result<Page, StoreError> {
        unreachable!("a committer does not read")
    }

    async fn get(&self, _: TenantId, _: &[Offset]) -> Result<Vec<StoredMessage>, StoreError> {
        unreachable!("a committer does not read")
    }

    async fn retained(
        &self,
        _: TenantId,
        _: &TopicFilter,
        _: Option<&TopicName>,
        _: UnixMillis,
        _: PageLimit,
    ) -> Result<RetainedPage, StoreError> {
        unreachable!("a committer does not read")
    }

    async fn retained_topics(&self, _: usize) -> Result<Option<Vec<(TenantId, TopicName)>>, StoreError> {
        unreachable!("a committer does not read")
    }

    async fn expire_retained(&self, _: UnixMillis, _: usize) -> Result<usize, StoreError> {
        unreachable!("a committer expires nothing")
    }

    async fn forget_publications(&self, _: UnixMillis, _: usize) -> Result<usize, StoreError> {
        unreachable!("a committer forgets nothing")
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.state.lock().away { Err(unavailable()) } else { Ok(()) }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { operation: "append", code: "test".into() }
}
