//! Two codecs that others wrote, asked what they make of some bytes.

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use sotto_mqtt::packet::Version;
use tokio_util::codec::{Decoder, Encoder};

use super::PACKET_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Oracle {
    Rmqtt,
    ProtocolCore,
}

/// What an oracle took for a packet, as it writes it itself.
pub(crate) struct Taken {
    pub(crate) written: Vec<u8>,
    /// Length of the packet that was read, bytes.
    pub(crate) consumed: usize,
}

impl Oracle {
    pub(crate) const ALL: [Self; 2] = [Self::Rmqtt, Self::ProtocolCore];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rmqtt => "rmqtt-codec",
            Self::ProtocolCore => "mqtt-protocol-core",
        }
    }

    /// `None` where it sees no packet, or not yet a whole one.
    pub(crate) fn take(self, version: Version, bytes: &[u8]) -> Option<Taken> {
        match (self, version) {
            (Self::Rmqtt, Version::V3) => take_rmqtt(|| rmqtt_codec::v3::Codec::new(PACKET_BYTES_MAX), bytes),
            (Self::Rmqtt, Version::V5) => {
                take_rmqtt(|| rmqtt_codec::v5::Codec::new(PACKET_BYTES_MAX, 0), bytes)
            }
            (Self::ProtocolCore, version) => take_protocol_core(version, bytes),
        }
    }
}

/// Writes with a codec of its own: one that has read a CONNECT writes what that asked for.
fn take_rmqtt<C, P>(codec: impl Fn() -> C, bytes: &[u8]) -> Option<Taken>
where
    C: Decoder<Item = (P, u32)> + Encoder<P>,
{
    let mut unread = BytesMut::from(bytes);
    let (packet, _) = codec().decode(&mut unread).ok()??;
    let mut written = BytesMut::new();
    codec().encode(packet, &mut written).ok()?;
    Some(Taken { written: written.to_vec(), consumed: bytes.len() - unread.len() })
}

fn take_protocol_core(version: Version, bytes: &[u8]) -> Option<Taken> {
    let mut unread = Cursor::new(bytes);
    let mut builder = PacketBuilder::with_maximum_packet_size(PACKET_BYTES_MAX);
    let PacketBuildResult::Complete(raw) = builder.feed(&mut unread) else { return None };
    let consumed = usize::try_from(unread.position()).expect("within the bytes");
    let written = match version {
        Version::V3 => written_in_3_1_1(&raw),
        Version::V5 => written_in_5(&raw),
    }?;
    Some(Taken { written, consumed })
}

/// Reads a packet that takes up all its bytes, as the connection of the crate demands, and writes it.
macro_rules! rewrite {
    ($raw:expr, $packet:ty) => {
        $raw.parse_exact(<$packet>::parse).ok().map(|packet| packet.to_continuous_buffer())
    };
}

macro_rules! rewrite_publish {
    ($raw:expr, $publish:ty) => {
        match &$raw.data {
            PacketData::Publish(body) => <$publish>::parse($raw.flags(), body.clone())
                .ok()
                .map(|(packet, _)| packet.to_continuous_buffer()),
            PacketData::Normal(_) => None,
        }
    };
}

fn written_in_3_1_1(raw: &RawPacket) -> Option<Vec<u8>> {
    match raw.packet_type() {
        1 => rewrite!(raw, v3_1_1::Connect),
        2 => rewrite!(raw, v3_1_1::Connack),
        3 => rewrite_publish!(raw, v3_1_1::Publish),
        4 => rewrite!(raw, v3_1_1::Puback),
        5 => rewrite!(raw, v3_1_1::Pubrec),
        6 => rewrite!(raw, v3_1_1::Pubrel),
        7 => rewrite!(raw, v3_1_1::Pubcomp),
        8 => rewrite!(raw, v3_1_1::Subscribe),
        9 => rewrite!(raw, v3_1_1::Suback),
        10 => rewrite!(raw, v3_1_1::Unsubscribe),
        11 => rewrite!(raw, v3_1_1::Unsuback),
        12 => rewrite!(raw, v3_1_1::Pingreq),
        13 => rewrite!(raw, v3_1_1::Pingresp),
        14 => rewrite!(raw, v3_1_1::Disconnect),
        _ => None,
    }
}

fn written_in_5(raw: &RawPacket) -> Option<Vec<u8>> {
    match raw.packet_type() {
        1 => rewrite!(raw, v5_0::Connect),
        2 => rewrite!(raw, v5_0::Connack),
        3 => rewrite_publish!(raw, v5_0::Publish),
        4 => rewrite!(raw, v5_0::Puback),
        5 => rewrite!(raw, v5_0::Pubrec),
        6 => rewrite!(raw, v5_0::Pubrel),
        7 => rewrite!(raw, v5_0::Pubcomp),
        8 => rewrite!(raw, v5_0::Subscribe),
        9 => rewrite!(raw, v5_0::Suback),
        10 => rewrite!(raw, v5_0::Unsubscribe),
        11 => rewrite!(raw, v5_0::Unsuback),
        12 => rewrite!(raw, v5_0::Pingreq),
        13 => rewrite!(raw, v5_0::Pingresp),
        14 => rewrite!(raw, v5_0::Disconnect),
        15 => rewrite!(raw, v5_0::Auth),
        _ => None,
    }
}
