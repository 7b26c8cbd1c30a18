//! Will Messages.

use crate::support::client::{Client, unique};
use crate::support::connect::{Connect, Will};
use crate::support::packet::{BOTH, Version};
use crate::support::write::{
    CONTENT_TYPE, CORRELATION_DATA, DISCONNECT, MESSAGE_EXPIRY_INTERVAL, PAYLOAD_FORMAT_INDICATOR, Publish,
    RESPONSE_TOPIC, byte, data, disconnect_with, four_bytes, text, user_property,
};

fn watcher(version: Version, topic: &str) -> Client {
    let mut watcher = Connect::new(version, &unique("watcher")).open();
    watcher.subscribe(topic, 2);
    watcher
}

#[test]
fn a_will_is_published_when_the_connection_is_lost_with_its_qos_and_retain() {
    for version in BOTH {
        for qos in 0..3 {
            for retain in [false, true] {
                let topic = unique("lost");
                let mut watcher = watcher(version, &topic);
                let will = Will { qos, retain, ..Will::new(&topic, "gone") };
                drop(Connect::new(version, &unique("lost")).will(will).open());
                let message = watcher.take();
                assert_eq!((message.text(), message.qos, message.retain), ("gone", qos, false));
                let mut later = Connect::new(version, &unique("later")).open();
                later.subscribe(&topic, 2);
                if retain {
                    let message = later.take();
                    assert_eq!((message.text(), message.qos, message.retain), ("gone", qos, true));
                }
                later.expect_silence();
            }
        }
    }
}

#[test]
fn a_will_is_discarded_when_the_client_says_goodbye() {
    for version in BOTH {
        let topic = unique("goodbye");
        let mut watcher = watcher(version, &topic);
        let connect = Connect::new(version, &unique("goodbye")).lasting();
        connect.clone().will(Will::new(&topic, "gone")).open().goodbye();
        // Nor does it come when the session is taken up and lost without one.
        drop(connect.open());
        connect.open().goodbye();
        watcher.expect_silence();
    }
}

#[test]
fn a_will_is_published_once() {
    for version in BOTH {
        let topic = unique("once");
        let mut watcher = watcher(version, &topic);
        let connect = Connect::new(version, &unique("once")).lasting();
        drop(connect.clone().will(Will::new(&topic, "gone")).open());
        assert_eq!(watcher.take().text(), "gone");
        drop(connect.open());
        connect.open().goodbye();
        watcher.expect_silence();
    }
}

#[test]
fn without_a_will_nothing_is_published() {
    for version in BOTH {
        let topic = unique("none");
        let mut watcher = watcher(version, &topic);
        drop(Connect::new(version, &unique("none")).open());
        watcher.expect_silence();
    }
}

#[test]
fn a_disconnect_with_a_reason_but_success_publishes_the_will() {
    for code in [0x04, 0x80, 0x81, 0x93] {
        let topic = unique("reason");
        let mut watcher = watcher(Version::V5, &topic);
        let mut client = Connect::new(Version::V5, &unique("reason")).will(Will::new(&topic, "gone")).open();
        client.send(&disconnect_with(code, &[]));
        client.expect_closed();
        assert_eq!(watcher.take().text(), "gone");
    }
}

#[test]
fn a_protocol_error_publishes_the_will() {
    for version in BOTH {
        let topic = unique("error");
        let mut watcher = watcher(version, &topic);
        let mut client = Connect::new(version, &unique("error")).will(Will::new(&topic, "gone")).open();
        client.send(&[0xf1, 0]);
        client.expect_closed_with(if version == Version::V5 { 0x81 } else { 0 });
        assert_eq!(watcher.take().text(), "gone");
    }
}

#[test]
fn a_connection_taken_over_publishes_its_will() {
    for version in BOTH {
        let topic = unique("taken");
        let mut watcher = watcher(version, &topic);
        let connect = Connect::new(version, &unique("taken"));
        let _first = connect.clone().will(Will::new(&topic, "gone")).open();
        let _second = connect.open();
        assert_eq!(watcher.take().text(), "gone");
    }
}

#[test]
fn a_will_carries_its_properties_in_order() {
    let topic = unique("properties");
    let mut watcher = watcher(Version::V5, &topic);
    let mut will = Will::new(&topic, "gone");
    will.properties = [
        byte(PAYLOAD_FORMAT_INDICATOR, 1),
        four_bytes(MESSAGE_EXPIRY_INTERVAL, 60),
        text(CONTENT_TYPE, "text/plain"),
        text(RESPONSE_TOPIC, "answer/here"),
        data(CORRELATION_DATA, &[0, 1, 255]),
        user_property("b", "1"),
        user_property("a", "2"),
        user_property("b", "1"),
    ]
    .concat();
    drop(Connect::new(Version::V5, &unique("properties")).will(will).open());
    let properties = watcher.take().properties;
    assert_eq!(properties.number(PAYLOAD_FORMAT_INDICATOR), Some(1));
    assert!((58..=60).contains(&properties.number(MESSAGE_EXPIRY_INTERVAL).expect("it expires")));
    assert_eq!(properties.text(CONTENT_TYPE), Some("text/plain"));
    assert_eq!(properties.text(RESPONSE_TOPIC), Some("answer/here"));
    assert_eq!(properties.data(CORRELATION_DATA), Some(&[0, 1, 255][..]));
    assert_eq!(properties.pairs(), [("b", "1"), ("a", "2"), ("b", "1")]);
}

#[test]
fn an_empty_will_is_a_message_like_any_other() {
    for version in BOTH {
        let topic = unique("empty");
        let mut watcher = watcher(version, &topic);
        Connect::new(version, &unique("publisher"))
            .open()
            .publish(&Publish::new(&topic, "old").qos(1, 1).retain());
        assert_eq!(watcher.take().text(), "old");
        let will = Will { retain: true, ..Will::new(&topic, "") };
        drop(Connect::new(version, &unique("empty")).will(will).open());
        assert_eq!(watcher.take().text(), "");
        let mut later = Connect::new(version, &unique("later")).open();
        later.subscribe(&topic, 1);
        later.expect_silence();
    }
}

#[test]
fn a_goodbye_counts_although_the_client_is_back_at_once() {
    for version in BOTH {
        let topic = unique("back");
        let mut watcher = watcher(version, &topic);
        let connect = Connect::new(version, &unique("back")).lasting().will(Will::new(&topic, "gone"));
        for _ in 0..30 {
            let mut client = connect.open();
            client.send(&[Publish::new(&topic, "alive").bytes(version), DISCONNECT.to_vec()].concat());
            drop(client);
            assert_eq!(watcher.take().text(), "alive");
        }
        connect.open().goodbye();
        watcher.expect_silence();
    }
}
