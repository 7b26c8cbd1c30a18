//! The recent log of all tenants in memory, so that most resumes never ask the database.
//!
//! Records are held by topic, in the order of the topics' text: an exact filter is one look-up, and a
//! wildcard walks only the topics that begin with its literal prefix (`c/<conversation>/`, `u/<user>/`).
//! What is held of a tenant is always complete after its floor; a read from before it is not answered.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use sotto_model::{Offset, TenantId, TopicFilter, TopicName};

use crate::message_log::{PageLimit, Selector};

/// What holding a record costs beside its own bytes.
const RECORD_OVERHEAD_BYTES: usize = 96;

/// What the tail must know of what it holds.
pub trait TailRecord: Send + Sync + 'static {
    fn tenant(&self) -> TenantId;
    fn offset(&self) -> Offset;
    fn topic(&self) -> &TopicName;
    /// All that the record occupies.
    fn bytes(&self) -> usize;
}

pub struct Tail<R> {
    tenants: DashMap<TenantId, Arc<TenantTail<R>>>,
    /// Locked by the committer alone, to push; reads lock their tenant's index only.
    eviction: Mutex<Eviction<R>>,
    bytes_max: usize,
}

/// How far a tenant's log has come, as connections see it.
#[derive(Debug)]
pub struct TenantLog {
    head: AtomicU64,
    delivered: AtomicU64,
}

/// A page of the tail; see [`crate::message_log::Page`].
#[derive(Debug)]
pub struct TailPage<R> {
    /// By offset, each once, however many selectors match it.
    pub records: Vec<Arc<R>>,
    /// The last record's offset when the limit cut the page, the end of the range otherwise.
    pub scanned_to: Offset,
}

impl<R: TailRecord> Tail<R> {
    /// An empty tail of logs that have come as far as `heads` says ([`crate::message_log::MessageLog::heads`]).
    pub fn new(bytes_max: usize, heads: impl IntoIterator<Item = (TenantId, Offset)>) -> Self {
        let tenants = heads.into_iter().map(|(tenant, head)| (tenant, Arc::new(TenantTail::new(head))));
        Self {
            tenants: tenants.collect(),
            eviction: Mutex::new(Eviction { oldest_first: VecDeque::new(), bytes: 0 }),
            bytes_max,
        }
    }

    /// How far the tenant's log has come. A tenant not heard of before has an empty log.
    pub fn log(&self, tenant: TenantId) -> Arc<TenantLog> {
        self.tenant(tenant).log.clone()
    }

    /// Adds a committed record, and only then raises its tenant's head: whoever sees the head finds the
    /// record. Called in the order of the log. Evicts the oldest records of all tenants beyond the bound.
    pub fn push(&self, record: Arc<R>) {
        let tenant = self.tenant(record.tenant());
        let offset = record.offset();
        let mut index = tenant.index.write();
        assert!(offset > tenant.log.head(), "records are pushed in the order of the log");
        index.by_topic.entry(TopicKey(record.topic().clone())).or_default().push_back(record.clone());
        tenant.log.head.store(offset.0, Ordering::SeqCst);
        drop(index);

        let mut eviction = self.eviction.lock();
        eviction.bytes += held_bytes(&*record);
        eviction.oldest_first.push_back((tenant, record));
        while eviction.bytes > self.bytes_max {
            let (tenant, oldest) =
                eviction.oldest_first.pop_front().expect("bytes are held by records in the queue");
            eviction.bytes -= held_bytes(&*oldest);
            tenant.index.write().evict(&*oldest);
        }
        metrics::gauge!("sotto_tail_bytes").set(as_f64(eviction.bytes));
    }

    /// Records with an offset in `(after, up_to]` that any selector matches after its own `after`. `None`
    /// where the tail does not reach back far enough: the database must be asked.
    ///
    /// `up_to` is at most the tenant's head.
    pub fn read(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        after: Offset,
        up_to: Offset,
        limit: PageLimit,
    ) -> Option<TailPage<R>> {
        let tenant = self.tenants.get(&tenant)?.clone();
        let index = tenant.index.read();
        let earliest = selectors.iter().map(|selector| selector.after).min().unwrap_or(up_to).max(after);
        if earliest < index.floor {
            return None;
        }
        let up_to = up_to.min(tenant.log.head());
        Some(index.read(selectors, after, up_to, limit))
    }

    /// Records held, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let eviction = self.eviction.lock();
        (eviction.oldest_first.len(), eviction.bytes)
    }

    fn tenant(&self, tenant: TenantId) -> Arc<TenantTail<R>> {
        if let Some(known) = self.tenants.get(&tenant) {
            return known.clone();
        }
        self.tenants.entry(tenant).or_insert_with(|| Arc::new(TenantTail::new(Offset(0)))).clone()
    }
}

