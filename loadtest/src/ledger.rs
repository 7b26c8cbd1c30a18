//! Who has sent and who has received what: loss, duplicates, reordering.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::payload::Stamp;
use crate::sequence_set::{Seen, SequenceSet};
use crate::shared_sequences::{SharedSequences, SharedTally};
use crate::template::RunId;

/// Publisher i publishes to topic i mod T, subscriber j subscribes to topic j mod T, or to all of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) topics: u32,
    /// Every subscriber subscribes to all topics.
    pub(crate) all_topics: bool,
    /// Of the subscribers of a topic, one gets each message.
    pub(crate) shared: bool,
}

impl Layout {
    /// Of a publisher, counted from 0.
    pub(crate) fn topic_of(self, publisher: u32) -> u32 {
        publisher % self.topics
    }

    /// Of a subscriber, counted from 0; `None`: of all topics.
    pub(crate) fn subscription_of(self, subscriber: u32) -> Option<u32> {
        (!self.all_topics).then_some(subscriber % self.topics)
    }

    /// Deliveries that a message to the topic should become.
    pub(crate) fn fan_out(self, topic: u32) -> u32 {
        let subscribers =
            if self.all_topics { self.subscribers } else { share_of(topic, self.subscribers, self.topics) };
        if self.shared { subscribers.min(1) } else { subscribers }
    }

    /// Whether publishers and subscribers of a topic are in the same of so many parts of a run.
    pub(crate) fn is_together(self, parts: u32) -> bool {
        let pairs = self.publishers == self.topics && self.subscribers == self.topics;
        parts == 1 || (!self.all_topics && (pairs || self.topics.is_multiple_of(parts)))
    }

    /// Of those whose messages come to a subscription.
    fn publishers_of(self, subscription: Option<u32>) -> u32 {
        subscription.map_or(self.publishers, |topic| share_of(topic, self.publishers, self.topics))
    }

    /// Where a publisher stands among those whose messages come to a subscription.
    fn place_of(self, publisher: u32) -> usize {
        (if self.all_topics { publisher } else { publisher / self.topics }) as usize
    }
}

/// How many of the numbers below `count` leave `topic` when divided by `topics`.
fn share_of(topic: u32, count: u32, topics: u32) -> u32 {
    count / topics + u32::from(topic < count % topics)
}

/// What one publisher has done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) publisher: u32,
    /// Its messages are those numbered below.
    pub(crate) sent: u32,
    /// Those that count as sent: at QoS 0 handed to the socket, else acknowledged.
    pub(crate) accepted: SequenceSet,
}

/// What one subscriber has received.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Received {
    layout: Layout,
    run: RunId,
    /// Its topic; `None`: all of them.
    subscription: Option<u32>,
    /// One set for each publisher whose messages come here; none of a shared subscription.
    sequences: Vec<SequenceSet>,
    /// With the other members of this process.
    #[serde(skip)]
    shared: Option<Arc<SharedSequences>>,
    pub(crate) duplicates: u64,
    /// Of a shared subscription not judged: its members see parts of a stream, each at its own pace.
    pub(crate) reordered: u64,
    /// Messages that this run has not sent, or not to this topic.
    pub(crate) foreign: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Duplicate,
    Foreign,
}

impl Received {
    /// `shared`: what the members of the run's shared subscriptions receive together.
    pub(crate) fn new(
        layout: Layout,
        run: RunId,
        subscriber: u32,
        shared: Option<Arc<SharedSequences>>,
    ) -> Self {
        let subscription = layout.subscription_of(subscriber);
        let publishers = if shared.is_some() { 0 } else { layout.publishers_of(subscription) };
        let sequences = vec![SequenceSet::default(); publishers as usize];
        Self { layout, run, subscription, sequences, shared, duplicates: 0, reordered: 0, foreign: 0 }
    }

    /// A message without a stamp is foreign too.
    pub(crate) fn count(&mut self, stamp: Option<Stamp>) -> Arrival {
        let ours = stamp.filter(|stamp| {
            stamp.run == self.run
                && stamp.publisher < self.layout.publishers
                && self.subscription.is_none_or(|topic| self.layout.topic_of(stamp.publisher) == topic)
        });
        let Some(stamp) = ours else {
            self.foreign += 1;
            return Arrival::Foreign;
        };
        let seen = match &self.shared {
            Some(shared) if shared.insert(stamp.publisher, stamp.sequence) => Seen::InOrder,
            Some(_) => Seen::Again,
            None => self.sequences[self.layout.place_of(stamp.publisher)].insert(stamp.sequence),
        };
        match seen {
            Seen::InOrder => Arrival::New,
            Seen::Late => {
                self.reordered += 1;
                Arrival::New
            }
            Seen::Again => {
                self.duplicates += 1;
                Arrival::Duplicate
            }
        }
    }

