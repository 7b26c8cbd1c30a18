//! Topic Aliases from the client, and what a PUBLISH may look like.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{Packet, Version};
use crate::support::write::{Publish, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM, two_bytes};

/// What the server announces.
fn maximum(connack: &Packet) -> u16 {
    let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
    properties.number(TOPIC_ALIAS_MAXIMUM).unwrap_or(0).try_into().expect("16 bits")
}

#[test]
fn every_topic_alias_up_to_the_announced_maximum_is_accepted() {
    let (mut client, connack) = Connect::new(Version::V5, &unique("alias")).attempt();
    let maximum = maximum(&connack);
    let topic = unique("alias");
    client.subscribe(&format!("{topic}/+"), 0);
    for alias in 1..=maximum {
        let name = format!("{topic}/{alias}");
        let set = Publish::new(&name, "set").property(&two_bytes(TOPIC_ALIAS, alias));
        client.send(&set.bytes(Version::V5));
        assert_eq!(client.take().topic, name);
    }
    for alias in (1..=maximum).rev() {
        let used = Publish::new("", "used").property(&two_bytes(TOPIC_ALIAS, alias));
        client.send(&used.bytes(Version::V5));
        let message = client.take();
        assert_eq!((message.topic, message.payload), (format!("{topic}/{alias}"), b"used".to_vec()));
    }
    client.expect_silence();
}

#[test]
fn a_topic_alias_of_0_or_over_the_maximum_is_invalid() {
    for over in [false, true] {
        let (mut client, connack) = Connect::new(Version::V5, &unique("alias")).attempt();
        let alias = if over { maximum(&connack) + 1 } else { 0 };
        client.send(&Publish::new("t", "x").property(&two_bytes(TOPIC_ALIAS, alias)).bytes(Version::V5));
        client.expect_closed_with(0x94);
    }
}

#[test]
fn a_topic_alias_is_forgotten_with_its_connection() {
    let connect = Connect::new(Version::V5, &unique("forgotten")).lasting();
    let (mut client, connack) = connect.attempt();
    if maximum(&connack) == 0 {
        return;
    }
    client.publish(&Publish::new("t", "x").qos(1, 1).property(&two_bytes(TOPIC_ALIAS, 1)));
    drop(client);
    let mut client = connect.open();
    client.send(&Publish::new("", "x").qos(1, 1).property(&two_bytes(TOPIC_ALIAS, 1)).bytes(Version::V5));
    assert!(matches!(client.next(), Packet::Disconnect { code: 0x82 | 0x94, .. }));
    client.expect_closed();
}

/// What comes of five messages to one topic, with the client's maximum.
fn delivered(maximum: u16) -> Vec<crate::support::packet::Message> {
    let topic = unique("delivered");
    let connect = Connect::new(Version::V5, &unique("aliases"));
    let mut client = match maximum {
        0 => connect.open(),
        _ => connect.property(&two_bytes(TOPIC_ALIAS_MAXIMUM, maximum)).open(),
    };
    client.subscribe(&format!("{topic}/#"), 1);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    (1..=12)
        .map(|number| {
            let name = format!("{topic}/{}", number % 4);
            publisher.publish(&Publish::new(&name, &number.to_string()).qos(1, number));
            client.take()
        })
        .collect()
}

#[test]
fn a_client_that_takes_topic_aliases_is_sent_no_higher_one() {
    for maximum in [1, 2, 0xffff] {
        let mut names = std::collections::HashMap::new();
        for message in delivered(maximum) {
            match message.properties.number(TOPIC_ALIAS) {
                None => assert!(!message.topic.is_empty()),
                Some(alias) => {
                    assert!((1..=u32::from(maximum)).contains(&alias));
                    if message.topic.is_empty() {
                        assert!(names.contains_key(&alias), "an alias that was not set");
                    } else {
                        names.insert(alias, message.topic);
                    }
                }
            }
        }
    }
}

#[test]
fn a_client_that_announces_no_topic_aliases_is_sent_none() {
    for message in delivered(0) {
        assert!(!message.topic.is_empty() && message.properties.is_empty());
    }
}
