//! SUBSCRIBE, UNSUBSCRIBE and the options of a subscription.

use crate::support::client::unique;
use crate::support::connect::Connect;
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{self, PUBACK, Publish, SUBSCRIPTION_IDENTIFIER, ack, subscription_identifier};

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

#[test]
fn a_suback_has_the_subscribe_s_identifier_and_a_code_a_filter_in_order() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("codes")).open();
        let filters = [("a", 2), ("b/+", 0), ("c/#", 1), ("a", 0)];
        for packet_id in [1, 0x1234, 0xffff] {
            client.send(&write::subscribe(version, packet_id, &[], &filters));
            assert_eq!(client.next(), Packet::SubAck { packet_id, codes: vec![2, 0, 1, 0] });
        }
    }
}

#[test]
fn an_unsuback_has_the_unsubscribe_s_identifier_and_in_version_5_a_code_a_filter_in_order() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("codes")).open();
        client.try_subscribe(&[], &[("a/b", 0), ("a/+", 0)]);
        client.send(&write::unsubscribe(version, 0x1234, &["none", "a/+", "a/c", "a/b", "a/b"]));
        let codes = if version == Version::V5 { vec![0x11, 0, 0x11, 0, 0x11] } else { vec![] };
        assert_eq!(client.next(), Packet::UnsubAck { packet_id: 0x1234, codes });
    }
}

#[test]
fn filters_of_one_subscribe_are_handled_as_if_they_came_one_by_one() {
    for version in BOTH {
        let topic = unique("sequence");
        let mut client = Connect::new(version, &unique("sequence")).open();
        // The last of the same filters is the one that holds.
        client.try_subscribe(&[], &[(&topic, 0), (&topic, 2), (&topic, 1)]);
        Connect::new(version, &unique("publisher")).open().publish(&Publish::new(&topic, "x").qos(2, 1));
        assert_eq!(client.take().qos, 1);
        client.expect_silence();
        client.unsubscribe(&[&topic, &topic]);
        Connect::new(version, &unique("publisher")).open().publish(&Publish::new(&topic, "x").qos(2, 1));
        client.expect_silence();
    }
}

#[test]
fn a_subscription_to_the_same_filter_replaces_the_one_before() {
    for version in BOTH {
        let topic = unique("replaced");
        let mut client = Connect::new(version, &unique("replaced")).open();
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        for qos in [2, 0, 1] {
            client.subscribe(&topic, qos);
            publisher.publish(&Publish::new(&topic, "x").qos(2, 1));
            assert_eq!(client.take().qos, qos);
            client.expect_silence();
        }
    }
}

#[test]
fn a_replaced_subscription_has_its_new_options_alone() {
    let topic = unique("options");
    let mut client = Connect::new(Version::V5, &unique("options")).open();
    client.subscribe_with(&subscription_identifier(5), &topic, 1 | NO_LOCAL);
    client.send(&Publish::new(&topic, "mine").qos(1, 1).bytes(Version::V5));
    assert!(matches!(client.next(), Packet::Ack { kind: PUBACK, .. }));
    client.subscribe(&topic, 0);
    client.send(&Publish::new(&topic, "mine too").bytes(Version::V5));
    let message = client.take();
    assert_eq!((message.text(), message.properties.number(SUBSCRIPTION_IDENTIFIER)), ("mine too", None));
}

#[test]
fn unsubscribing_compares_filters_character_by_character() {
    for version in BOTH {
        let topic = unique("exact");
        let mut client = Connect::new(version, &unique("exact")).open();
        client.subscribe(&format!("{topic}/+"), 0);
        client.unsubscribe(&[&format!("{topic}/#"), &format!("{topic}/a"), &format!("{topic}/+/")]);
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        publisher.publish(&Publish::new(&format!("{topic}/a"), "x"));
        assert_eq!(client.take().text(), "x");
        client.unsubscribe(&[&format!("{topic}/+")]);
        publisher.publish(&Publish::new(&format!("{topic}/a"), "x"));
        client.expect_silence();
    }
}