    /// How many messages that count as sent never came here.
    fn lost(&self, published: &[&Published]) -> u64 {
        let missing = |sent: &&Published| {
            sent.accepted.missing_from(&self.sequences[self.layout.place_of(sent.publisher)])
        };
        published.iter().map(missing).sum()
    }

    #[cfg(test)]
    fn unique(&self) -> u64 {
        self.sequences.iter().map(SequenceSet::len).sum()
    }
}

/// Expected and lost, over all subscribers. `shared`: what the members of shared subscriptions have received.
pub(crate) fn settle(
    layout: Layout,
    published: &[Published],
    received: &[Received],
    shared: &SharedTally,
) -> (u64, u64) {
    let mut by_topic = vec![Vec::new(); layout.topics as usize];
    for sent in published {
        by_topic[layout.topic_of(sent.publisher) as usize].push(sent);
    }
    let all: Vec<&Published> = published.iter().collect();
    let mut settled = vec![false; layout.topics as usize];
    let (mut expected, mut lost) = (0, 0);
    for subscriber in received {
        // What the members of a shared subscription were to receive, they were to receive once.
        if layout.shared
            && std::mem::replace(&mut settled[subscriber.subscription.unwrap_or(0) as usize], true)
        {
            continue;
        }
        let sent = subscriber.subscription.map_or(&all, |topic| &by_topic[topic as usize]);
        expected += sent.iter().map(|publisher| publisher.accepted.len()).sum::<u64>();
        lost += if layout.shared {
            sent.iter().map(|sent| shared.lost(sent.publisher, &sent.accepted)).sum()
        } else {
            subscriber.lost(sent)
        };
    }
    (expected, lost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run_clock::Micros;

    const RUN: RunId = RunId(1);

    fn layout(publishers: u32, subscribers: u32, topics: u32) -> Layout {
        Layout { publishers, subscribers, topics, all_topics: false, shared: false }
    }

    fn stamp(publisher: u32, sequence: u32) -> Stamp {
        Stamp { run: RUN, publisher, sequence, intended: Micros(0) }
    }

    fn published(publisher: u32, sequences: impl IntoIterator<Item = u32>) -> Published {
        let mut accepted = SequenceSet::default();
        for sequence in sequences {
            accepted.insert(sequence);
        }
        Published { publisher, sent: 0, accepted }
    }

    #[test]
    fn equal_numbers_are_one_to_one() {
        let layout = layout(3, 3, 3);
        for i in 0..3 {
            assert_eq!(layout.topic_of(i), i);
            assert_eq!(layout.fan_out(i), 1);
        }
    }

    #[test]
    fn every_client_has_its_place_when_the_numbers_do_not_divide() {
        let layout = layout(5, 8, 3);
        assert_eq!([0, 1, 2].map(|topic| layout.fan_out(topic)), [3, 3, 2]);
        assert_eq!([0, 1, 2].map(|topic| layout.publishers_of(Some(topic))), [2, 2, 1]);
        for publisher in 0..5 {
            let topic = layout.topic_of(publisher);
            assert!(layout.place_of(publisher) < layout.publishers_of(Some(topic)) as usize);
        }
    }

    #[test]
    fn messages_of_other_runs_and_other_topics_are_foreign() {
        let layout = layout(2, 2, 2);
        let mut received = Received::new(layout, RUN, 0, None);
        assert_eq!(received.count(None), Arrival::Foreign);
        assert_eq!(received.count(Some(stamp(1, 0))), Arrival::Foreign);
        assert_eq!(received.count(Some(stamp(9, 0))), Arrival::Foreign);
        let other_run = Some(Stamp { run: RunId(2), ..stamp(0, 0) });
        assert_eq!(received.count(other_run), Arrival::Foreign);
        assert_eq!((received.foreign, received.unique()), (4, 0));
    }

    #[test]
    fn what_was_never_accepted_is_not_lost() {
        let layout = layout(1, 1, 1);
        let mut received = Received::new(layout, RUN, 0, None);
        received.count(Some(stamp(0, 0)));
        // 1 was never acknowledged and never came; 2 was not acknowledged and came all the same.
        received.count(Some(stamp(0, 2)));
        assert_eq!(settle(layout, &[published(0, [0])], &[received], &SharedTally::default()), (1, 0));
    }

    #[test]
    fn who_subscribes_to_all_topics_expects_every_publisher() {
        let layout = Layout { all_topics: true, ..layout(3, 2, 3) };
        assert_eq!([0, 1, 2].map(|topic| layout.fan_out(topic)), [2, 2, 2]);
        let mut received = [0, 1].map(|subscriber| Received::new(layout, RUN, subscriber, None));
        for publisher in 0..3 {
            assert_eq!(received[0].count(Some(stamp(publisher, 0))), Arrival::New);
        }
        let published = [published(0, [0]), published(1, [0]), published(2, [0])];
        assert_eq!(settle(layout, &published, &received, &SharedTally::default()), (6, 3));
    }

    #[test]
    fn members_of_a_shared_subscription_are_to_receive_each_message_once_together() {
        for all_topics in [false, true] {
            let layout = Layout { all_topics, shared: true, ..layout(2, 4, 2) };
            assert_eq!(layout.fan_out(0), 1);
            let shared = Arc::new(SharedSequences::new(2));
            let mut received =
                [0, 1, 2, 3].map(|number| Received::new(layout, RUN, number, Some(Arc::clone(&shared))));
            assert_eq!(received[0].count(Some(stamp(0, 1))), Arrival::New);
            assert_eq!(received[2].count(Some(stamp(0, 0))), Arrival::New);
            assert_eq!(received[0].count(Some(stamp(0, 0))), Arrival::Duplicate);
            assert_eq!(received[3].count(Some(stamp(1, 0))), Arrival::New);
            let published = [published(0, [0, 1, 2]), published(1, [0])];
            assert_eq!(settle(layout, &published, &received, &shared.take()), (4, 1));
            assert_eq!(received.iter().map(|member| member.reordered).sum::<u64>(), 0);
        }
    }

    #[test]
    fn members_in_several_processes_are_counted_together_when_their_sets_are_joined() {
        let layout = Layout { shared: true, ..layout(1, 2, 1) };
        let processes = [0, 1].map(|_| Arc::new(SharedSequences::new(1)));
        let mut received: Vec<_> = (0..)
            .zip(&processes)
            .map(|(number, shared)| Received::new(layout, RUN, number, Some(Arc::clone(shared))))
            .collect();
        for sequence in [0, 2, 4, 4] {
            received[0].count(Some(stamp(0, sequence)));
        }
        // 4 has come to the other too, which cannot know.
        for sequence in [1, 4] {
            assert_eq!(received[1].count(Some(stamp(0, sequence))), Arrival::New);
        }
        let mut all = SharedTally::default();
        for shared in &processes {
            let sent = serde_json::to_string(&shared.take()).expect("text");
            all.join(serde_json::from_str(&sent).expect("as written"));
        }
        assert_eq!(all.again(), 1);
        assert_eq!(received[0].duplicates + received[1].duplicates, 1);
        assert_eq!(settle(layout, &[published(0, 0..6)], &received, &all), (6, 2));
    }

    proptest! {
        #[test]
        fn every_loss_duplicate_and_reordering_is_counted(
            drops in prop::collection::vec(prop::bool::weighted(0.2), 60),
            doubles in prop::collection::vec(prop::bool::weighted(0.2), 60),
            swap in 0..29_usize,
        ) {
            let layout = layout(2, 1, 1);
            let mut deliveries = Vec::new();
            let (mut lost, mut duplicates) = (0, 0);
            for k in 0..60_u32 {
                let (publisher, sequence) = (k % 2, k / 2);
                // The neighbours that change places are always delivered, once.
                let kept = sequence as usize == swap || sequence as usize == swap + 1;
                if drops[k as usize] && !kept {
                    lost += 1;
                    continue;
                }
                deliveries.push((publisher, sequence));
                if doubles[k as usize] && !kept {
                    duplicates += 1;
                    deliveries.push((publisher, sequence));
                }
            }
            let at = |wanted| deliveries.iter().position(|delivery| *delivery == wanted).expect("kept");
            let swap = u32::try_from(swap).expect("small");
            let (first, second) = (at((0, swap)), at((0, swap + 1)));
            deliveries.swap(first, second);
            let mut received = Received::new(layout, RUN, 0, None);
            for (publisher, sequence) in deliveries {
                received.count(Some(stamp(publisher, sequence)));
            }
            prop_assert_eq!(received.duplicates, duplicates);
            prop_assert_eq!(received.reordered, 1);
            let sent = [published(0, 0..30), published(1, 0..30)];
            prop_assert_eq!(settle(layout, &sent, &[received], &SharedTally::default()), (60, lost));
        }
    }
}
