//! A connection that sends any bytes and reads packet by packet.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::packet::{Message, Packet, Version, read};
use crate::support::write::{self, DISCONNECT, PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    socket: TcpStream,
    pub(crate) version: Version,
    input: Vec<u8>,
    /// Came while something else was waited for.
    aside: VecDeque<Message>,
    /// What CONNACK said of the session.
    pub(crate) present: bool,
}

/// A topic or Client Identifier that no other test has.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Client {
    /// A TCP connection on which nothing was said.
    pub(crate) fn raw(version: Version, address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("set a time-out");
        socket.set_nodelay(true).expect("set TCP_NODELAY");
        Self { socket, version, input: Vec::new(), aside: VecDeque::new(), present: false }
    }

    /// The broker may have closed the connection already; what it said is for `next` to find.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn next(&mut self) -> Packet {
        match self.aside.pop_front() {
            Some(message) => Packet::Publish(message),
            None => self.read(),
        }
    }

    fn read(&mut self) -> Packet {
        loop {
            if let Some((packet, len)) = read(self.version, &self.input) {
                self.input.drain(..len);
                return packet;
            }
            let mut chunk = [0; 16_384];
            match self.socket.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.input.is_empty(), "the connection ended inside a packet");
                    return Packet::End;
                }
                Ok(len) => self.input.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Packet::End,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next packet, which must be a PUBLISH.
    pub(crate) fn message(&mut self) -> Message {
        match self.next() {
            Packet::Publish(message) => message,
            other => panic!("{other:?} where a PUBLISH should come"),
        }
    }

    /// As `message`, answered as its QoS wants it.
    pub(crate) fn take(&mut self) -> Message {
        let message = self.message();
        match message.qos {
            0 => {}
            1 => self.send(&write::ack(PUBACK, message.packet_id)),
            _ => {
                self.send(&write::ack(PUBREC, message.packet_id));
                loop {
                    match self.read() {
                        Packet::Publish(next) => self.aside.push_back(next),
                        Packet::Ack { kind: PUBREL, packet_id, code: 0, .. } => {
                            assert_eq!(packet_id, message.packet_id);
                            break;
                        }
                        other => panic!("{other:?} where a PUBREL should come"),
                    }
                }
                self.send(&write::ack(PUBCOMP, message.packet_id));
            }
        }
        message
    }

    pub(crate) fn expect_ack(&mut self, kind: u8, packet_id: u16, code: u8) {
        match self.next() {
            Packet::Ack { kind: k, packet_id: p, code: c, .. } => {
                assert_eq!((k, p, c), (kind, packet_id, code));
            }
            other => panic!("{other:?} where {kind:#x} {packet_id} should come"),
        }
    }

    /// Nothing but an answer to PINGREQ comes. Asked twice: a message that was there before the first
    /// question may follow its answer, never the second.
    pub(crate) fn expect_silence(&mut self) {
        for _ in 0..2 {
            self.send(&PINGREQ);
            assert_eq!(self.next(), Packet::PingResp);
        }
    }

    /// DISCONNECT with this Reason Code in version 5, and the end of the connection in both.
    pub(crate) fn expect_closed_with(&mut self, code: u8) {
        if self.version == Version::V5 {
            match self.next() {
                Packet::Disconnect { code: c, .. } => assert_eq!(c, code, "{c:#x} instead of {code:#x}"),
                other => panic!("{other:?} where DISCONNECT {code:#x} should come"),
            }
        }
        assert_eq!(self.next(), Packet::End);
    }

    /// The connection ends with nothing more said.
    pub(crate) fn expect_closed(&mut self) {
        assert_eq!(self.next(), Packet::End);
    }

    /// DISCONNECT with success.
    pub(crate) fn goodbye(mut self) {
        self.send(&DISCONNECT);
        assert_eq!(self.next(), Packet::End);
    }

    /// Subscribes with the options as they stand, and is granted their QoS.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) {
        self.subscribe_with(&[], filter, options);
    }

    pub(crate) fn subscribe_with(&mut self, properties: &[u8], filter: &str, options: u8) {
        assert_eq!(self.try_subscribe(properties, &[(filter, options)]), [options & 3]);
    }

    /// The codes of the SUBACK. Messages that come before it are an error.
    pub(crate) fn try_subscribe(&mut self, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
        const PACKET_ID: u16 = 0x7001;
        self.send(&write::subscribe(self.version, PACKET_ID, properties, filters));
        match self.next() {
            Packet::SubAck { packet_id: PACKET_ID, codes } => codes,
            other => panic!("{other:?} where a SUBACK should come"),
        }
    }

    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        const PACKET_ID: u16 = 0x7002;
        self.send(&write::unsubscribe(self.version, PACKET_ID, filters));
        match self.next() {
            Packet::UnsubAck { packet_id: PACKET_ID, codes } => codes,
            other => panic!("{other:?} where an UNSUBACK should come"),
        }
    }

    /// Publishes and sees it acknowledged, as its QoS wants it.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>) {
        self.send(&publish.bytes(self.version));
        match publish.qos {
            0 => {
                // What follows a QoS 0 message on its connection follows it everywhere.
                self.send(&PINGREQ);
                assert_eq!(self.next(), Packet::PingResp);
            }
            1 => self.expect_success(PUBACK, publish.packet_id),
            _ => {
                self.expect_success(PUBREC, publish.packet_id);
                self.send(&write::ack(PUBREL, publish.packet_id));
                self.expect_ack(PUBCOMP, publish.packet_id, 0);
            }
        }
    }

    /// Success, with or without subscribers.
    fn expect_success(&mut self, kind: u8, packet_id: u16) {
        match self.next() {
            Packet::Ack { kind: k, packet_id: p, code: 0 | 0x10, .. } => {
                assert_eq!((k, p), (kind, packet_id));
            }
            other => panic!("{other:?} where {kind:#x} {packet_id} should come"),
        }
    }
}