#[test]
fn what_was_being_sent_when_the_subscription_ended_is_seen_through() {
    for version in BOTH {
        let topic = unique("through");
        let connect = Connect::new(version, &unique("through")).lasting();
        let mut client = connect.open();
        client.subscribe(&topic, 2);
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        publisher.publish(&Publish::new(&topic, "x").qos(2, 1));
        let first = client.message();
        client.unsubscribe(&[&topic]);
        drop(client);
        let mut client = connect.open();
        let again = client.take();
        assert_eq!((again.text(), again.packet_id, again.dup), ("x", first.packet_id, true));
        publisher.publish(&Publish::new(&topic, "y").qos(2, 2));
        client.expect_silence();
    }
}

#[test]
fn overlapping_subscriptions_deliver_at_the_highest_qos() {
    for version in BOTH {
        let topic = unique("overlap");
        let mut client = Connect::new(version, &unique("overlap")).open();
        let (all, one) = (format!("{topic}/#"), format!("{topic}/+"));
        client.try_subscribe(&[], &[(&all, 1), (&one, 2), (&format!("{topic}/a"), 0)]);
        let mut publisher = Connect::new(version, &unique("publisher")).open();
        publisher.publish(&Publish::new(&format!("{topic}/a"), "x").qos(2, 1));
        assert_eq!(client.take().qos, 2);
        client.expect_silence();
    }
}

#[test]
fn a_message_carries_the_identifiers_of_all_subscriptions_that_it_matches() {
    let topic = unique("identifiers");
    let mut client = Connect::new(Version::V5, &unique("identifiers")).open();
    let (all, one) = (format!("{topic}/#"), format!("{topic}/+"));
    client.subscribe_with(&subscription_identifier(1), &all, 0);
    client.subscribe_with(&subscription_identifier(0x0fff_ffff), &one, 1);
    client.subscribe(&format!("{topic}/a"), 0);
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&format!("{topic}/a"), "x").qos(1, 1));
    assert_eq!(client.take().properties.numbers(SUBSCRIPTION_IDENTIFIER), [1, 0x0fff_ffff]);
    publisher.publish(&Publish::new(&topic, "x").qos(1, 2));
    assert_eq!(client.take().properties.numbers(SUBSCRIPTION_IDENTIFIER), [1]);
}

#[test]
fn a_subscription_identifier_is_part_of_the_session() {
    let topic = unique("kept");
    let connect = Connect::new(Version::V5, &unique("kept")).lasting();
    let mut client = connect.open();
    client.subscribe_with(&subscription_identifier(77), &topic, 1);
    client.goodbye();
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    publisher.publish(&Publish::new(&topic, "x").qos(1, 1));
    assert_eq!(connect.open().take().properties.numbers(SUBSCRIPTION_IDENTIFIER), [77]);
}

#[test]
fn retained_messages_carry_the_identifier_of_the_subscription_that_fetched_them() {
    let topic = unique("fetched");
    let mut client = Connect::new(Version::V5, &unique("fetched")).open();
    client.publish(&Publish::new(&topic, "x").qos(1, 1).retain());
    client.subscribe_with(&subscription_identifier(9), &topic, 0);
    assert_eq!(client.take().properties.numbers(SUBSCRIPTION_IDENTIFIER), [9]);
}

#[test]
fn no_local_holds_back_a_client_s_own_messages_alone() {
    let topic = unique("local");
    let mut client = Connect::new(Version::V5, &unique("local")).open();
    let mut other = Connect::new(Version::V5, &unique("other")).open();
    client.subscribe(&topic, 2 | NO_LOCAL);
    for qos in 0..3 {
        client.publish(&Publish::new(&topic, "mine").qos(qos, 1));
        client.expect_silence();
        other.publish(&Publish::new(&topic, "theirs").qos(qos, 1));
        assert_eq!(client.take().text(), "theirs");
    }
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut client = Connect::new(Version::V5, &unique("shared")).open();
    client.send(&write::subscribe(Version::V5, 1, &[], &[("$share/group/t", NO_LOCAL)]));
    client.expect_closed_with(0x82);
}

