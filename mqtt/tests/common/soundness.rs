//! What must hold of any bytes whatever. The fuzz target checks it too.

use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_mqtt::codec::{connect_version, decode, packet_len};
use sotto_mqtt::packet::{Packet, Version};

/// The first byte chooses the version, the rest is what a peer sent.
#[allow(dead_code, reason = "not every user has inputs of this form")]
pub(crate) fn check_input(input: &[u8]) {
    if let Some((&version, bytes)) = input.split_first() {
        check(bytes, if version == 4 { Version::V3 } else { Version::V5 });
    }
}

/// Decoding does not panic, consumes no more than there is, needs every byte that it consumes, and what
/// comes out can be walked and means the same when it is encoded and decoded again.
pub(crate) fn check(bytes: &[u8], version: Version) {
    let _ = connect_version(bytes);
    let len = packet_len(bytes, PACKET_BYTES_MAX);
    let decoded = decode(bytes, version, PACKET_BYTES_MAX);
    let Ok(Some((packet, consumed))) = decoded else { return };
    assert!(consumed <= bytes.len());
    assert_eq!(len, Ok(Some(consumed)));
    assert_eq!(decode(&bytes[..consumed - 1], version, PACKET_BYTES_MAX), Ok(None));

    let mut again = Vec::new();
    packet.encode(version, &mut again);
    assert_eq!(packet.encoded_len(version), again.len());
    let (copy, _) = decode(&again, version, PACKET_BYTES_MAX).expect("valid").expect("complete");
    assert!(copy == packet, "{bytes:02x?} became {again:02x?}");
    walk(&packet);
}

fn walk(packet: &Packet<'_>) {
    let properties = match packet {
        Packet::Connect(connect) => {
            if let Some(will) = &connect.will {
                let _ = will.properties.iter().count();
            }
            connect.properties
        }
        Packet::ConnAck(connack) => connack.properties,
        Packet::Publish(publish) => publish.properties,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties
        }
        Packet::Subscribe(subscribe) => {
            assert_ne!(subscribe.filters.iter().count(), 0);
            subscribe.properties
        }
        Packet::SubAck(suback) => suback.properties,
        Packet::Unsubscribe(unsubscribe) => {
            assert_ne!(unsubscribe.filters.iter().count(), 0);
            unsubscribe.properties
        }
        Packet::UnsubAck(unsuback) => unsuback.properties,
        Packet::PingReq | Packet::PingResp => return,
        Packet::Disconnect(disconnect) => disconnect.properties,
        Packet::Auth(auth) => auth.properties,
    };
    let _ = properties.iter().count();
    let _ = properties.user_properties().count();
    let _ = properties.subscription_identifier();
}
