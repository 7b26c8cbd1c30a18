//! MQTT packets on a pipe, as a client sees them.

use std::pin::Pin;

use sotto_model::limits::PACKET_BYTES_MAX;
use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::decode;
use sotto_mqtt::packet::{Packet, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::time::Sleep;

/// A packet from the broker, owned.
#[derive(Clone, Debug)]
pub(super) enum Incoming {
    ConnAck { present: bool, code: u8 },
    Publish(Delivered),
    PubAck(PacketId, u8),
    PubRec(PacketId, u8),
    PubRel(PacketId),
    PubComp(PacketId),
    SubAck(PacketId, Vec<u8>),
    UnsubAck,
    PingResp,
    Disconnect(u8),
}

#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet_id: Option<PacketId>,
}

pub(super) enum Next {
    Packet(Incoming),
    /// The turn's time has come.
    Turn,
    Closed,
}

pub(super) struct Line {
    reading: ReadHalf<DuplexStream>,
    writing: WriteHalf<DuplexStream>,
    version: Version,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Line {
    pub(super) fn new(pipe: DuplexStream, version: Version) -> Self {
        let (reading, writing) = split(pipe);
        Self { reading, writing, version, input: Vec::new(), output: Vec::new() }
    }

    /// To be written by `next`.
    pub(super) fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.output);
    }

    pub(super) fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Of what is unsent, only so much is ever sent.
    pub(super) fn cut_output(&mut self, bytes: usize) {
        self.output.truncate(bytes);
    }

    /// Writes what there is to write, and waits for a packet or for the turn.
    pub(super) async fn next(&mut self, mut turn: Pin<&mut Sleep>, reads: bool) -> Next {
        loop {
            if let Some(packet) = self.decode() {
                return Next::Packet(packet);
            }
            tokio::select! {
                biased;
                written = self.writing.write(&self.output), if !self.output.is_empty() => match written {
                    Ok(0) | Err(_) => return Next::Closed,
                    Ok(written) => drop(self.output.drain(..written)),
                },
                read = self.reading.read_buf(&mut self.input), if reads => match read {
                    Ok(0) | Err(_) => return Next::Closed,
                    Ok(_) => {}
                },
                () = &mut turn => return Next::Turn,
            }
        }
    }

    fn decode(&mut self) -> Option<Incoming> {
        let decoded =
            decode(&self.input, self.version, PACKET_BYTES_MAX).expect("the broker's are well formed");
        let (packet, len) = decoded?;
        let packet = owned(&packet);
        self.input.drain(..len);
        Some(packet)
    }
}

fn owned(packet: &Packet<'_>) -> Incoming {
    match packet {
        Packet::ConnAck(connack) => {
            Incoming::ConnAck { present: connack.session_present, code: connack.reason.code() }
        }
        Packet::Publish(publish) => Incoming::Publish(Delivered {
            topic: publish.topic.to_owned(),
            payload: String::from_utf8_lossy(publish.payload).into_owned(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
        }),
        Packet::PubAck(ack) => Incoming::PubAck(ack.packet_id, ack.reason.code()),
        Packet::PubRec(ack) => Incoming::PubRec(ack.packet_id, ack.reason.code()),
        Packet::PubRel(ack) => Incoming::PubRel(ack.packet_id),
        Packet::PubComp(ack) => Incoming::PubComp(ack.packet_id),
        Packet::SubAck(ack) => Incoming::SubAck(ack.packet_id, ack.reasons.to_vec()),
        Packet::UnsubAck(_) => Incoming::UnsubAck,
        Packet::PingResp => Incoming::PingResp,
        Packet::Disconnect(disconnect) => Incoming::Disconnect(disconnect.reason.code()),
        other => panic!("a broker does not send a {}", other.packet_type().as_str()),
    }
}