#[test]
fn retain_is_told_as_published_where_the_subscription_says_so() {
    let topic = unique("published");
    let mut publisher = Connect::new(Version::V5, &unique("publisher")).open();
    for (options, told) in [(1, false), (1 | RETAIN_AS_PUBLISHED, true)] {
        let mut client = Connect::new(Version::V5, &unique("published")).open();
        client.subscribe(&topic, options);
        publisher.publish(&Publish::new(&topic, "").qos(1, 1).retain());
        assert_eq!(client.take().retain, told);
        publisher.publish(&Publish::new(&topic, "x").qos(1, 1));
        assert!(!client.take().retain);
    }
}

#[test]
fn a_subscribe_needs_a_filter_and_an_unsubscribe_too() {
    for version in BOTH {
        let own = if version == Version::V5 { vec![0, 1, 0] } else { vec![0, 1] };
        for first in [0x82, 0xa2] {
            let mut client = Connect::new(version, &unique("empty")).open();
            client.send(&write::packet(first, &own));
            client.expect_closed_with(0x82);
        }
    }
}

#[test]
fn reserved_bits_of_subscription_options_are_refused() {
    for version in BOTH {
        let bad: &[(u8, u8)] = match version {
            Version::V3 => &[(3, 0x81), (4, 0x81), (0x10, 0x81), (0x80, 0x81)],
            Version::V5 => &[(3, 0x82), (0x30, 0x82), (0x40, 0x81), (0x80, 0x81)],
        };
        for (options, code) in bad {
            let mut client = Connect::new(version, &unique("options")).open();
            client.send(&write::subscribe(version, 1, &[], &[("t", *options)]));
            client.expect_closed_with(*code);
        }
    }
}

#[test]
fn the_fixed_headers_of_subscribe_unsubscribe_and_pubrel_are_0010() {
    for version in BOTH {
        for kind in [0x80, 0xa0, 0x60] {
            for flags in (0..16).filter(|flags| *flags != 2) {
                let mut client = Connect::new(version, &unique("flags")).open();
                client.send(&[kind | flags, 2, 0, 1]);
                client.expect_closed_with(0x81);
            }
        }
    }
}

#[test]
fn a_packet_identifier_of_0_is_refused() {
    for version in BOTH {
        let own = if version == Version::V5 { vec![0] } else { vec![] };
        let filter = [own.clone(), write::string("t"), vec![0]].concat();
        for bytes in [
            write::packet(0x82, &[vec![0, 0], filter].concat()),
            write::packet(0xa2, &[vec![0, 0], own, write::string("t")].concat()),
            Publish::new("t", "x").qos(1, 0).bytes(version),
            Publish::new("t", "x").qos(2, 0).bytes(version),
        ] {
            let mut client = Connect::new(version, &unique("zero")).open();
            client.send(&bytes);
            client.expect_closed_with(0x82);
        }
    }
}

#[test]
fn a_subscription_identifier_of_0_or_two_of_them_are_refused() {
    let two = [subscription_identifier(1), subscription_identifier(2)].concat();
    for properties in [subscription_identifier(0), two] {
        let mut client = Connect::new(Version::V5, &unique("identifier")).open();
        client.send(&write::subscribe(Version::V5, 1, &properties, &[("t", 0)]));
        client.expect_closed_with(0x82);
    }
}

#[test]
fn a_message_goes_on_being_acknowledged_after_its_subscription_is_gone() {
    for version in BOTH {
        let topic = unique("gone");
        let mut client = Connect::new(version, &unique("gone")).open();
        client.subscribe(&topic, 1);
        Connect::new(version, &unique("publisher")).open().publish(&Publish::new(&topic, "x").qos(1, 1));
        let message = client.message();
        client.unsubscribe(&[&topic]);
        client.send(&ack(PUBACK, message.packet_id));
        client.expect_silence();
    }
}

#[test]
fn a_filter_that_cannot_be_one_is_a_malformed_packet() {
    for version in BOTH {
        for filter in ["", "a#", "a/#/b", "#/a", "a+", "a/+b", "##"] {
            for unsubscribes in [false, true] {
                let mut client = Connect::new(version, &unique("filter")).open();
                client.send(&if unsubscribes {
                    write::unsubscribe(version, 1, &["good", filter])
                } else {
                    write::subscribe(version, 1, &[], &[("good", 0), (filter, 0)])
                });
                client.expect_closed_with(0x81);
            }
        }
    }
}
