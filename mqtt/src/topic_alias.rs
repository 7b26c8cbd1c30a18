//! Topic Aliases: two tables a connection, one for each direction, and none before the first alias.
//! [MQTT-3.3.2-10] [MQTT-3.3.2-11]

/// What the client's aliases stand for.
#[derive(Debug, Default)]
pub(crate) struct ReceivedAliases {
    /// By alias, from 1 on.
    topics: Vec<Option<Box<str>>>,
}

impl ReceivedAliases {
    /// Zero, or more than was announced. [MQTT-3.3.2-8] [MQTT-3.3.2-9]
    pub(crate) fn is_valid(alias: u16, maximum: u16) -> bool {
        (1..=maximum).contains(&alias)
    }

    /// The alias, which is valid, stands for `topic` from here on.
    pub(crate) fn set(&mut self, alias: u16, topic: &str) {
        let at = usize::from(alias) - 1;
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        self.topics[at] = Some(topic.into());
    }

    pub(crate) fn topic(&self, alias: u16) -> Option<&str> {
        self.topics.get(usize::from(alias).checked_sub(1)?)?.as_deref()
    }
}

/// How a topic is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// As it is.
    Whole,
    /// As it is, and the client is to remember it by this alias.
    Introduced(u16),
    /// The alias stands for it. [MQTT-3.3.2-12]
    Aliased(u16),
}

/// An alias and its property take 3 bytes: shorter topics would not gain.
const TOPIC_BYTES_MIN: usize = 4;

/// The aliases set towards a client. A topic that is not in a full table takes the place of one that was not
/// sent since the hand last passed it, so that a client of many topics is not told a new alias every time.
#[derive(Debug)]
pub(crate) struct SentAliases {
    maximum: u16,
    entries: Vec<Entry>,
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    sent_again: bool,
}

impl SentAliases {
    pub(crate) fn new(maximum: u16) -> Self {
        Self { maximum, entries: Vec::new(), hand: 0 }
    }

    /// How `topic` is to be sent; what is returned must be sent.
    pub(crate) fn send(&mut self, topic: &str) -> Sent {
        if self.maximum == 0 || topic.len() < TOPIC_BYTES_MIN {
            return Sent::Whole;
        }
        if let Some(at) = self.entries.iter().position(|entry| *entry.topic == *topic) {
            self.entries[at].sent_again = true;
            return Sent::Aliased(alias(at));
        }
        let entry = Entry { topic: topic.into(), sent_again: false };
        if self.entries.len() < usize::from(self.maximum) {
            self.entries.push(entry);
            return Sent::Introduced(alias(self.entries.len() - 1));
        }
        let at = self.hand;
        self.hand = (at + 1) % self.entries.len();
        if std::mem::take(&mut self.entries[at].sent_again) {
            return Sent::Whole;
        }
        self.entries[at] = entry;
        Sent::Introduced(alias(at))
    }
}

fn alias(at: usize) -> u16 {
    u16::try_from(at + 1).expect("no more entries than the maximum")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_alias_stands_for_the_last_topic_it_was_set_to() {
        let mut aliases = ReceivedAliases::default();
        assert_eq!(aliases.topic(1), None);
        aliases.set(3, "a");
        aliases.set(3, "b");
        assert_eq!((aliases.topic(3), aliases.topic(2), aliases.topic(0)), (Some("b"), None, None));
        assert!(!ReceivedAliases::is_valid(0, 3) && !ReceivedAliases::is_valid(4, 3));
        assert!(ReceivedAliases::is_valid(3, 3));
    }

    #[test]
    fn a_short_topic_and_a_client_without_aliases_get_none() {
        assert_eq!(SentAliases::new(5).send("abc"), Sent::Whole);
        assert_eq!(SentAliases::new(0).send("a/long/topic"), Sent::Whole);
    }

    #[test]
    fn a_topic_that_is_sent_often_keeps_its_alias() {
        let mut aliases = SentAliases::new(2);
        assert_eq!(aliases.send("often"), Sent::Introduced(1));
        for other in 0..100 {
            assert_eq!(aliases.send("often"), Sent::Aliased(1));
            aliases.send(&format!("other/{other}"));
        }
    }

    proptest! {
        /// The client's table, kept as the specification says, always gives the topic that was sent.
        #[test]
        fn the_client_understands_every_alias(topics in prop::collection::vec(0..8_u8, 1..200), maximum in 0..5_u16) {
            let mut aliases = SentAliases::new(maximum);
            let mut client: HashMap<u16, String> = HashMap::new();
            for topic in topics {
                let topic = format!("topic/{topic}");
                match aliases.send(&topic) {
                    Sent::Whole => {}
                    Sent::Introduced(alias) => {
                        prop_assert!(ReceivedAliases::is_valid(alias, maximum));
                        client.insert(alias, topic);
                    }
                    Sent::Aliased(alias) => prop_assert_eq!(client.get(&alias), Some(&topic)),
                }
            }
        }
    }
}
