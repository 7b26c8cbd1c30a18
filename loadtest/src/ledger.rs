//! Who has sent and who has received what: loss, duplicates, reordering.

use crate::payload::Stamp;
use crate::sequence_set::{Seen, SequenceSet};
use crate::template::RunId;

/// Publisher i publishes to topic i mod T, subscriber j subscribes to topic j mod T.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) topics: u32,
}

impl Layout {
    /// Of a publisher or of a subscriber, each counted from 0.
    pub(crate) fn topic_of(self, number: u32) -> u32 {
        number % self.topics
    }

    pub(crate) fn subscribers_of(self, topic: u32) -> u32 {
        share_of(topic, self.subscribers, self.topics)
    }

    fn publishers_of(self, topic: u32) -> u32 {
        share_of(topic, self.publishers, self.topics)
    }

    /// Where a publisher stands among those of its topic.
    fn place_of(self, publisher: u32) -> usize {
        (publisher / self.topics) as usize
    }
}

/// How many of the numbers below `count` leave `topic` when divided by `topics`.
fn share_of(topic: u32, count: u32, topics: u32) -> u32 {
    count / topics + u32::from(topic < count % topics)
}

/// What one publisher has done.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) publisher: u32,
    /// Those that count as sent: at QoS 0 handed to the socket, else acknowledged.
    pub(crate) accepted: SequenceSet,
}

/// What one subscriber has received.
#[derive(Debug)]
pub(crate) struct Received {
    layout: Layout,
    run: RunId,
    topic: u32,
    /// One set for each publisher of the topic.
    sequences: Vec<SequenceSet>,
    pub(crate) duplicates: u64,
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
    pub(crate) fn new(layout: Layout, run: RunId, subscriber: u32) -> Self {
        let topic = layout.topic_of(subscriber);
        let publishers = layout.publishers_of(topic) as usize;
        Self {
            layout,
            run,
            topic,
            sequences: vec![SequenceSet::default(); publishers],
            duplicates: 0,
            reordered: 0,
            foreign: 0,
        }
    }

    /// A message without a stamp is foreign too.
    pub(crate) fn count(&mut self, stamp: Option<Stamp>) -> Arrival {
        let ours = stamp.filter(|stamp| {
            stamp.run == self.run
                && stamp.publisher < self.layout.publishers
                && self.layout.topic_of(stamp.publisher) == self.topic
        });
        let Some(stamp) = ours else {
            self.foreign += 1;
            return Arrival::Foreign;
        };
        match self.sequences[self.layout.place_of(stamp.publisher)].insert(stamp.sequence) {
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

    pub(crate) fn unique(&self) -> u64 {
        self.sequences.iter().map(SequenceSet::len).sum()
    }

    /// How many messages that count as sent never came here.
    fn lost(&self, published: &[&Published]) -> u64 {
        published
            .iter()
            .map(|sent| sent.accepted.missing_from(&self.sequences[self.layout.place_of(sent.publisher)]))
            .sum()
    }
}

/// Expected and lost, over all subscribers.
pub(crate) fn settle(layout: Layout, published: &[Published], received: &[Received]) -> (u64, u64) {
    let mut by_topic = vec![Vec::new(); layout.topics as usize];
    for sent in published {
        by_topic[layout.topic_of(sent.publisher) as usize].push(sent);
    }
    received.iter().fold((0, 0), |(expected, lost), subscriber| {
        let sent = &by_topic[subscriber.topic as usize];
        let due: u64 = sent.iter().map(|publisher| publisher.accepted.len()).sum();
        (expected + due, lost + subscriber.lost(sent))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run_clock::Micros;

    const RUN: RunId = RunId(1);

    fn stamp(publisher: u32, sequence: u32) -> Stamp {
        Stamp { run: RUN, publisher, sequence, intended: Micros(0) }
    }

    fn published(publisher: u32, sequences: impl IntoIterator<Item = u32>) -> Published {
        let mut accepted = SequenceSet::default();
        for sequence in sequences {
            accepted.insert(sequence);
        }
        Published { publisher, accepted }
    }

    #[test]
    fn equal_numbers_are_one_to_one() {
        let layout = Layout { publishers: 3, subscribers: 3, topics: 3 };
        for i in 0..3 {
            assert_eq!(layout.topic_of(i), i);
            assert_eq!(layout.subscribers_of(i), 1);
        }
    }

    #[test]
    fn every_client_has_its_place_when_the_numbers_do_not_divide() {
        let layout = Layout { publishers: 5, subscribers: 8, topics: 3 };
        assert_eq!([0, 1, 2].map(|topic| layout.subscribers_of(topic)), [3, 3, 2]);
        assert_eq!([0, 1, 2].map(|topic| layout.publishers_of(topic)), [2, 2, 1]);
        for publisher in 0..5 {
            let topic = layout.topic_of(publisher);
            assert!(layout.place_of(publisher) < layout.publishers_of(topic) as usize);
        }
    }

    #[test]
    fn messages_of_other_runs_and_other_topics_are_foreign() {
        let layout = Layout { publishers: 2, subscribers: 2, topics: 2 };
        let mut received = Received::new(layout, RUN, 0);
        assert_eq!(received.count(None), Arrival::Foreign);
        assert_eq!(received.count(Some(stamp(1, 0))), Arrival::Foreign);
        assert_eq!(received.count(Some(stamp(9, 0))), Arrival::Foreign);
        let other_run = Some(Stamp { run: RunId(2), ..stamp(0, 0) });
        assert_eq!(received.count(other_run), Arrival::Foreign);
        assert_eq!((received.foreign, received.unique()), (4, 0));
    }

    #[test]
    fn what_was_never_accepted_is_not_lost() {
        let layout = Layout { publishers: 1, subscribers: 1, topics: 1 };
        let mut received = Received::new(layout, RUN, 0);
        received.count(Some(stamp(0, 0)));
        // 1 was never acknowledged and never came; 2 was not acknowledged and came all the same.
        received.count(Some(stamp(0, 2)));
        assert_eq!(settle(layout, &[published(0, [0])], &[received]), (1, 0));
    }

    proptest! {
        #[test]
        fn every_loss_duplicate_and_reordering_is_counted(
            drops in prop::collection::vec(prop::bool::weighted(0.2), 60),
            doubles in prop::collection::vec(prop::bool::weighted(0.2), 60),
            swap in 0..29_usize,
        ) {
            let layout = Layout { publishers: 2, subscribers: 1, topics: 1 };
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
            let mut received = Received::new(layout, RUN, 0);
            for (publisher, sequence) in deliveries {
                received.count(Some(stamp(publisher, sequence)));
            }
            prop_assert_eq!(received.duplicates, duplicates);
            prop_assert_eq!(received.reordered, 1);
            let sent = [published(0, 0..30), published(1, 0..30)];
            prop_assert_eq!(settle(layout, &sent, &[received]), (60, lost));
        }
    }
}
