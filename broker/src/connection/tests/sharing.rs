//! Shared subscriptions, over real sockets and a real store.

use sotto_mqtt::packet::{Unsubscribe, UnsubscribeFilters};

use super::*;

/// Long enough for a message that is on its way to come.
const A_WHILE: Duration = Duration::from_millis(300);

const SHARED: &str = "$share/g/t/#";

/// A PUBLISH as a member got it.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    payload: String,
    qos: QoS,
    dup: bool,
    packet_id: u16,
    identifiers: Vec<u32>,
}

impl Connected {
    async fn share(&mut self, granted: QoS) {
        self.subscribe(SHARED, qos(granted)).await;
        self.until(&format!("SUBACK [{}]", granted as u8)).await;
    }

    async fn unsubscribe(&mut self, filter: &str) {
        let mut raw = Vec::new();
        let filters = UnsubscribeFilters::encode(&[filter], &mut raw);
        let packet_id = PacketId::FIRST;
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::EMPTY, filters }))
            .await;
    }

    /// The next PUBLISH within `patience`; other packets are passed over.
    async fn got_within(&mut self, patience: Duration) -> Option<Got> {
        tokio::time::timeout(patience, async {
            loop {
                let decoded = decode(&self.input, self.version, PACKET_BYTES_MAX).expect("well formed");
                if let Some((packet, len)) = decoded {
                    let got = if let Packet::Publish(publish) = packet {
                        Some(Got {
                            payload: String::from_utf8_lossy(publish.payload).into_owned(),
                            qos: publish.qos,
                            dup: publish.dup,
                            packet_id: publish.packet_id.map_or(0, |id| id.0.get()),
                            identifiers: identifiers(publish.properties),
                        })
                    } else {
                        None
                    };
                    self.input.drain(..len);
                    if got.is_some() {
                        return got;
                    }
                } else if self.socket.read_buf(&mut self.input).await.expect("read") == 0 {
                    return None;
                }
            }
        })
        .await
        .unwrap_or_default()
    }

    async fn got(&mut self) -> Got {
        self.got_within(SOON).await.expect("a message comes soon")
    }

    /// Takes and acknowledges what comes, until nothing comes for a while.
    async fn drain(&mut self) -> Vec<String> {
        let mut payloads = Vec::new();
        while let Some(got) = self.got_within(A_WHILE).await {
            if got.qos == QoS::AtLeastOnce {
                self.acknowledge(Packet::PubAck, got.packet_id).await;
            }
            payloads.push(got.payload);
        }
        payloads
    }

    /// Publishes `t/<number>` with its number, and waits until all are acknowledged.
    async fn publish_numbers(&mut self, numbers: std::ops::Range<u16>, granted: QoS) {
        let last = numbers.end - 1;
        for number in numbers {
            self.publish("t/x", granted, number + 1, false, number.to_string().as_bytes()).await;
            if number % 50 == 49 || number == last {
                self.until(&format!("PUBACK {} ", number + 1)).await;
            }
        }
    }
}

fn identifiers(properties: Properties<'_>) -> Vec<u32> {
    let identifier = |property| match property {
        Property::SubscriptionIdentifier(identifier) => Some(identifier),
        _ => None,
    };
    properties.iter().filter_map(identifier).collect()
}

fn member(id: &'static str) -> Client {
    Client::new(id, Version::V5)
}

fn lasting(id: &'static str) -> Client {
    Client { clean: false, ..member(id) }
}

