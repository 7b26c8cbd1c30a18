//! CONNECT and CONNACK.

use crate::support::client::{Client, unique};
use crate::support::connect::{Connect, Will};
use crate::support::packet::{BOTH, Packet, Version};
use crate::support::write::{
    ASSIGNED_CLIENT_IDENTIFIER, AUTHENTICATION_METHOD, MAXIMUM_QOS, PINGREQ, PUBACK, Publish,
    REQUEST_RESPONSE_INFORMATION, RESPONSE_INFORMATION, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE, byte, text,
};

#[test]
fn a_connect_is_answered_by_one_connack_before_anything_else() {
    for version in BOTH {
        let connect = Connect::new(version, &unique("one")).lasting();
        let mut client = connect.open();
        let topic = unique("first");
        client.subscribe(&topic, 1);
        drop(client);
        Connect::new(version, &unique("publisher")).open().publish(&Publish::new(&topic, "x").qos(1, 1));
        // `open` takes nothing but a CONNACK for the first packet.
        let mut client = connect.open();
        assert_eq!(client.take().text(), "x");
        client.expect_silence();
    }
}

#[test]
fn a_connack_tells_only_what_limits_the_client() {
    let (_, connack) = Connect::new(Version::V5, &unique("told")).attempt();
    let Packet::ConnAck { present: false, code: 0, properties } = connack else { panic!("{connack:?}") };
    // All of it is supported, and absent means just that.
    for property in [MAXIMUM_QOS, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE] {
        assert_eq!(properties.number(property), None, "{property:#x}");
    }
    for property in [ASSIGNED_CLIENT_IDENTIFIER, RESPONSE_INFORMATION, AUTHENTICATION_METHOD] {
        assert_eq!(properties.text(property), None, "{property:#x}");
    }
}

#[test]
fn response_information_is_for_those_who_ask() {
    for (asked, may_come) in [(0, false), (1, true)] {
        let connect = Connect::new(Version::V5, &unique("asks"));
        let (_, connack) = connect.property(&byte(REQUEST_RESPONSE_INFORMATION, asked)).attempt();
        let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
        assert!(may_come || properties.text(RESPONSE_INFORMATION).is_none());
    }
}

#[test]
fn both_versions_are_spoken_on_one_port() {
    let topic = unique("both");
    let mut subscribers = BOTH.map(|version| Connect::new(version, &unique("both")).open());
    for subscriber in &mut subscribers {
        subscriber.subscribe(&topic, 1);
    }
    for version in BOTH {
        Connect::new(version, &unique("both")).open().publish(&Publish::new(&topic, "x").qos(1, 1));
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.take().text(), "x");
        }
    }
}

#[test]
fn a_connect_may_come_byte_by_byte_and_with_more_behind_it() {
    for version in BOTH {
        let connect = Connect::new(version, &unique("bytes"));
        let mut client = Client::raw(version, connect.address);
        for byte in connect.bytes() {
            client.send(&[byte]);
        }
        assert!(matches!(client.next(), Packet::ConnAck { code: 0, .. }));

        let mut client = Client::raw(version, connect.address);
        let publish = Publish::new("t", "x").qos(1, 7).bytes(version);
        client.send(&[connect.bytes(), PINGREQ.to_vec(), publish].concat());
        assert!(matches!(client.next(), Packet::ConnAck { code: 0, .. }));
        assert_eq!(client.next(), Packet::PingResp);
        assert!(matches!(client.next(), Packet::Ack { kind: PUBACK, packet_id: 7, .. }));
    }
}

#[test]
fn the_fields_of_the_payload_are_read_in_their_order() {
    for version in BOTH {
        let topic = unique("order");
        let mut watcher = Connect::new(version, &unique("watcher")).open();
        watcher.subscribe(&topic, 0);
        let mut connect = Connect::new(version, &unique("order")).will(Will::new(&topic, "gone"));
        connect.username = Some("nobody".to_owned());
        connect.password = Some(b"\0\xffany bytes".to_vec());
        drop(connect.open());
        assert_eq!(watcher.take().text(), "gone");
    }
}

#[test]
fn a_client_identifier_of_1_to_23_letters_and_digits_is_allowed() {
    for version in BOTH {
        for client_id in ["0", "aZ9", "0123456789abcdefghijklm", "NOPQRSTUVWXYZnopqrstuvw"] {
            drop(Connect::new(version, client_id).open());
        }
    }
}

