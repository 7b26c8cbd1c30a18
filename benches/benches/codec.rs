//! What a packet costs on its way in and out, for the packets that a busy broker sees most.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::encode::encode_publish;
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{Ack, Packet, Publish, Subscribe, SubscribeFilters, Version};
use sotto_mqtt::reason::ReasonCode;

const TOPIC: &str = "c/0190a0b0-0000-7000-8000-0000000000ab/m";
const PAYLOAD: &[u8] = &[0xa5; 256];

fn main() {
    divan::main();
}

#[divan::bench(args = [Version::V3, Version::V5])]
fn decode_publish(bencher: Bencher<'_, '_>, version: Version) {
    bench_decode(bencher, version, &publish(Properties::EMPTY));
}

/// As a phone sends it: a content type and an identifier of its own.
#[divan::bench]
fn decode_publish_with_properties(bencher: Bencher<'_, '_>) {
    bench_decode(bencher, Version::V5, &publish(publisher_properties().as_properties()));
}

#[divan::bench(args = [Version::V3, Version::V5])]
fn decode_puback(bencher: Bencher<'_, '_>, version: Version) {
    bench_decode(bencher, version, &puback());
}

#[divan::bench(args = [Version::V3, Version::V5])]
fn decode_subscribe(bencher: Bencher<'_, '_>, version: Version) {
    bench_decode(bencher, version, &subscribe(&mut Vec::new()));
}

/// What a read of a busy socket holds: as many PUBLISH packets as 16 KiB take.
#[divan::bench]
fn decode_a_full_read_buffer(bencher: Bencher<'_, '_>) {
    let one = encoded(Version::V5, &publish(Properties::EMPTY));
    let count = 16 * 1024 / one.len();
    let buffer = one.repeat(count);
    bencher.counter(ItemsCount::new(count)).counter(BytesCount::new(buffer.len())).bench(|| {
        let mut rest = black_box(&buffer[..]);
        let mut payload_bytes = 0;
        while let Ok(Some((Packet::Publish(publish), consumed))) = decode(rest, Version::V5, PACKET_BYTES_MAX)
        {
            payload_bytes += publish.payload.len();
            rest = &rest[consumed..];
        }
        payload_bytes
    });
}

#[divan::bench(args = [Version::V3, Version::V5])]
fn encode_publish_from_parts(bencher: Bencher<'_, '_>, version: Version) {
    let stored = publisher_properties();
    let mut ours = PropertyBuf::new();
    ours.push(Property::SubscriptionIdentifier(7));
    let parts = [stored.as_properties().as_bytes(), ours.as_properties().as_bytes()];
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        let packet_id = Some(PacketId::FIRST);
        let (topic, payload) = (black_box(TOPIC), black_box(PAYLOAD));
        encode_publish(version, false, QoS::AtLeastOnce, false, topic, packet_id, &parts, payload, &mut out);
        out.len()
    });
}

#[divan::bench(args = [Version::V3, Version::V5])]
fn encode_puback(bencher: Bencher<'_, '_>, version: Version) {
    bench_encode(bencher, version, &puback());
}

#[divan::bench(args = [Version::V3, Version::V5])]
fn encode_subscribe(bencher: Bencher<'_, '_>, version: Version) {
    bench_encode(bencher, version, &subscribe(&mut Vec::new()));
}

/// The limit: copying a PUBLISH as it stands.
#[divan::bench]
fn limit_copy_publish(bencher: Bencher<'_, '_>) {
    let bytes = encoded(Version::V5, &publish(publisher_properties().as_properties()));
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        out.extend_from_slice(black_box(&bytes));
        out.len()
    });
}

fn bench_decode(bencher: Bencher<'_, '_>, version: Version, packet: &Packet<'_>) {
    let bytes = encoded(version, packet);
    bencher.bench(|| match decode(black_box(&bytes), version, PACKET_BYTES_MAX) {
        // The packet itself goes nowhere: a caller matches on it where it lies.
        Ok(Some((packet, consumed))) => {
            black_box(&packet);
            consumed
        }
        _ => unreachable!("the packet is valid and whole"),
    });
}

fn bench_encode(bencher: Bencher<'_, '_>, version: Version, packet: &Packet<'_>) {
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        black_box(packet).encode(version, &mut out);
        out.len()
    });
}

fn encoded(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn publish(properties: Properties<'_>) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        packet_id: Some(PacketId::FIRST),
        properties,
        payload: PAYLOAD,
    })
}

fn publisher_properties() -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    properties
        .push(Property::ContentType("application/octet-stream"))
        .push(Property::UserProperty("sotto-id", "0190a0b0-0000-7000-8000-0000000000cd"));
    properties
}

fn puback() -> Packet<'static> {
    Packet::PubAck(Ack {
        packet_id: PacketId::FIRST,
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    })
}

fn subscribe(raw: &mut Vec<u8>) -> Packet<'_> {
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    Packet::Subscribe(Subscribe {
        packet_id: PacketId::FIRST,
        properties: Properties::EMPTY,
        filters: SubscribeFilters::encode(&[(TOPIC, options), ("c/+/m", options)], raw),
    })
}
