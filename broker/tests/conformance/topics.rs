//! Topic Names and Topic Filters.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{self, Publish};

/// Does a message to `topic` reach a subscription to `filter`?
fn matches(version: Version, filter: &str, topic: &str) -> bool {
    let marker = unique("marker");
    let mut client = Connect::new(version, &unique("matches")).open();
    client.send(&write::subscribe(version, 1, &[], &[(filter, 0), (&marker, 0)]));
    loop {
        match client.next() {
            Packet::SubAck { .. } => break,
            Packet::Publish(_) => {}
            other => panic!("{other:?} where a SUBACK should come"),
        }
    }
    let mut publisher = Connect::new(version, &unique("publisher")).open();
    publisher.publish(&Publish::new(topic, "x"));
    publisher.publish(&Publish::new(&marker, "x"));
    loop {
        // Tests that run beside this one publish too.
        match client.message().topic {
            reached if reached == marker => return false,
            reached if reached == topic => return true,
            _ => {}
        }
    }
}

#[test]
fn wildcards_match_as_the_specification_s_examples_say() {
    for version in BOTH {
        let t = unique("sport");
        for (filter, topic) in [
            ("tennis/player1/#", "tennis/player1"),
            ("tennis/player1/#", "tennis/player1/ranking"),
            ("tennis/player1/#", "tennis/player1/score/wimbledon"),
            ("#", "any/thing"),
            ("tennis/+", "tennis/player1"),
            ("+", ""),
            ("tennis/+/+", "tennis//"),
            ("+/tennis/#", "a/tennis"),
        ] {
            assert!(matches(version, &format!("{t}/{filter}"), &format!("{t}/{topic}")), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("tennis/+", "tennis/player1/ranking"),
            ("tennis/+", "tennis"),
            ("tennis/player1/#", "tennis/player2"),
            ("+", "a/b"),
        ] {
            assert!(!matches(version, &format!("{t}/{filter}"), &format!("{t}/{topic}")), "{filter} {topic}");
        }
        assert!(matches(version, "+/+", &format!("/{t}")));
        assert!(matches(version, "/+", &format!("/{t}")));
        assert!(!matches(version, "+", &format!("/{t}")));
        assert!(matches(version, "#", &t));
    }
}

#[test]
fn a_leading_wildcard_does_not_match_a_topic_that_begins_with_a_dollar() {
    for version in BOTH {
        let t = unique("$own");
        for filter in ["#", "+", "+/a", "+/#", "/#"] {
            assert!(!matches(version, filter, &format!("{t}/a")), "{filter}");
        }
        assert!(matches(version, &format!("{t}/+"), &format!("{t}/a")));
        assert!(matches(version, &format!("{t}/#"), &format!("{t}/a")));
    }
}

#[test]
fn topics_are_compared_without_normalization() {
    for version in BOTH {
        let t = unique("topic");
        for (filter, topic) in [
            ("a", "A"),
            ("\u{e9}", "e\u{301}"),
            ("a", "a/"),
            ("a", "/a"),
            ("a b", "a  b"),
            ("\u{feff}a", "a"),
            ("a", "\u{feff}a"),
        ] {
            assert!(!matches(version, &format!("{t}/{filter}"), &format!("{t}/{topic}")), "{filter} {topic}");
        }
        for topic in ["\u{feff}a", "\u{10fffd}", "\u{fffd}", " ", "\u{feff}", "a\u{feff}b", "\u{1f600}"] {
            assert!(matches(version, &format!("{t}/{topic}"), &format!("{t}/{topic}")), "{topic}");
        }
        assert!(matches(version, &format!("\u{feff}{t}"), &format!("\u{feff}{t}")));
    }
}

#[test]
fn every_string_of_a_publish_and_a_subscribe_is_utf8_without_nul() {
    for version in BOTH {
        let own = if version == Version::V5 { vec![0] } else { vec![] };
        for bad in [&b"\xed\xa0\x80"[..], b"\xed\xbf\xbf", b"\xc0\x80", b"\xff", b"a\0b", b"\xf4\x90\x80\x80"]
        {
            let bad = write::binary(bad);
            for bytes in [
                write::packet(0x30, &[bad.clone(), own.clone(), b"x".to_vec()].concat()),
                write::packet(0x82, &[vec![0, 1], own.clone(), bad.clone(), vec![0]].concat()),
                write::packet(0xa2, &[vec![0, 1], own.clone(), bad.clone()].concat()),
            ] {
                let mut client = Connect::new(version, &unique("utf8")).open();
                client.send(&bytes);
                client.expect_closed_with(0x81);
            }
        }
    }
}

#[test]
fn a_topic_may_have_200_levels() {
    for version in BOTH {
        let t = format!("{}{}", unique("deep"), "/".repeat(199));
        assert!(matches(version, &t, &t));
    }
}

#[test]
fn a_topic_name_has_no_wildcards_and_at_least_one_character() {
    for version in BOTH {
        for topic in ["a/#", "a/+/b", "#", "+", "a+"] {
            for qos in 0..3 {
                let mut client = Connect::new(version, &unique("name")).open();
                client.send(&Publish::new(topic, "x").qos(qos, 1).bytes(version));
                client.expect_closed_with(0x81);
            }
        }
        let mut client = Connect::new(version, &unique("name")).open();
        client.send(&Publish::new("", "x").bytes(version));
        client.expect_closed_with(if version == Version::V5 { 0x82 } else { 0x81 });
    }
}
