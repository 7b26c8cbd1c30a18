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
    bytes_gauge: metrics::Gauge,
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
    /// The metrics recorder must be installed before.
    pub fn new(bytes_max: usize, heads: impl IntoIterator<Item = (TenantId, Offset)>) -> Self {
        let tenants = heads.into_iter().map(|(tenant, head)| (tenant, Arc::new(TenantTail::new(head))));
        Self {
            tenants: tenants.collect(),
            eviction: Mutex::new(Eviction { oldest_first: VecDeque::new(), bytes: 0 }),
            bytes_max,
            bytes_gauge: metrics::gauge!("sotto_tail_bytes"),
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
        self.bytes_gauge.set(as_f64(eviction.bytes));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug)]
    struct Record {
        tenant: TenantId,
        offset: Offset,
        topic: TopicName,
        bytes: usize,
    }

    impl TailRecord for Record {
        fn tenant(&self) -> TenantId {
            self.tenant
        }

        fn offset(&self) -> Offset {
            self.offset
        }

        fn topic(&self) -> &TopicName {
            &self.topic
        }

        fn bytes(&self) -> usize {
            self.bytes
        }
    }

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const WHOLE: PageLimit = PageLimit { records: usize::MAX, bytes: usize::MAX };

    fn record(tenant: TenantId, offset: u64, topic: &str, bytes: usize) -> Arc<Record> {
        let topic = TopicName::parse(topic).expect("topic");
        Arc::new(Record { tenant, offset: Offset(offset), topic, bytes })
    }

    fn selector(filter: &str, after: u64) -> Selector {
        Selector { filter: TopicFilter::parse(filter).expect("filter"), after: Offset(after) }
    }

    fn offsets(page: &TailPage<Record>) -> Vec<u64> {
        page.records.iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn a_read_from_before_what_is_held_is_not_answered() {
        let tail = Tail::new(usize::MAX, [(TENANT, Offset(10))]);
        tail.push(record(TENANT, 11, "a", 1));
        let read = |after| tail.read(TENANT, &[selector("a", 0)], Offset(after), Offset(11), WHOLE);
        assert!(read(9).is_none());
        assert_eq!(offsets(&read(10).expect("held")), [11]);
        assert!(tail.read(TenantId(Uuid::nil()), &[], Offset(0), Offset(0), WHOLE).is_none());
    }

    #[test]
    fn a_selector_that_begins_late_makes_an_early_read_answerable() {
        let tail = Tail::new(usize::MAX, [(TENANT, Offset(10))]);
        tail.push(record(TENANT, 11, "a", 1));
        let page = tail.read(TENANT, &[selector("a", 10)], Offset(3), Offset(11), WHOLE).expect("held");
        assert_eq!((offsets(&page), page.scanned_to), (vec![11], Offset(11)));
    }

    #[test]
    fn the_oldest_of_all_tenants_is_evicted_first() {
        let other = TenantId(Uuid::from_u128(2));
        let tail = Tail::new(2 * (100 + RECORD_OVERHEAD_BYTES), []);
        tail.push(record(TENANT, 1, "a", 100));
        tail.push(record(other, 1, "a", 100));
        tail.push(record(other, 2, "b", 100));
        assert_eq!(tail.size(), (2, 2 * (100 + RECORD_OVERHEAD_BYTES)));
        assert!(tail.read(TENANT, &[selector("a", 0)], Offset(0), Offset(1), WHOLE).is_none());
        let page = tail.read(other, &[selector("#", 0)], Offset(0), Offset(2), WHOLE).expect("held");
        assert_eq!(offsets(&page), [1, 2]);
    }

    #[test]
    fn the_head_is_seen_only_when_its_record_is_held() {
        let tail = Tail::new(usize::MAX, []);
        let log = tail.log(TENANT);
        assert_eq!((log.head(), log.delivered()), (Offset(0), Offset(0)));
        tail.push(record(TENANT, 1, "a", 1));
        assert_eq!((log.head(), log.delivered()), (Offset(1), Offset(0)));
        log.set_delivered(Offset(1));
        assert_eq!(log.delivered(), Offset(1));
    }

    #[test]
    fn the_first_record_is_returned_whatever_its_size() {
        let tail = Tail::new(usize::MAX, []);
        tail.push(record(TENANT, 1, "a", 1000));
        tail.push(record(TENANT, 2, "a", 1));
        let limit = PageLimit { records: 10, bytes: 10 };
        let page = tail.read(TENANT, &[selector("a", 0)], Offset(0), Offset(2), limit).expect("held");
        assert_eq!((offsets(&page), page.scanned_to), (vec![1], Offset(1)));
        let page = tail.read(TENANT, &[selector("a", 0)], Offset(1), Offset(2), limit).expect("held");
        assert_eq!((offsets(&page), page.scanned_to), (vec![2], Offset(2)));
    }

    const C: &str = "c/0190a0b0-0000-7000-8000-0000000000ab";

    fn topic() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "a".into(),
            "a/b".into(),
            "a/b/c".into(),
            "a-b".into(),
            "b".into(),
            "/".into(),
            "$SYS/a".into(),
            C.into(),
            format!("{C}/m"),
            format!("{C}/n"),
            format!("{}/m", C.replace("ab", "cd")),
            format!("u/{}/x", &C[2..]),
        ])
    }

    fn filter() -> impl Strategy<Value = String> {
        prop_oneof![
            topic(),
            prop::sample::select(vec![
                "#".into(),
                "+".into(),
                "a/#".into(),
                "a/+".into(),
                "a/+/c".into(),
                "c/+/m".into(),
                "c/#".into(),
                format!("{C}/#"),
                format!("{C}/+"),
                "$SYS/#".into(),
                "$share/g/a/#".into(),
            ]),
        ]
    }

    proptest! {
        #[test]
        fn a_page_holds_what_a_scan_of_the_whole_log_would_find(
            log in prop::collection::vec((0u128..3, topic(), 0usize..400), 0..80),
            bytes_max in 0usize..40_000,
            selectors in prop::collection::vec((filter(), 0u64..40), 0..4),
            after in 0u64..40,
            up_to in 0u64..40,
            records_max in 1usize..20,
            page_bytes_max in 0usize..4000,
        ) {
            let tail = Tail::new(bytes_max, []);
            let mut heads = std::collections::HashMap::new();
            let mut pushed = Vec::new();
            for (tenant, topic, bytes) in log {
                let tenant = TenantId(Uuid::from_u128(tenant));
                let head: &mut u64 = heads.entry(tenant).or_default();
                *head += 1;
                let record = record(tenant, *head, &topic, bytes);
                pushed.push(record.clone());
                tail.push(record);
            }
            // What the bound leaves: the longest suffix of the log that fits.
            let mut held = 0;
            let held_from = pushed
                .iter()
                .rposition(|record| {
                    held += held_bytes(&**record);
                    held > bytes_max
                })
                .map_or(0, |last_evicted| last_evicted + 1);

            let selectors: Vec<_> =
                selectors.iter().map(|(filter, after)| selector(filter, *after)).collect();
            for (tenant, head) in heads {
                let up_to = up_to.min(head);
                let limit = PageLimit { records: records_max, bytes: page_bytes_max };
                let page = tail.read(tenant, &selectors, Offset(after), Offset(up_to), limit);
                let earliest =
                    selectors.iter().map(|s| s.after.0).min().unwrap_or(up_to).max(after);
                let evicted = pushed[..held_from].iter();
                let lost = evicted.filter(|r| r.tenant == tenant).any(|r| r.offset.0 > earliest);
                prop_assert_eq!(page.is_none(), lost);
                let Some(page) = page else { continue };

                let mut expected = Vec::new();
                let mut scanned_to = up_to.max(after);
                let mut bytes = 0;
                for record in pushed.iter().filter(|record| record.tenant == tenant) {
                    let offset = record.offset.0;
                    let selected = offset > after && offset <= up_to && selectors.iter().any(|s| {
                        offset > s.after.0 && s.filter.matches(&record.topic)
                    });
                    if !selected {
                        continue;
                    }
                    bytes += record.bytes;
                    if !expected.is_empty() && (expected.len() >= records_max || bytes > page_bytes_max) {
                        scanned_to = *expected.last().expect("not empty");
                        break;
                    }
                    expected.push(offset);
                }
                prop_assert_eq!(offsets(&page), expected);
                prop_assert_eq!(page.scanned_to, Offset(scanned_to));
            }
        }
    }
}
