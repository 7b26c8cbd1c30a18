//! AUTH: signing in by SCRAM-SHA-256, and once more on a live connection.

use sotto_auth::testing::ScramClient;
use sotto_model::QoS;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{Auth, Disconnect, Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, Phone};

const METHOD: &str = "SCRAM-SHA-256";

on_both_stores!(a_client_and_the_broker_show_each_other_that_they_know_the_password);

async fn a_client_and_the_broker_show_each_other_that_they_know_the_password(kind: Kind) {
    let mut house = House::open(kind).await;
    let (topic, password) = (house.topic(), house.password("alice"));
    let mut alice = sign_in(&house, "alice@demo", &password, "alice/phone").await.expect("accepted");
    alice.subscribe(&topic, QoS::AtLeastOnce).await;
    alice.publish(&topic, b"heard", QoS::AtLeastOnce).await;
    assert_eq!(alice.receive().await.text(), "heard");

    let set = ["user", "password", "--tenant", "demo", "alice", "--password-file", "-"];
    house.sotto_reading("another horse", &set).await;
    let refused = sign_in(&house, "alice@demo", &password, "alice/tablet").await;
    assert_eq!(refused.err(), Some(ReasonCode::BadUserNameOrPassword));
    house.kill_and_start().await;
    assert!(sign_in(&house, "alice@demo", "another horse", "alice/tablet").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_the_password_is_refused_as_who_does_not_exist() {
    let house = House::open(Kind::Sqlite).await;
    let password = house.password("alice");
    for (username, password) in [
        ("alice@demo", "wrong"),
        ("nobody@demo", &password),
        ("alice@nowhere", &password),
        ("alice", &password),
    ] {
        let refused = sign_in(&house, username, password, "alice/phone").await;
        assert_eq!(refused.err(), Some(ReasonCode::BadUserNameOrPassword), "{username}");
    }
    let refused = sign_in(&house, "alice@demo", &password, "bob/phone").await;
    assert_eq!(refused.err(), Some(ReasonCode::ClientIdentifierNotValid));
    until("the refusals are written down", async || {
        let rows = house.sotto(&["audit"]).await;
        let rows = rows.as_array().expect("rows").clone();
        rows.iter().filter(|row| row["action"] == "connect.refused").count() == 5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_set_before_there_were_credentials_is_refused_the_method() {
    let house = House::open(Kind::Postgres).await;
    let password = house.password("alice");
    house
        .database
        .run("UPDATE users SET scram = NULL; UPDATE directory_revision SET revision = revision + 1");
    until("the broker has noticed", async || {
        let refused = sign_in(&house, "alice@demo", &password, "alice/phone").await.err();
        refused == Some(ReasonCode::BadAuthenticationMethod)
    })
    .await;
    Login::of(&house, "alice", "phone").connect(&house).await.ping().await;
    let set = ["user", "password", "--tenant", "demo", "alice", "--password-file", "-"];
    house.sotto_reading(&password, &set).await;
    assert!(sign_in(&house, "alice@demo", &password, "alice/phone").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_chooses_a_client_identifier_for_who_has_none() {
    let house = House::open(Kind::Sqlite).await;
    let mut alice = sign_in(&house, "alice@demo", &house.password("alice"), "").await.expect("accepted");
    alice.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_begins_with_the_client_is_asked_for_its_beginning() {
    let house = House::open(Kind::Sqlite).await;
    let client = ScramClient::new("alice@demo", &house.password("alice"), "nonce");
    let mut phone = Phone::silent(&house, Version::V5).await;
    let login = Login::anonymous("alice/phone").property(Property::AuthenticationMethod(METHOD));
    phone.send(&login.packet()).await;
    assert_eq!(phone.next().await, auth(ReasonCode::ContinueAuthentication, Vec::new()));
    send_auth(&mut phone, ReasonCode::ContinueAuthentication, METHOD, &client.client_first()).await;
    let answer = client.answer(&server_first(&mut phone).await);
    send_auth(&mut phone, ReasonCode::ContinueAuthentication, METHOD, &answer.client_final).await;
    assert!(matches!(phone.next().await, Heard::Authenticated { reason: ReasonCode::Success, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_that_cannot_be_is_refused() {
    let house = House::open(Kind::Sqlite).await;
    for (method, data, reason) in [
        ("SCRAM-SHA-1", &b"n,,n=alice@demo,r=x"[..], ReasonCode::BadAuthenticationMethod),
        ("scram-sha-256", b"n,,n=alice@demo,r=x", ReasonCode::BadAuthenticationMethod),
        (METHOD, b"n,,n=alice@demo", ReasonCode::NotAuthorized),
        (METHOD, b"\xFF\xFF", ReasonCode::NotAuthorized),
        // Channel binding is not offered.
        (METHOD, b"p=tls-exporter,,n=alice@demo,r=x", ReasonCode::NotAuthorized),
    ] {
        let mut phone = Phone::silent(&house, Version::V5).await;
        phone.send(&begin(method, data, "alice/phone").packet()).await;
        assert_eq!(phone.next().await, Heard::ConnAck { present: false, reason }, "{method} {data:?}");
        assert_eq!(phone.next().await, Heard::Closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_next_message_may_come_before_connack() {
    let house = House::open(Kind::Sqlite).await;
    let client = ScramClient::new("alice@demo", &house.password("alice"), "nonce");
    let begun = async || {
        let mut phone = Phone::silent(&house, Version::V5).await;
        phone.send(&begin(METHOD, &client.client_first(), "alice/phone").packet()).await;
        let answer = client.answer(&server_first(&mut phone).await);
        (phone, answer.client_final)
    };
    let (mut phone, heard) = begun().await;
    send_auth(&mut phone, ReasonCode::ContinueAuthentication, METHOD, &heard).await;
    assert!(matches!(phone.next().await, Heard::Authenticated { reason: ReasonCode::Success, .. }));

    // A replay is of another nonce.
    let (mut phone, _) = begun().await;
    send_auth(&mut phone, ReasonCode::ContinueAuthentication, METHOD, &heard).await;
    refused(&mut phone, ReasonCode::NotAuthorized).await;

    for (reason, method) in [
        (ReasonCode::ReAuthenticate, METHOD),
        (ReasonCode::Success, METHOD),
        (ReasonCode::ContinueAuthentication, "SCRAM-SHA-1"),
    ] {
        let (mut phone, client_final) = begun().await;
        send_auth(&mut phone, reason, method, &client_final).await;
        refused(&mut phone, ReasonCode::ProtocolError).await;
    }
    // [MQTT-3.1.2-30]
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: &house.topic(),
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"early",
    };
    let connect = begin(METHOD, &client.client_first(), "alice/phone");
    for early in [Packet::Publish(publish), Packet::PingReq, connect.packet()] {
        let (mut phone, _) = begun().await;
        phone.send(&early).await;
        refused(&mut phone, ReasonCode::ProtocolError).await;
    }
    let (mut phone, _) = begun().await;
    phone.send_bytes(&[0xF1, 0x00]).await;
    refused(&mut phone, ReasonCode::MalformedPacket).await;
    let (mut phone, _) = begun().await;
    let goodbye = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
    phone.send(&Packet::Disconnect(goodbye)).await;
    assert_eq!(phone.next().await, Heard::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_client_authenticates_once_more_while_messages_flow() {
    let house = House::open(Kind::Sqlite).await;
    let (topic, password) = (house.topic(), house.password("alice"));
    let mut alice = sign_in(&house, "alice@demo", &password, "alice/phone").await.expect("accepted");
    alice.subscribe(&topic, QoS::AtLeastOnce).await;
    let mut bob = Login::of(&house, "bob", "phone").connect(&house).await;
    for nonce in ["first", "second"] {
        let client = ScramClient::new("alice@demo", &password, nonce);
        send_auth(&mut alice, ReasonCode::ReAuthenticate, METHOD, &client.client_first()).await;
        let answer = client.answer(&server_first(&mut alice).await);
        alice.publish(&topic, b"to bob", QoS::AtLeastOnce).await;
        assert_eq!(alice.receive().await.text(), "to bob");
        bob.publish(&topic, b"to alice", QoS::AtLeastOnce).await;
        assert_eq!(alice.receive().await.text(), "to alice");
        send_auth(&mut alice, ReasonCode::ContinueAuthentication, METHOD, &answer.client_final).await;
        assert_eq!(alice.next().await, auth(ReasonCode::Success, answer.server_final));
    }
    alice.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_client_that_does_not_show_itself_again_is_closed() {
    let house = House::open(Kind::Sqlite).await;
    let (alices, bobs) = (house.password("alice"), house.password("bob"));
    // [MQTT-4.12.1-2]
    for (username, password) in [("alice@demo", "wrong"), ("bob@demo", &bobs), ("nobody@demo", &alices)] {
        let mut alice = sign_in(&house, "alice@demo", &alices, "alice/phone").await.expect("accepted");
        let client = ScramClient::new(username, password, "nonce");
        send_auth(&mut alice, ReasonCode::ReAuthenticate, METHOD, &client.client_first()).await;
        let answer = client.answer(&server_first(&mut alice).await);
        send_auth(&mut alice, ReasonCode::ContinueAuthentication, METHOD, &answer.client_final).await;
        assert_eq!(alice.next().await, Heard::Disconnect(ReasonCode::NotAuthorized), "{username}");
        assert_eq!(alice.next().await, Heard::Closed);
    }
    let first = ScramClient::new("alice@demo", &alices, "nonce").client_first();
    // Out of order, by another method [MQTT-4.12.1-1], and garbage.
    for (auths, reason) in [
        (&[(ReasonCode::ContinueAuthentication, METHOD, &first[..])][..], ReasonCode::ProtocolError),
        (&[(ReasonCode::Success, METHOD, &first)], ReasonCode::ProtocolError),
        (&[(ReasonCode::ReAuthenticate, "SCRAM-SHA-1", &first)], ReasonCode::ProtocolError),
        (
            &[(ReasonCode::ReAuthenticate, METHOD, &first), (ReasonCode::ReAuthenticate, METHOD, &first)],
            ReasonCode::ProtocolError,
        ),
        (&[(ReasonCode::ReAuthenticate, METHOD, b"n,,")], ReasonCode::NotAuthorized),
    ] {
        let mut alice = sign_in(&house, "alice@demo", &alices, "alice/phone").await.expect("accepted");
        for (reason, method, data) in auths {
            send_auth(&mut alice, *reason, method, data).await;
        }
        alice.expect(Heard::Disconnect(reason)).await;
        alice.expect(Heard::Closed).await;
    }
    // A connection without a method knows no AUTH.
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    send_auth(&mut alice, ReasonCode::ReAuthenticate, METHOD, &first).await;
    assert_eq!(alice.next().await, Heard::Disconnect(ReasonCode::ProtocolError));
}

/// Until CONNACK, which must show that the broker knows the password too.
async fn sign_in(
    house: &House,
    username: &str,
    password: &str,
    client_id: &str,
) -> Result<Phone, ReasonCode> {
    let client = ScramClient::new(username, password, "fyko+d2lbbFgONRv9qkxdawL");
    let mut phone = Phone::silent(house, Version::V5).await;
    phone.send(&begin(METHOD, &client.client_first(), client_id).packet()).await;
    let server_first = match phone.next().await {
        Heard::Auth { reason: ReasonCode::ContinueAuthentication, data, .. } => data,
        Heard::ConnAck { reason, .. } => {
            assert_eq!(phone.next().await, Heard::Closed);
            return Err(reason);
        }
        other => panic!("{other:?} in the place of AUTH"),
    };
    let answer = client.answer(&server_first);
    send_auth(&mut phone, ReasonCode::ContinueAuthentication, METHOD, &answer.client_final).await;
    match phone.next().await {
        // [MQTT-4.12.0-5]
        Heard::Authenticated { reason: ReasonCode::Success, method, data } => {
            assert_eq!((method.as_str(), data), (METHOD, answer.server_final));
            Ok(phone)
        }
        Heard::ConnAck { present: false, reason } => {
            assert_eq!(phone.next().await, Heard::Closed);
            Err(reason)
        }
        other => panic!("{other:?} in the place of CONNACK"),
    }
}

fn begin(method: &str, data: &[u8], client_id: &str) -> Login {
    Login::anonymous(client_id)
        .property(Property::AuthenticationMethod(method))
        .property(Property::AuthenticationData(data))
}

async fn server_first(phone: &mut Phone) -> Vec<u8> {
    match phone.next().await {
        Heard::Auth { reason: ReasonCode::ContinueAuthentication, method, data } if method == METHOD => data,
        other => panic!("{other:?} in the place of AUTH"),
    }
}

async fn send_auth(phone: &mut Phone, reason: ReasonCode, method: &str, data: &[u8]) {
    let mut properties = PropertyBuf::new();
    properties.push(Property::AuthenticationMethod(method));
    properties.push(Property::AuthenticationData(data));
    phone.send(&Packet::Auth(Auth { reason, properties: properties.as_properties() })).await;
}

fn auth(reason: ReasonCode, data: Vec<u8>) -> Heard {
    Heard::Auth { reason, method: METHOD.to_owned(), data }
}

async fn refused(phone: &mut Phone, reason: ReasonCode) {
    assert_eq!(phone.next().await, Heard::ConnAck { present: false, reason });
    assert_eq!(phone.next().await, Heard::Closed);
}
