//! The oracle: what was sent, what was acknowledged, what came.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sotto_model::QoS;

use crate::dice::mix;

/// A message: whose, and its place among those of its publisher, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) publisher: usize,
    pub(crate) sequence: usize,
}

/// Of the two tenants' topics, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicNumber(pub(crate) usize);

#[derive(Clone, Copy, Debug)]
struct Sent {
    topic: TopicNumber,
    qos: QoS,
    acknowledged: bool,
}

/// Longest filler of a payload, bytes.
const FILLER_BYTES_MAX: u64 = 600;

/// What is told of a subscriber.
#[derive(Default)]
struct Reception {
    /// How often each came, as a message of its own.
    times: HashMap<Key, u32>,
    /// The last that came for the first time, of each publisher, topic and QoS. [MQTT-4.6.0-5]
    last: HashMap<(usize, TopicNumber, u8), usize>,
}

/// Totals, for the line at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sent: usize,
    pub(crate) acknowledged: usize,
    pub(crate) delivered: u64,
    /// Of QoS 1, beyond the first.
    pub(crate) delivered_again: u64,
}

/// Everybody tells it what they do and see.
pub(crate) struct Ledger {
    topics: Vec<String>,
    /// By publisher. Locked by publishers to enter and by subscribers to look.
    sent: Mutex<Vec<Vec<Sent>>>,
    /// By subscriber. Locked by each for its own, and by the verdict.
    receptions: Mutex<Vec<Reception>>,
    acknowledged: AtomicU64,
    /// What must not have happened, in words. Locked by whoever saw it.
    complaints: Mutex<Vec<String>>,
}

/// Told so many in full, the rest only counted.
const COMPLAINTS_MAX: usize = 20;