impl TenantLog {
    /// The highest offset known to be committed.
    pub fn head(&self) -> Offset {
        Offset(self.head.load(Ordering::SeqCst))
    }

    /// The highest offset whose records have reached all mailboxes that they were meant for.
    pub fn delivered(&self) -> Offset {
        Offset(self.delivered.load(Ordering::SeqCst))
    }

    /// Called by the committer's fan-out, once it is complete up to `offset`.
    pub fn set_delivered(&self, offset: Offset) {
        self.delivered.fetch_max(offset.0, Ordering::SeqCst);
    }
}

struct Eviction<R> {
    oldest_first: VecDeque<(Arc<TenantTail<R>>, Arc<R>)>,
    bytes: usize,
}

struct TenantTail<R> {
    log: Arc<TenantLog>,
    /// Locked for writing by the committer, a record at a time.
    index: RwLock<Index<R>>,
}

struct Index<R> {
    /// Every record after this offset is held.
    floor: Offset,
    by_topic: BTreeMap<TopicKey, VecDeque<Arc<R>>>,
}

impl<R: TailRecord> TenantTail<R> {
    fn new(head: Offset) -> Self {
        let log = TenantLog { head: AtomicU64::new(head.0), delivered: AtomicU64::new(head.0) };
        Self { log: Arc::new(log), index: RwLock::new(Index { floor: head, by_topic: BTreeMap::new() }) }
    }
}

impl<R: TailRecord> Index<R> {
    fn evict(&mut self, oldest: &R) {
        let Entry::Occupied(mut topic) = self.by_topic.entry(TopicKey(oldest.topic().clone())) else {
            unreachable!("a record that is held is in its topic");
        };
        let evicted = topic.get_mut().pop_front().expect("a topic without records is not held");
        debug_assert_eq!(evicted.offset(), oldest.offset());
        if topic.get().is_empty() {
            topic.remove();
        }
        self.floor = oldest.offset();
    }

    fn read(&self, selectors: &[Selector], after: Offset, up_to: Offset, limit: PageLimit) -> TailPage<R> {
        // Every matching topic once, with the earliest offset at which any selector reaches it.
        let mut topics: BTreeMap<&str, (Offset, &VecDeque<Arc<R>>)> = BTreeMap::new();
        for selector in selectors {
            let from = selector.after.max(after);
            for (topic, records) in self.matching(&selector.filter) {
                let (earliest, _) = topics.entry(topic).or_insert((from, records));
                *earliest = from.min(*earliest);
            }
        }
        // Merged by offset: the heap holds the next record of every topic.
        let mut next: BinaryHeap<Reverse<(Offset, usize)>> = BinaryHeap::new();
        let mut rests = Vec::new();
        for (from, records) in topics.into_values() {
            let start = records.partition_point(|record| record.offset() <= from);
            let mut rest = records.range(start..).take_while(|record| record.offset() <= up_to).peekable();
            if let Some(first) = rest.peek() {
                next.push(Reverse((first.offset(), rests.len())));
                rests.push(rest);
            }
        }
        let mut records: Vec<Arc<R>> = Vec::new();
        let mut bytes = 0usize;
        while let Some(Reverse((_, topic))) = next.pop() {
            let record = rests[topic].next().expect("a topic in the heap has a record left");
            bytes = bytes.saturating_add(record.bytes());
            if let Some(last) = records.last()
                && (records.len() >= limit.records || bytes > limit.bytes)
            {
                let scanned_to = last.offset();
                return TailPage { records, scanned_to };
            }
            records.push(record.clone());
            if let Some(following) = rests[topic].peek() {
                next.push(Reverse((following.offset(), topic)));
            }
        }
        TailPage { records, scanned_to: up_to.max(after) }
    }

    fn matching<'a>(
        &'a self,
        filter: &'a TopicFilter,
    ) -> impl Iterator<Item = (&'a str, &'a VecDeque<Arc<R>>)> {
        let prefix = filter.literal_prefix();
        let range = if filter.has_wildcard() {
            (Bound::Included(prefix), Bound::Unbounded)
        } else {
            (Bound::Included(prefix), Bound::Included(prefix))
        };
        self.by_topic
            .range::<str, _>(range)
            .take_while(move |(topic, _)| topic.0.as_str().starts_with(prefix))
            .filter(|(topic, _)| filter.matches(&topic.0))
            .map(|(topic, records)| (topic.0.as_str(), records))
    }
}

/// A topic, found by its text. The order of topics is the order of their texts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct TopicKey(TopicName);

impl Borrow<str> for TopicKey {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

fn held_bytes<R: TailRecord>(record: &R) -> usize {
    record.bytes() + RECORD_OVERHEAD_BYTES
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