fn numbers(range: std::ops::Range<u16>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn sorted(mut payloads: Vec<String>) -> Vec<String> {
    payloads.sort_by_key(|payload| payload.parse::<u16>().expect("a number"));
    payloads
}

#[tokio::test]
async fn each_message_goes_to_one_member_and_members_take_turns() {
    let broker = Broker::start().await;
    let mut members = Vec::new();
    for id in ["a", "b", "c", "d"] {
        let version = if id == "d" { Version::V3 } else { Version::V5 };
        let mut connected = broker.connect(&Client::new(id, version)).await;
        connected.share(QoS::AtLeastOnce).await;
        members.push(connected);
    }
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish_numbers(0..40, QoS::AtLeastOnce).await;
    let mut all = Vec::new();
    for member in &mut members {
        let got = member.drain().await;
        assert_eq!(got.len(), 10);
        all.extend(got);
    }
    assert_eq!(sorted(all), numbers(0..40));
}

#[tokio::test]
async fn qos_0_goes_to_one_member_too() {
    let broker = Broker::start().await;
    let mut first = broker.connect(&member("first")).await;
    first.share(QoS::AtMostOnce).await;
    let mut second = broker.connect(&member("second")).await;
    second.share(QoS::ExactlyOnce).await;
    let mut publisher = broker.connect(&member("publisher")).await;
    for number in 0..10 {
        publisher.publish("t/x", QoS::AtMostOnce, 0, false, number.to_string().as_bytes()).await;
    }
    let (of_first, of_second) = (first.drain().await, second.drain().await);
    assert_eq!((of_first.len(), of_second.len()), (5, 5));
    assert_eq!(sorted([of_first, of_second].concat()), numbers(0..10));
}

#[tokio::test]
async fn a_member_gets_what_its_own_subscription_grants() {
    let broker = Broker::start().await;
    let mut once = broker.connect(&member("once")).await;
    once.share(QoS::AtMostOnce).await;
    let mut exactly = broker.connect(&member("exactly")).await;
    exactly.share(QoS::ExactlyOnce).await;
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish_numbers(0..2, QoS::AtLeastOnce).await;
    assert_eq!(once.got().await.qos, QoS::AtMostOnce);
    assert_eq!(exactly.got().await.qos, QoS::AtLeastOnce);
}

#[tokio::test]
async fn what_a_lost_member_has_not_acknowledged_goes_to_another_as_a_new_delivery() {
    let broker = Broker::start().await;
    for client in [member("lost"), lasting("lost and stored")] {
        let mut lost = broker.connect(&client).await;
        lost.share(QoS::AtLeastOnce).await;
        let mut publisher = broker.connect(&member("publisher")).await;
        publisher.publish_numbers(0..3, QoS::AtLeastOnce).await;
        lost.got().await;
        lost.acknowledge(Packet::PubAck, 1).await;
        lost.send(&Packet::PingReq).await;
        lost.until("PingResp").await;
        let mut other = broker.connect(&member("other")).await;
        other.share(QoS::AtLeastOnce).await;
        drop(lost);
        for expected in ["1", "2"] {
            let got = other.got().await;
            assert_eq!((got.payload.as_str(), got.dup), (expected, false));
            other.acknowledge(Packet::PubAck, got.packet_id).await;
        }
        // It was done by another: the one who comes back does not get it as well.
        let mut back = broker.connect(&client).await;
        assert_eq!(back.drain().await, Vec::<String>::new());
        assert_eq!(other.drain().await, Vec::<String>::new());
        back.unsubscribe(SHARED).await;
        back.until("UnsubAck").await;
    }
}

#[tokio::test]
async fn a_message_that_a_member_refuses_is_for_nobody() {
    let broker = Broker::start().await;
    let mut refusing = broker.connect(&member("refusing")).await;
    refusing.share(QoS::AtLeastOnce).await;
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish_numbers(0..1, QoS::AtLeastOnce).await;
    let packet_id = PacketId::new(refusing.got().await.packet_id).expect("not zero");
    let reason = ReasonCode::QuotaExceeded;
    refusing.send(&Packet::PubAck(Ack { packet_id, reason, properties: Properties::EMPTY })).await;
    refusing.send(&Packet::PingReq).await;
    refusing.until("PingResp").await;
    let mut other = broker.connect(&member("other")).await;
    other.share(QoS::AtLeastOnce).await;
    drop(refusing);
    assert_eq!(other.drain().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_member_that_acknowledges_nothing_holds_nobody_up() {
    let broker = Broker::start().await;
    let mut stuck = broker.connect(&Client { receive_maximum: 1, ..member("stuck") }).await;
    stuck.share(QoS::AtLeastOnce).await;
    let mut other = broker.connect(&member("other")).await;
    other.share(QoS::AtLeastOnce).await;
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish_numbers(0..100, QoS::AtLeastOnce).await;
    let of_other = other.drain().await;
    let of_stuck = stuck.got().await;
    assert_eq!(of_other.len(), 99);
    assert_eq!(sorted([of_other, vec![of_stuck.payload]].concat()), numbers(0..100));
}

#[tokio::test]
async fn a_group_without_a_stored_member_loses_nothing_while_all_its_members_are_slow() {
    let broker = Broker::start().await;
    let mut slow = Vec::new();
    for id in ["a", "b"] {
        let mut member = broker.connect(&Client { receive_maximum: 1, ..member(id) }).await;
        member.share(QoS::AtLeastOnce).await;
        slow.push(member);
    }
    let mut publisher = broker.connect(&member("publisher")).await;
    // More than the mailbox holds.
    publisher.publish_numbers(0..1000, QoS::AtLeastOnce).await;
    let mut all = Vec::new();
    for turn in 0..1000 {
        let member = &mut slow[turn % 2];
        let got = member.got().await;
        member.acknowledge(Packet::PubAck, got.packet_id).await;
        all.push(got.payload);
    }
    assert_eq!(sorted(all), numbers(0..1000));
}

#[tokio::test]
async fn a_single_member_gets_what_came_while_it_was_away_in_order() {
    let broker = Broker::start().await;
    let mut worker = broker.connect(&lasting("worker")).await;
    worker.share(QoS::AtLeastOnce).await;
    drop(worker);
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish_numbers(0..1000, QoS::AtLeastOnce).await;
    let mut worker = broker.connect(&lasting("worker")).await;
    for number in 0..1000 {
        let got = worker.got().await;
        assert_eq!(got.payload, number.to_string());
        worker.acknowledge(Packet::PubAck, got.packet_id).await;
    }
    publisher.publish_numbers(1000..1001, QoS::AtLeastOnce).await;
    assert_eq!(worker.drain().await, ["1000"]);
}

#[tokio::test]
async fn qos_2_stays_with_the_session_that_it_was_sent_to() {
    let broker = Broker::start().await;
    let mut first = broker.connect(&lasting("first")).await;
    first.share(QoS::ExactlyOnce).await;
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish("t/x", QoS::ExactlyOnce, 1, false, b"once").await;
    publisher.until("PUBREC").await;
    let sent = first.got().await;
    assert_eq!(sent.qos, QoS::ExactlyOnce);
    let mut other = broker.connect(&member("other")).await;
    other.share(QoS::ExactlyOnce).await;
    drop(first);
    // [MQTT-4.8.2-4]
    assert_eq!(other.got_within(A_WHILE).await, None);
    let mut first = broker.connect(&lasting("first")).await;
    assert_eq!(first.got().await, Got { dup: true, ..sent });
    first.acknowledge(Packet::PubRec, 1).await;
    first.until("PubRel").await;
    first.acknowledge(Packet::PubComp, 1).await;
    assert_eq!(first.got_within(A_WHILE).await, None);

    // [MQTT-4.8.2-5]
    publisher.acknowledge(Packet::PubRel, 1).await;
    publisher.publish("t/x", QoS::ExactlyOnce, 2, false, b"of a session that ends").await;
    publisher.publish("t/x", QoS::ExactlyOnce, 3, false, b"of a session that ends").await;
    first.got().await;
    other.got().await;
    drop(other);
    assert_eq!(first.got_within(A_WHILE).await, None);
}

#[tokio::test]
async fn who_unsubscribes_leaves_what_was_not_sent_to_the_others() {
    let broker = Broker::start().await;
    let mut leaving = broker.connect(&Client { receive_maximum: 1, ..member("leaving") }).await;
    leaving.share(QoS::AtLeastOnce).await;
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish_numbers(0..3, QoS::AtLeastOnce).await;
    assert_eq!(leaving.got().await.payload, "0");
    let mut other = broker.connect(&member("other")).await;
    other.share(QoS::AtLeastOnce).await;
    leaving.unsubscribe(SHARED).await;
    leaving.until("UnsubAck").await;
    assert_eq!(other.drain().await, ["1", "2"]);
    // What was sent is still its own to acknowledge.
    leaving.acknowledge(Packet::PubAck, 1).await;
    publisher.publish_numbers(3..6, QoS::AtLeastOnce).await;
    assert_eq!(other.drain().await, ["3", "4", "5"]);
    assert_eq!(leaving.drain().await, Vec::<String>::new());
}

#[tokio::test]
async fn groups_and_ordinary_subscriptions_each_get_a_copy_with_their_identifier() {
    let broker = Broker::start().await;
    let mut client = broker.connect(&member("client")).await;
    for (identifier, filter) in [(1, "t/x"), (2, "$share/g/t/x"), (3, "$share/h/+/x")] {
        let mut properties = PropertyBuf::new();
        properties.push(Property::SubscriptionIdentifier(identifier));
        let properties = properties.as_properties();
        let mut raw = Vec::new();
        let filters = SubscribeFilters::encode(&[(filter, qos(QoS::AtLeastOnce))], &mut raw);
        client.send(&Packet::Subscribe(Subscribe { packet_id: PacketId::FIRST, properties, filters })).await;
        client.until("SUBACK [1]").await;
    }
    let mut other = broker.connect(&member("other")).await;
    other.subscribe("$share/i/t/x", qos(QoS::AtLeastOnce)).await;
    other.until("SUBACK").await;
    client.publish("t/x", QoS::AtLeastOnce, 1, false, b"x").await;
    let mut copies = Vec::new();
    for _ in 0..3 {
        copies.push(client.got().await.identifiers);
    }
    copies.sort();
    assert_eq!(copies, [[1], [2], [3]]);
    assert_eq!(other.drain().await, ["x"]);
    assert_eq!(client.got_within(A_WHILE).await, None);
}

#[tokio::test]
async fn what_is_retained_is_not_sent_to_who_shares() {
    let broker = Broker::start().await;
    let mut publisher = broker.connect(&member("publisher")).await;
    publisher.publish("t/x", QoS::AtLeastOnce, 1, true, b"retained").await;
    publisher.until("PUBACK").await;
    let mut worker = broker.connect(&member("worker")).await;
    worker.share(QoS::AtLeastOnce).await;
    assert_eq!(worker.got_within(A_WHILE).await, None);
}

#[tokio::test]
async fn a_group_that_ended_leaves_nothing_to_the_next_of_its_name() {
    let broker = Broker::start().await;
    let mut publisher = broker.connect(&member("publisher")).await;
    for round in 0..2 {
        let mut worker = broker.connect(&lasting("worker")).await;
        worker.share(QoS::AtLeastOnce).await;
        assert_eq!(worker.got_within(A_WHILE).await, None);
        publisher.publish_numbers(0..1, QoS::AtLeastOnce).await;
        assert_eq!(worker.got().await.payload, "0");
        if round == 0 {
            worker.unsubscribe(SHARED).await;
            worker.until("UnsubAck").await;
        } else {
            // [MQTT-3.1.2-4]
            drop(worker);
            let mut clean = broker.connect(&member("worker")).await;
            clean.share(QoS::AtLeastOnce).await;
            assert_eq!(clean.got_within(A_WHILE).await, None);
        }
        publisher.publish_numbers(1..3, QoS::AtLeastOnce).await;
    }
}

#[tokio::test]
async fn no_client_may_have_the_name_of_a_group() {
    let broker = Broker::start().await;
    let refused = broker.try_connect(&member("$share/g")).await;
    assert!(refused.connack.starts_with("CONNACK 0x85"), "{}", refused.connack);
}

#[tokio::test]
async fn a_share_without_a_name_or_with_no_local_is_refused() {
    let broker = Broker::start().await;
    for filter in ["$share//t", "$share/g", "$share/g/", "$share/+/t"] {
        let mut client = broker.connect(&member("client")).await;
        client.subscribe(filter, qos(QoS::AtLeastOnce)).await;
        // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        assert_eq!(client.next().await.expect("it says why"), "DISCONNECT 0x81", "{filter}");
        let mut old = broker.connect(&Client::new("old", Version::V3)).await;
        old.subscribe(filter, qos(QoS::AtLeastOnce)).await;
        assert_eq!(old.next().await.expect("alive"), "SUBACK [128]", "{filter}");
    }
    let mut client = broker.connect(&member("client")).await;
    // [MQTT-3.8.3-4]
    client.subscribe(SHARED, SubscriptionOptions { no_local: true, ..qos(QoS::AtLeastOnce) }).await;
    assert_eq!(client.next().await.expect("it says why"), "DISCONNECT 0x82");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_miss_nothing_together() {
    const MESSAGES: u16 = 1500;
    let broker = Broker::start().await;
    let mut keeper = broker.connect(&lasting("keeper")).await;
    keeper.share(QoS::AtLeastOnce).await;
    drop(keeper);
    let mut publisher = broker.connect(&member("publisher")).await;
    let publishing = async { publisher.publish_numbers(0..MESSAGES, QoS::AtLeastOnce).await };
    let visiting = async |id: &'static str, clean: bool| {
        let mut done = Vec::new();
        for visit in 0..20_usize {
            let client =
                Client { clean, receive_maximum: 1 + u16::try_from(visit).expect("small"), ..member(id) };
            let mut visitor = broker.connect(&client).await;
            visitor.share(QoS::AtLeastOnce).await;
            for _ in 0..visit {
                let Some(got) = visitor.got_within(Duration::from_millis(50)).await else { break };
                visitor.acknowledge(Packet::PubAck, got.packet_id).await;
                done.push(got.payload);
            }
            match visit % 3 {
                0 => visitor.unsubscribe(SHARED).await,
                1 => drop(broker.connect(&client).await),
                _ => {}
            }
        }
        done
    };
    let ((), one, two, three) =
        tokio::join!(publishing, visiting("one", true), visiting("two", false), visiting("three", false));
    let mut keeper = broker.connect(&lasting("keeper")).await;
    let mut all: Vec<u16> = [one, two, three, keeper.drain().await]
        .concat()
        .iter()
        .map(|payload| payload.parse().expect("a number"))
        .collect();
    all.sort_unstable();
    // One that was acknowledged as its connection ended may come again.
    all.dedup();
    assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>());
}
