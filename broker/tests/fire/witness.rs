//! Clients that stay connected while the database is away: what needs none goes on, what needs it waits.

use std::time::Duration;

use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Packet, Publish, Version};

use crate::ledger::{Key, Ledger, TopicNumber, payload};
use crate::link::{Link, Place};
use crate::subscriber::subscribe;
use crate::support::patience::soon;
use crate::support::phone::{Heard, Login};

pub(crate) struct Witness {
    talker: Link,
    listener: Link,
    /// A connection of its own: one that waits for a key that is in the database is not read meanwhile.
    asker: Link,
    topic: String,
    pulses: u32,
    waiting: Option<Key>,
}

/// What needs no database takes no longer, on a busy machine too.
const PULSE_MAX: Duration = Duration::from_secs(5);
const PACKET_ID: PacketId = PacketId::FIRST;

impl Witness {
    /// `topic`: for what is not stored.
    pub(crate) async fn arrive(place: &Place, logins: &[Login; 3], topic: String) -> Self {
        let connect = async |login| {
            let connected = Link::connect(place, login, Version::V5).await;
            connected.expect("the broker serves").0
        };
        let [talker, mut listener, asker] =
            [connect(&logins[0]).await, connect(&logins[1]).await, connect(&logins[2]).await];
        subscribe(&mut listener, &topic, QoS::AtMostOnce).await;
        Self { talker, listener, asker, topic, pulses: 0, waiting: None }
    }

    /// A QoS 0 message goes through and a PINGREQ is answered.
    pub(crate) async fn pulse(&mut self) {
        self.pulses += 1;
        let payload = self.pulses.to_be_bytes();
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: &self.topic,
            packet_id: None,
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let passes = async {
            self.talker.send(&Packet::Publish(publish)).await;
            self.talker.send(&Packet::PingReq).await;
            assert_eq!(self.talker.next().await, Heard::PingResp, "to PINGREQ without a database");
            match self.listener.next().await {
                Heard::Publish(message) => assert_eq!(message.payload, payload),
                other => panic!("{other:?} in the place of a message of QoS 0"),
            }
        };
        let passed = tokio::time::timeout(PULSE_MAX, passes).await;
        assert!(passed.is_ok(), "QoS 0 and PINGREQ do not wait for the database");
    }

    /// Publishes what has to wait for the database.
    pub(crate) async fn ask(&mut self, ledger: &Ledger, number: usize, topic: TopicNumber) {
        let key = ledger.sending(number, topic, QoS::AtLeastOnce);
        let payload = payload(key);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: ledger.topic(topic),
            packet_id: Some(PACKET_ID),
            properties: Properties::EMPTY,
            payload: &payload,
        };
        self.asker.send(&Packet::Publish(publish)).await;
        self.waiting = Some(key);
    }

    pub(crate) async fn hears_no_answer(&mut self, for_so_long: Duration) {
        let heard = tokio::time::timeout(for_so_long, self.asker.next()).await;
        assert!(heard.is_err(), "{heard:?} without a database");
    }

    /// On the same connection, when the database is back.
    pub(crate) async fn hears_the_answer(mut self, ledger: &Ledger) {
        let key = self.waiting.expect("it was asked");
        match soon("the PUBACK that waited for the database", self.asker.next()).await {
            Heard::PubAck(PACKET_ID, reason) if !reason.is_error() => ledger.acknowledged(key),
            other => panic!("{other:?} in the place of PUBACK"),
        }
        self.pulse().await;
        self.talker.disconnect().await;
        self.listener.disconnect().await;
        self.asker.disconnect().await;
    }
}
