//! What the broker does not take, and what it says.

use sotto_model::QoS;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, Phone};

on_both_stores!(who_is_not_a_member_is_refused_and_it_is_written_down);

async fn who_is_not_a_member_is_refused_and_it_is_written_down(kind: Kind) {
    let house = House::open(kind).await;
    let conversation = house.add_conversation(&["bob", "carol"]).await;
    let topic = format!("c/{conversation}/m");
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    bob.subscribe(&topic, QoS::AtLeastOnce).await;

    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    assert_eq!(alice.subscribe(&topic, QoS::AtLeastOnce).await, 0x87);
    let packet_id = alice.send_publish(&topic, b"from outside", QoS::AtLeastOnce).await;
    alice.expect(Heard::PubAck(packet_id, ReasonCode::NotAuthorized)).await;
    let packet_id = alice.send_publish(&topic, b"from outside", QoS::ExactlyOnce).await;
    alice.expect(Heard::PubRec(packet_id, ReasonCode::NotAuthorized)).await;
    alice.publish(&topic, b"from outside", QoS::AtMostOnce).await;
    alice.ping().await;
    for foreign in ["#", "+/+/m", "$share/g/c/+/m", "u/4d3c2b1a-0000-4000-8000-000000000000/m", "$SYS/#"] {
        assert!(alice.subscribe(foreign, QoS::AtLeastOnce).await >= 0x80, "{foreign}");
    }

    let mut old = Login::of(&house, "alice", "old phone".replace(' ', "-").as_str()).v3();
    old = old.clean_start();
    let mut alice = old.connect(&house).await;
    // [MQTT-3.9.3-2]
    assert_eq!(alice.subscribe(&topic, QoS::AtLeastOnce).await, 0x80);
    alice.send_publish(&topic, b"from outside", QoS::AtLeastOnce).await;
    // [MQTT-3.3.5-2]
    assert_eq!(alice.next().await, Heard::Closed);
    let mut alice = old.connect(&house).await;
    alice.publish(&topic, b"from outside", QoS::AtMostOnce).await;
    assert_eq!(alice.next().await, Heard::Closed);

    let mut carol = Login::of(&house, "carol", "phone").connect(&house).await;
    carol.publish(&topic, b"from inside", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "from inside");

    let users = house.sotto(&["user", "list", "--tenant", "demo"]).await;
    let users = users.as_array().expect("rows").clone();
    let alice = users.iter().find(|row| row["user"] == "alice").expect("alice")["id"].clone();
    until("the refusals are written down", async || {
        let rows = house.sotto(&["audit", "--tenant", "demo"]).await;
        let rows = rows.as_array().expect("rows").clone();
        let refused = |action: &str| {
            let of = |row: &&serde_json::Value| {
                row["action"] == action
                    && row["actor"] == alice
                    && row["resource"] == conversation
                    && row["allowed"] == false
            };
            rows.iter().filter(of).count()
        };
        refused("publish.denied") == 5 && refused("subscribe.denied") == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_user_are_told_the_same() {
    let house = House::open(Kind::Sqlite).await;
    let (password, wrong) = (house.password("alice"), "wrong".to_owned());
    for (username, client_id, password) in [
        ("alice@demo", "alice/phone", &wrong),
        ("nobody@demo", "nobody/phone", &password),
        ("alice@nowhere", "alice/phone", &password),
        ("alice", "alice/phone", &password),
        ("", "alice/phone", &password),
        ("bob@demo", "bob/phone", &password),
    ] {
        let login = Login::with(username, client_id, password);
        let refused = login.clone().v3().try_connect(&house).await;
        assert_eq!(refused.err(), Some(ReasonCode::BadUserNameOrPassword), "{username}");
        let refused = login.try_connect(&house).await;
        assert_eq!(refused.err(), Some(ReasonCode::BadUserNameOrPassword), "{username}");
    }
    until("the refusals are written down", async || {
        let rows = house.sotto(&["audit", "--limit", "1000"]).await;
        let rows = rows.as_array().expect("rows").clone();
        rows.iter().filter(|row| row["action"] == "connect.refused").count() == 12
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_mqtt_are_closed_without_a_word() {
    let house = House::open(Kind::Sqlite).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
        &[0xFF; 64],
        &[0x00; 64],
        // PINGREQ, and PUBLISH, before CONNECT.
        &[0xC0, 0x00],
        &[0x30, 0x03, 0x00, 0x01, b'a'],
        // CONNECT of a length that has no end.
        &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        // CONNECT of another protocol.
        &[0x10, 0x0C, 0x00, 0x04, b'H', b'T', b'T', b'P', 4, 2, 0, 60, 0, 0],
    ] {
        let mut phone = Phone::silent(&house, Version::V5).await;
        phone.send_bytes(garbage).await;
        assert_eq!(phone.next().await, Heard::Closed, "{garbage:?}");
    }
    // Not even TLS.
    let mut plain = tokio::net::TcpStream::connect(house.mqtts()).await.expect("connect");
    tokio::io::AsyncWriteExt::write_all(&mut plain, &[0x10; 512]).await.expect("write");
    until_closed(&mut plain).await;
    Login::of(&house, "alice", "phone").connect(&house).await.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_that_breaks_a_rule_is_told_why_in_its_version() {
    let house = House::open(Kind::Sqlite).await;
    let v3 = |flags: u8, rest: &[u8]| [&[0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 60][..], rest].concat();
    let v5 = |flags: u8, rest: &[u8]| [&[0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60][..], rest].concat();
    for (body, version, reason) in [
        // The reserved flag. [MQTT-3.1.2-3]
        (v5(0x03, &[0, 0, 1, b'a']), Version::V5, None),
        // A will of QoS 3. [MQTT-3.1.2-12]
        (v5(0x1E, &[0, 0, 1, b'a', 0, 0, 1, b't', 0, 0]), Version::V5, None),
        // Receive Maximum twice.
        (v5(0x02, &[6, 0x21, 0, 9, 0x21, 0, 9, 0, 1, b'a']), Version::V5, Some(ReasonCode::ProtocolError)),
        // Receive Maximum of 0.
        (v5(0x02, &[3, 0x21, 0, 0, 0, 1, b'a']), Version::V5, Some(ReasonCode::ProtocolError)),
        // The client identifier is not UTF-8.
        (v5(0x02, &[0, 0, 1, 0xFF]), Version::V5, None),
        // An authentication method that nobody knows.
        (
            v5(0x02, &[4, 0x15, 0, 1, b'x', 0, 1, b'a']),
            Version::V5,
            Some(ReasonCode::BadAuthenticationMethod),
        ),
        // In 3.1.1 nothing is said of a packet that breaks a rule, in version 5 of one that cannot be read.
        (v3(0x03, &[0, 1, b'a']), Version::V3, None),
        // No client identifier, and a session that is to last. [MQTT-3.1.3-8]
        (v3(0x00, &[0, 0]), Version::V3, Some(ReasonCode::ClientIdentifierNotValid)),
        // MQTT 3.1, which named itself otherwise.
        (
            [&[0, 6], &b"MQIsdp"[..], &[3, 2, 0, 60, 0, 1, b'a']].concat(),
            Version::V3,
            Some(ReasonCode::UnsupportedProtocolVersion),
        ),
        // Protocol level 6. [MQTT-3.1.2-2]
        (
            vec![0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 60, 0, 0, 1, b'a'],
            Version::V3,
            Some(ReasonCode::UnsupportedProtocolVersion),
        ),
    ] {
        let mut phone = Phone::silent(&house, version).await;
        let len = u8::try_from(body.len()).expect("short");
        phone.send_bytes(&[&[0x10, len], &body[..]].concat()).await;
        let mut heard = phone.next().await;
        if let Some(reason) = reason {
            assert_eq!(heard, Heard::ConnAck { present: false, reason }, "{body:?}");
            heard = phone.next().await;
        }
        assert_eq!(heard, Heard::Closed, "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_the_protocol_is_told_why_and_closed() {
    let house = House::open(Kind::Sqlite).await;
    let login = Login::of(&house, "alice", "phone");
    let mut connect = Vec::new();
    login.packet().encode(Version::V5, &mut connect);
    let mut alias = Vec::new();
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"",
    };
    Packet::Publish(publish).encode(Version::V5, &mut alias);
    for (bytes, reason) in [
        // A second CONNECT. [MQTT-3.1.0-2]
        (&connect[..], ReasonCode::ProtocolError),
        // A PUBLISH without topic and alias.
        (&alias[..], ReasonCode::ProtocolError),
        // A PUBLISH of QoS 3. [MQTT-3.3.1-4]
        (&[0x36, 0x06, 0, 1, b'a', 0, 1, 0][..], ReasonCode::MalformedPacket),
        // A packet that only a server sends.
        (&[0xD0, 0x00][..], ReasonCode::ProtocolError),
        // Type 0.
        (&[0x00, 0x00][..], ReasonCode::ProtocolError),
        // SUBSCRIBE without a filter. [MQTT-3.8.3-2]
        (&[0x82, 0x03, 0, 1, 0][..], ReasonCode::ProtocolError),
        // SUBSCRIBE with wrong flags. [MQTT-3.8.1-1]
        (&[0x80, 0x07, 0, 1, 0, 0, 1, b'a', 0][..], ReasonCode::MalformedPacket),
    ] {
        let mut phone = login.connect(&house).await;
        phone.send_bytes(bytes).await;
        assert_eq!(phone.next().await, Heard::Disconnect(reason), "{bytes:?}");
        assert_eq!(phone.next().await, Heard::Closed, "{bytes:?}");
        let mut phone = login.clone().v3().connect(&house).await;
        phone.send_bytes(bytes).await;
        assert_eq!(phone.next().await, Heard::Closed, "{bytes:?}");
    }
}

async fn until_closed(stream: &mut tokio::net::TcpStream) {
    let mut said = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(stream, &mut said);
    // A reset is an end too.
    let _ = crate::support::patience::soon("the end of the connection", read).await;
}