#[test]
fn an_empty_client_identifier_is_assigned_one_that_works() {
    let (mut first, connack) = Connect::new(Version::V5, "").attempt();
    let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
    let assigned = properties.text(ASSIGNED_CLIENT_IDENTIFIER).expect("assigned").to_owned();
    let (_second, connack) = Connect::new(Version::V5, "").attempt();
    let Packet::ConnAck { code: 0, properties, .. } = connack else { panic!("{connack:?}") };
    assert_ne!(properties.text(ASSIGNED_CLIENT_IDENTIFIER), Some(assigned.as_str()));
    first.expect_silence();
    // It is the identifier of that session: whoever uses it takes it over.
    drop(Connect::new(Version::V5, &assigned).open());
    first.expect_closed_with(0x8e);
}

#[test]
fn an_assigned_client_identifier_may_come_back_to_its_session() {
    let mut connect = Connect::new(Version::V5, "").lasting();
    let (client, connack) = connect.attempt();
    let Packet::ConnAck { present: false, code: 0, properties } = connack else { panic!("{connack:?}") };
    client.goodbye();
    properties.text(ASSIGNED_CLIENT_IDENTIFIER).expect("assigned").clone_into(&mut connect.client_id);
    assert!(connect.open().present);
}

#[test]
fn in_3_1_1_an_empty_client_identifier_needs_a_clean_session() {
    let mut connect = Connect::new(Version::V3, "");
    connect.open().goodbye();
    connect.clean = false;
    let (mut client, connack) = connect.attempt();
    assert!(matches!(connack, Packet::ConnAck { present: false, code: 2, .. }), "{connack:?}");
    client.expect_closed();
}

#[test]
fn a_client_identifier_that_is_refused_is_named_as_the_reason() {
    for (version, code) in [(Version::V3, 2), (Version::V5, 0x85)] {
        let (mut client, connack) = Connect::new(version, &"x".repeat(60_000)).attempt();
        let Packet::ConnAck { present: false, code: refused, .. } = connack else { panic!("{connack:?}") };
        assert_eq!(refused, code);
        client.expect_closed();
    }
}

#[test]
fn what_follows_a_refused_connect_is_not_processed() {
    for version in BOTH {
        let topic = unique("refused");
        let mut watcher = Connect::new(version, &unique("watcher")).open();
        watcher.subscribe(&topic, 0);
        let connect = Connect::new(version, &"x".repeat(60_000));
        let mut client = Client::raw(version, connect.address);
        client.send(&[connect.bytes(), Publish::new(&topic, "x").bytes(version)].concat());
        assert!(matches!(client.next(), Packet::ConnAck { code: 1.., .. }));
        client.expect_closed();
        watcher.expect_silence();
    }
}

#[test]
fn a_client_identifier_in_use_is_taken_over() {
    for version in BOTH {
        let connect = Connect::new(version, &unique("taken"));
        let mut first = connect.open();
        let mut second = connect.open();
        first.expect_closed_with(0x8e);
        second.expect_silence();
    }
}

#[test]
fn a_session_is_taken_over_with_what_it_holds() {
    for version in BOTH {
        let topic = unique("taken");
        let connect = Connect::new(version, &unique("taken")).lasting();
        let mut first = connect.open();
        first.subscribe(&topic, 1);
        let mut second = connect.open();
        assert!(second.present);
        first.expect_closed_with(0x8e);
        Connect::new(version, &unique("publisher")).open().publish(&Publish::new(&topic, "x").qos(1, 1));
        assert_eq!(second.take().text(), "x");
    }
}

#[test]
fn an_authentication_method_that_is_not_known_is_refused() {
    let connect = Connect::new(Version::V5, &unique("method"));
    let (mut client, connack) = connect.property(&text(AUTHENTICATION_METHOD, "no such method")).attempt();
    assert!(matches!(connack, Packet::ConnAck { present: false, code: 0x8c, .. }), "{connack:?}");
    client.expect_closed();
}

#[test]
fn in_an_open_tenant_a_user_name_that_names_no_tenant_is_as_good_as_none() {
    for version in BOTH {
        let mut connect = Connect::new(version, &unique("named"));
        connect.username = Some(String::new());
        connect.open().goodbye();
        connect.username = Some("user".to_owned());
        connect.open().goodbye();
        connect.password = Some(b"secret".to_vec());
        connect.open().goodbye();
    }
}