impl Ledger {
    pub(crate) fn new(topics: Vec<String>, publishers: usize, subscribers: usize) -> Self {
        Self {
            topics,
            sent: Mutex::new(vec![Vec::new(); publishers]),
            receptions: Mutex::new((0..subscribers).map(|_| Reception::default()).collect()),
            acknowledged: AtomicU64::new(0),
            complaints: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn topic(&self, topic: TopicNumber) -> &str {
        &self.topics[topic.0]
    }

    /// Where these conversations' messages go.
    pub(crate) fn topics_of(&self, conversations: &[String]) -> Vec<TopicNumber> {
        let is_of = |topic: &str| conversations.iter().any(|id| topic == format!("c/{id}/m"));
        (0..self.topics.len()).filter(|number| is_of(&self.topics[*number])).map(TopicNumber).collect()
    }

    pub(crate) fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock();
        if complaints.len() < COMPLAINTS_MAX {
            complaints.push(complaint);
        } else if complaints.len() == COMPLAINTS_MAX {
            complaints.push("and more".to_owned());
        }
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().clone()
    }

    // ---- publishers ----

    /// A new message is about to leave.
    pub(crate) fn sending(&self, publisher: usize, topic: TopicNumber, qos: QoS) -> Key {
        let mut sent = self.sent.lock();
        let own = &mut sent[publisher];
        own.push(Sent { topic, qos, acknowledged: false });
        Key { publisher, sequence: own.len() - 1 }
    }

    /// PUBACK, or PUBREC, for the first time.
    pub(crate) fn acknowledged(&self, key: Key) {
        let sent = &mut self.sent.lock()[key.publisher][key.sequence];
        if !std::mem::replace(&mut sent.acknowledged, true) {
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn acknowledgements(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn sent(&self, key: Key) -> Option<Sent> {
        self.sent.lock().get(key.publisher)?.get(key.sequence).copied()
    }

    pub(crate) fn topic_and_qos(&self, key: Key) -> (TopicNumber, QoS) {
        let sent = self.sent(key).expect("it was sent");
        (sent.topic, sent.qos)
    }

    // ---- subscribers ----

    /// The message that came, if anybody sent it.
    pub(crate) fn recognize(&self, who: &str, topic: &str, bytes: &[u8]) -> Option<Key> {
        let key = key_of(bytes).filter(|key| payload(*key) == bytes);
        let sent = key.and_then(|key| self.sent(key));
        let Some((key, _)) = key.zip(sent).filter(|(_, sent)| self.topic(sent.topic) == topic) else {
            self.complain(format!("{who} got what nobody sent"));
            return None;
        };
        Some(key)
    }

    /// A message came as one of its own: not as the repetition of a QoS 2 exchange.
    pub(crate) fn received(&self, subscriber: usize, who: &str, key: Key, qos: QoS) {
        let Some(sent) = self.sent(key) else { return };
        let mut receptions = self.receptions.lock();
        let reception = &mut receptions[subscriber];
        let times = reception.times.entry(key).or_default();
        *times += 1;
        if *times > 1 {
            if qos == QoS::ExactlyOnce {
                self.complain(format!("{who} got {key:?} of QoS 2 twice"));
            }
            return;
        }
        let last = reception.last.entry((key.publisher, sent.topic, sent.qos as u8)).or_insert(key.sequence);
        if *last > key.sequence {
            self.complain(format!("{who} got {key:?} after {last}"));
        }
        *last = key.sequence;
    }

    /// How many of the messages sent to these topics have not come.
    pub(crate) fn missing(&self, subscriber: usize, topics: &[TopicNumber]) -> Vec<Key> {
        let sent = self.sent.lock();
        let receptions = self.receptions.lock();
        let of_topics = sent.iter().enumerate().flat_map(|(publisher, own)| {
            own.iter()
                .enumerate()
                .filter(|(_, sent)| topics.contains(&sent.topic))
                .map(move |(sequence, _)| Key { publisher, sequence })
        });
        of_topics.filter(|key| !receptions[subscriber].times.contains_key(key)).collect()
    }

    // ---- the verdict ----

    /// `rows`: how often each message stands in the database. `once`: publishers whose messages stand there once
    /// whatever happens, as all of QoS 2 do.
    pub(crate) fn judge_rows(&self, rows: &BTreeMap<Key, u32>, once: &[usize]) {
        for (publisher, own) in self.sent.lock().iter().enumerate() {
            for (sequence, sent) in own.iter().enumerate() {
                let key = Key { publisher, sequence };
                let times = rows.get(&key).copied().unwrap_or_default();
                if sent.acknowledged && times == 0 {
                    self.complain(format!("{key:?} was acknowledged and is lost"));
                }
                let is_once = sent.qos == QoS::ExactlyOnce || once.contains(&publisher);
                if is_once && times > 1 {
                    self.complain(format!("{key:?} is stored {times} times"));
                }
            }
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        let sent = self.sent.lock();
        let receptions = self.receptions.lock();
        let times = || receptions.iter().flat_map(|reception| reception.times.values());
        Totals {
            sent: sent.iter().map(Vec::len).sum(),
            acknowledged: sent.iter().flatten().filter(|sent| sent.acknowledged).count(),
            delivered: times().map(|times| u64::from(*times)).sum(),
            delivered_again: times().map(|times| u64::from(*times - 1)).sum(),
        }
    }
}

/// Tells its key, and cannot be mistaken for another's.
pub(crate) fn payload(key: Key) -> Vec<u8> {
    let Key { publisher, sequence } = key;
    let mut payload = format!("{publisher} {sequence} ").into_bytes();
    let seed = mix((publisher as u64) << 32 | sequence as u64);
    payload.extend((0..seed % FILLER_BYTES_MAX).map(|at| mix(seed ^ at).to_be_bytes()[0]));
    payload
}

fn key_of(payload: &[u8]) -> Option<Key> {
    let mut parts = payload.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    Some(Key { publisher: number()?, sequence: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { publisher: 0, sequence: 0 };

    fn ledger() -> Ledger {
        let ledger = Ledger::new(vec!["a".to_owned()], 1, 1);
        for qos in [QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            ledger.sending(0, TopicNumber(0), qos);
        }
        ledger
    }

    #[test]
    fn a_loss_a_double_a_swap_and_a_stranger_are_noticed() {
        let lost = ledger();
        lost.acknowledged(KEY);
        lost.judge_rows(&BTreeMap::new(), &[]);
        assert_eq!(lost.complaints().len(), 1);

        let doubled = ledger();
        let twice = Key { sequence: 2, ..KEY };
        doubled.judge_rows(&BTreeMap::from([(twice, 2), (KEY, 2)]), &[]);
        assert_eq!(doubled.complaints().len(), 1);
        doubled.judge_rows(&BTreeMap::from([(KEY, 2)]), &[0]);
        assert_eq!(doubled.complaints().len(), 2);
        for _ in 0..2 {
            doubled.received(0, "bob", twice, QoS::ExactlyOnce);
        }
        assert_eq!(doubled.complaints().len(), 3);

        let swapped = ledger();
        swapped.received(0, "bob", Key { sequence: 1, ..KEY }, QoS::AtLeastOnce);
        assert_eq!(swapped.missing(0, &[TopicNumber(0)]), [KEY, Key { sequence: 2, ..KEY }]);
        swapped.received(0, "bob", KEY, QoS::AtLeastOnce);
        assert_eq!(swapped.complaints().len(), 1);

        let strange = ledger();
        assert_eq!(strange.recognize("bob", "a", &payload(KEY)), Some(KEY));
        assert_eq!(strange.recognize("bob", "b", &payload(KEY)), None);
        assert_eq!(strange.recognize("bob", "a", &payload(Key { sequence: 3, ..KEY })), None);
        assert_eq!(strange.recognize("bob", "a", b"0 0 forged"), None);
        assert_eq!(strange.complaints().len(), 3);
    }
}
